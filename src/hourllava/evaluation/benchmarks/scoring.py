"""Raw answers to scores: what a rule reads in them, accuracies with intervals, and two runs compared.

Nothing is a bare percentage: every cell has the number of scored questions and of all questions in the files.
"""

import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from hourllava.errors import DataError
from hourllava.evaluation.benchmarks.benchmark import Benchmark
from hourllava.evaluation.benchmarks.judge import JudgeClient
from hourllava.evaluation.benchmarks.questions import Question
from hourllava.evaluation.benchmarks.raw import DataSummary, RawAnswer
from hourllava.evaluation.benchmarks.rules import Judge, Rule
from hourllava.evaluation.bootstrap import bootstrap_accuracy, bootstrap_difference

How = Literal[
    "read", "unparsed", "drawn", "left out", "judged", "not judged", "no judge", "no gold", "no right option"
]  # fmt: skip
"""How a verdict came about; "unparsed" counts as wrong, "drawn" as the drawn option is."""

HOW_WORDS: dict[How, str] = {
    "unparsed": "answers could not be read and count as wrong",
    "drawn": "answers could not be read; an option was drawn for each",
    "left out": "answers could not be read and leave the denominator",
    "judged": "answers were scored by the judge",
    "not judged": "answers are not scored, because the judge failed",
    "no judge": "answers are not scored, because they need a judge (--judge)",
    "no gold": "answers are not scored, because the right ones are not public",
    "no right option": "questions have a published answer that is no option; every answer is wrong",
}


class Scored(NamedTuple):
    """An answer with its verdict; `right` is None if it is not scored, `answer` is what was read in it."""

    raw: RawAnswer
    answer: str
    right: bool | None
    how: How

    @property
    def question(self) -> Question:
        """The question that was answered."""
        return self.raw.question


def score_answers(
    answers: Sequence[RawAnswer], rule: Rule, judge: JudgeClient | None = None, *, seed: int = 0
) -> list[Scored]:
    """The verdicts of a rule, in the order of the questions' table.

    Args:
        answers: of one run.
        rule: of its benchmark.
        judge: for answers that only a judge can score.
        seed: of the options that are drawn for unreadable answers; they are drawn in the order of the table.

    Raises:
        ConfigError: the judge's server refuses.
    """
    chance = random.Random(seed)
    scored: list[Scored] = []
    waiting: list[int] = []
    for raw in sorted(answers, key=lambda raw: raw.question.place):
        verdict = rule.read(raw.question, raw.output)
        if verdict.right is None and rule.judge is not None:
            waiting.append(len(scored))
            scored.append(Scored(raw, "", None, "no judge"))
        elif verdict.answer == "":
            scored.append(_unparsed(raw, rule, chance))
        else:
            scored.append(_settled(raw, verdict.answer, bool(verdict.right), "read"))
    if rule.judge is not None and waiting:
        for place, one in zip(waiting, _judged([scored[k].raw for k in waiting], rule, rule.judge, judge)):
            scored[place] = one
    return scored


def _settled(raw: RawAnswer, answer: str, right: bool, how: How) -> Scored:
    question = raw.question
    if question.gold is None:
        return Scored(raw, answer, None, "no gold")
    if question.options and question.gold_index is None:
        return Scored(raw, answer, False, "no right option")
    return Scored(raw, answer, right, how)


def _unparsed(raw: RawAnswer, rule: Rule, chance: random.Random) -> Scored:
    if rule.unparsed == "random" and raw.question.letters:
        letter = chance.choice(raw.question.letters)
        return _settled(raw, letter, letter == raw.question.gold_letter, "drawn")
    if rule.unparsed == "left out":
        return Scored(raw, "", None, "left out")
    return _settled(raw, "", False, "unparsed")


def _judged(answers: Sequence[RawAnswer], rule: Rule, how: Judge, judge: JudgeClient | None) -> list[Scored]:
    """Verdicts of a judge; without one, an answer that no rule reads is wrong unless it needs the judge."""
    if judge is None:
        return [
            Scored(raw, "", None, "no judge") if how.is_needed(raw.question) else _settled(raw, "", False, "unparsed")
            for raw in answers
        ]

    def is_right(place: int, reply: str) -> bool | None:
        return how.is_right(answers[place].question, reply)

    requests = [how.request(raw.question, raw.output) for raw in answers]
    replies = judge.replies(requests, lambda place, reply: is_right(place, reply) is not None)
    found = []
    for place, (raw, reply) in enumerate(zip(answers, replies)):
        right = None if reply is None else is_right(place, reply)
        found.append(Scored(raw, reply or "", right, "not judged" if right is None else "judged"))
    return found


def scores_of(benchmark: Benchmark, scored: Sequence[Scored], summary: DataSummary) -> dict[str, Any]:
    """Scores as plain data.

    Returns:
        `axes`: axis -> group -> cell of `bootstrap_accuracy`, with `total` (questions of the group in the files) and
        `of_all` (right answers among them all); `mean`: the same over the groups of the benchmark's axis, or None;
        `headline`: the cell that is quoted; `counts`: how many questions were asked and scored, and how; `evidence`;
        `guessing`: the share that guessing among the options would have right, over the questions that have some.
    """
    usable = [one for one in scored if one.right is not None]
    axes = {"all": {"all": _cell(usable, summary.totals.get("all", {}).get("all", len(scored)))}}
    for axis in benchmark.axes:
        totals = summary.totals.get(axis, {})
        axes[axis] = {
            group: _cell([one for one in usable if group in one.question.groups.get(axis, ())], total)
            for group, total in _in_order(axis, totals)
        }
    mean = None
    if benchmark.macro_axis is not None and usable:
        mean = _mean_cell(usable, benchmark.macro_axis)
    headline = mean if benchmark.headline == "macro" and mean else axes["all"]["all"]
    return {
        "headline": headline, "axes": axes, "mean": mean, "counts": _counts(scored, usable, summary),
        "evidence": _evidence(scored), "guessing": _guessing(usable),
    }  # fmt: skip


def _in_order(axis: str, totals: Mapping[str, int]) -> list[tuple[str, int]]:
    """The groups of an axis as the files have them; tenths of a video from its start to its end."""
    groups = list(totals.items())
    return sorted(groups, key=lambda group: int(group[0].partition("-")[0])) if axis == "depth" else groups


def _cell(some: Sequence[Scored], total: int) -> dict[str, Any]:
    cell = bootstrap_accuracy([bool(one.right) for one in some], [one.question.video for one in some])
    return cell | {"total": total, "of_all": cell["right"] / total if total else None}


def _mean_cell(usable: Sequence[Scored], axis: str) -> dict[str, Any]:
    groups = [next(iter(one.question.groups.get(axis, ("",)))) for one in usable]
    cell = bootstrap_accuracy([bool(one.right) for one in usable], [one.question.video for one in usable], groups)
    return cell | {"groups": len(set(groups))}


def _counts(scored: Sequence[Scored], usable: Sequence[Scored], summary: DataSummary) -> dict[str, Any]:
    return {
        "in_files": summary.num_questions,
        "left_out": summary.left_out,
        "answered": len(scored),
        "not_answered": summary.num_questions - len(scored),
        "scored": len(usable),
        "videos_in_files": summary.num_videos,
        "videos": len({one.question.video for one in scored}),
        "with_subtitles": sum(one.raw.had_subtitles for one in scored),
        "cut_short": sum(one.raw.finish_reason == "length" for one in scored),
        "how": dict(Counter(one.how for one in scored)),
    }


def _guessing(usable: Sequence[Scored]) -> float | None:
    numbers = [len(one.question.options) for one in usable if one.question.options]
    return sum(1 / number for number in numbers) / len(numbers) if numbers else None


def _evidence(scored: Sequence[Scored]) -> dict[str, Any] | None:
    """How often an evidence span holds the middle of a moment that shows the answer, and how often chance would."""
    known = [one for one in scored if one.question.moments and one.raw.evidence]
    if not known:
        return None
    chance = [min(1.0, sum(end - start for start, end in one.raw.evidence) / one.raw.duration_seconds) for one in known]
    cell = bootstrap_accuracy([_shows_moment(one) for one in known], [one.question.video for one in known])
    return cell | {"by_chance": sum(chance) / len(chance)}


def _shows_moment(one: Scored) -> bool:
    middles = [(start + end) / 2 for start, end in one.question.moments]
    return any(first <= middle < last for middle in middles for first, last in one.raw.evidence)


def compare_runs(benchmark: Benchmark, ours: Sequence[Scored], theirs: Sequence[Scored]) -> dict[str, Any]:
    """Compare two runs question by question.

    Returns:
        `axes`: axis -> group -> cell of `bootstrap_difference`; `mean`: over the groups of the benchmark's axis, or
        None; `alone`: how many questions only one run has scored, which are left out.

    Raises:
        DataError: no question is scored in both, or the runs have different questions of one id.
    """
    others = {one.question.id: one for one in theirs if one.right is not None}
    pairs = [(one, others[one.question.id]) for one in ours if one.right is not None and one.question.id in others]
    if not pairs:
        raise DataError("the two runs have no scored question in common; compare runs of one benchmark and split")
    changed = [one.question.id for one, other in pairs if _content(one.question) != _content(other.question)]
    if changed:
        raise DataError(
            f"{len(changed)} questions have the same id but other words in the two runs, such as {changed[0]}; compare "
            "runs over the same files"
        )
    num_ours = sum(one.right is not None for one in ours)

    def difference(some: Sequence[tuple[Scored, Scored]], group_of: Callable[[Question], str] | None = None) -> Any:
        groups = None if group_of is None else [group_of(one.question) for one, _ in some]
        videos = [one.question.video for one, _ in some]
        return bootstrap_difference(
            [bool(one.right) for one, _ in some], [bool(other.right) for _, other in some], videos, groups
        )

    axes = {"all": {"all": difference(pairs)}}
    for axis in benchmark.axes:
        groups = dict.fromkeys(group for one, _ in pairs for group in one.question.groups.get(axis, ()))
        axes[axis] = {
            group: difference([pair for pair in pairs if group in pair[0].question.groups.get(axis, ())])
            for group in groups
        }
    macro = benchmark.macro_axis
    mean = None if macro is None else difference(pairs, lambda question: question.groups.get(macro, ("",))[0])
    return {"axes": axes, "mean": mean, "alone": num_ours + len(others) - 2 * len(pairs)}


def _content(question: Question) -> tuple[object, ...]:
    return question.text, question.lines, question.gold
