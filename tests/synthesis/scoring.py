"""Scores synthesis on MarathonWorld, whose truth is known: events, facts of captions, answers, evidence."""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from hourllava.synthesis.times import Span
from hourllava.synthesis.world.retelling import read_actions, told_cards, told_places, told_titles
from hourllava.world.questions.reading import Unanswerable
from hourllava.world.questions.solver import Solver
from hourllava.world.reference import load_reference
from hourllava.world.script import Event, Script, Shown, screen_log

SUMMARY_TASK = "Overall Summarization"
Fact = tuple[str, ...]


def rows_of(path: Path) -> list[dict[str, Any]]:
    """The lines of a file."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]


def script_of(video: str, videos: Path) -> Script:
    """The script of a reference below a folder."""
    return load_reference(videos / video).script()


# ------------------------------------------------------------------------------------------------------------ events


def matched(found: Sequence[float], true: Sequence[float], within_seconds: float) -> int:
    """How many of two sorted lists of bounds match one to one."""
    count = k = 0
    for bound in found:
        while k < len(true) and true[k] < bound - within_seconds:
            k += 1
        if k < len(true) and true[k] <= bound + within_seconds:
            count, k = count + 1, k + 1
    return count


def f1(matches: int, num_found: int, num_true: int) -> float:
    """The harmonic mean of precision and recall."""
    return 2 * matches / (num_found + num_true) if num_found + num_true else 1.0


def event_scores(captions: Sequence[dict[str, Any]], videos: Path) -> dict[str, float]:
    """F1 of inner bounds within 1, 5 and 15 s, the same for as many events of equal length, and mean IoU."""
    sums: Counter[str] = Counter()
    ious = []
    for line in captions:
        script = script_of(line["video"], videos)
        true = [event.start_seconds for event in script.events[1:]]
        found = sorted(event["start_seconds"] for event in line["events"][1:])
        step = script.duration_seconds / len(script.events)
        even = [step * k for k in range(1, len(script.events))]
        for name, bounds in (("found", found), ("even", even)):
            sums[name] += len(bounds)
            for seconds in (1, 5, 15):
                sums[f"{name} {seconds}"] += matched(bounds, true, seconds)
        sums["true"] += len(true)
        ious += [_best_iou(event, line["events"]) for event in script.events]
    scores = {
        f"F1 within {seconds} s{' (even split)' if name == 'even' else ''}": f1(
            sums[f"{name} {seconds}"], sums[name], sums["true"]
        )
        for seconds in (1, 5, 15)
        for name in ("found", "even")
    }
    return scores | {"mean IoU": sum(ious) / len(ious)}


def _best_iou(event: Event, found: Sequence[dict[str, Any]]) -> float:
    return max((iou((event.start_seconds, event.end_seconds), (e["start_seconds"], e["end_seconds"])) for e in found),
               default=0.0)  # fmt: skip


def iou(a: Span, b: Span) -> float:
    """Of two spans."""
    both = max(0.0, min(a[1], b[1]) - max(a[0], b[0]))
    return both / (max(a[1], b[1]) - min(a[0], b[0]))


# ------------------------------------------------------------------------------------------------------------- facts


def told_facts(clip: dict[str, Any]) -> Iterator[tuple[str, Fact]]:
    """(aspect, fact) of a clip's caption."""
    titles = [title for _, title in told_titles(clip["temporality"])]
    for title in titles:
        yield "temporality", ("event", title)
        for name, place in (told_places(clip["spatiality"], title) or {}).items():
            yield "spatiality", (title, name, place)
    for card in told_cards(clip["temporality"]):
        yield "temporality", ("card", card.glyph, card.colour)
    text = clip["object"].removeprefix("Visible: ").rstrip(".").replace(" and ", ", ")
    for name in text.split(", "):
        yield "object", (name.removeprefix("a "),)
    for action in read_actions(clip["action"].replace(": from", "; from")):
        yield "action", (action.actor, action.verb, str(action.partner), str(action.direction))
    for event in titles:
        occasion, _, scene = event.removeprefix("the ").partition(" in the ")
        if f"the {scene}" in clip["scene"] and occasion in clip["scene"]:
            yield "scene", (occasion, scene)


def true_facts(script: Script, start: float, end: float, *, least_seconds: float) -> Iterator[tuple[str, Fact]]:
    """(aspect, fact) of a stretch; actions of which only a moment is seen are left out."""
    looks = {member.name: member for member in script.cast}
    for event in script.events:
        if event.start_seconds < end and event.end_seconds > start:
            yield "temporality", ("event", event.title)
            yield "scene", (event.occasion, event.scene)
            first = max(start, event.start_seconds)
            places = {shown.name: shown.place for shown in screen_log(script) if shown.kind == "object"
                      and shown.start_seconds <= first < shown.end_seconds}  # fmt: skip
            for name in event.places:
                yield "object", (f"{looks[name].size} {name}",)
                if name in places:
                    yield "spatiality", (event.title, name, str(places[name]))
            for action in event.actions:
                if min(end, action.end_seconds) - max(start, action.start_seconds) >= least_seconds:
                    yield "action", (action.actor, action.verb, str(action.partner), str(action.direction))
    for card in script.needles:
        if card.start_seconds < end and card.end_seconds > start:
            yield "temporality", ("card", card.glyph, card.colour)


def fact_scores(captions: Sequence[dict[str, Any]], videos: Path) -> dict[str, tuple[float, float, int]]:
    """Aspect -> (precision, recall, number of true facts)."""
    sums: dict[str, Counter[str]] = {}
    for line in captions:
        script = script_of(line["video"], videos)
        for clip in line["clips"]:
            span = clip["start_seconds"], clip["end_seconds"]
            told = set(told_facts(clip))
            shown = set(true_facts(script, *span, least_seconds=0.1))
            for aspect, fact in told:
                sums.setdefault(aspect, Counter()).update(told=1, right=(aspect, fact) in shown)
            for aspect, fact in set(true_facts(script, *span, least_seconds=2)):
                sums.setdefault(aspect, Counter()).update(true=1, found=(aspect, fact) in told)
    return {
        aspect: (found["right"] / max(1, found["told"]), found["found"] / max(1, found["true"]), found["true"])
        for aspect, found in sorted(sums.items())
    }


# ----------------------------------------------------------------------------------------------------------- answers


class Judge:
    """Knows the right answers to questions about the videos of a folder."""

    def __init__(self, videos: Path) -> None:
        self._videos = videos
        self._logs: dict[str, tuple[list[Shown], int]] = {}

    def is_right(self, video: str, question: str, answer: str, wrong: Sequence[str] = ()) -> bool:
        """Whether an answer is right and, with options, no other option is."""
        log, seconds = self._log(video)
        try:
            return Solver(log, seconds).solve(question, tuple(sorted([answer, *wrong])) if wrong else ()) == answer
        except Unanswerable:
            return False

    def is_sufficient(
        self, video: str, question: str, answer: str, wrong: Sequence[str], evidence: Sequence[Span]
    ) -> bool:
        """Whether what is on screen during the evidence is enough to find the answer."""
        log, seconds = self._log(video)
        seen = [s for s in log if any(s.start_seconds < end and s.end_seconds > start for start, end in evidence)]
        try:
            return Solver(seen, seconds).solve(question, tuple(sorted([answer, *wrong])) if wrong else ()) == answer
        except Unanswerable:
            return False

    def _log(self, video: str) -> tuple[list[Shown], int]:
        if video not in self._logs:
            script = script_of(video, self._videos)
            self._logs[video] = screen_log(script), script.duration_seconds
        return self._logs[video]


def filter_scores(out: Path, videos: Path) -> dict[str, float]:
    """Shares of wrong questions before and after the checks, and of right questions that the checks dropped.

    Summaries do not count: they have no single right answer.
    """
    judge = Judge(videos)
    names = {row["question_id"]: row["video"] for row in rows_of(out / "jsons" / "provenance.jsonl")}
    kept = [row for row in rows_of(out / "jsons" / "questions.jsonl") if row["task"] != SUMMARY_TASK]
    dropped = [row for row in rows_of(out / "jsons" / "dropped.jsonl") if row["task"] != SUMMARY_TASK]
    assert names.keys() >= {row["question_id"] for row in kept}
    right_kept = 0
    for row in kept:
        wrong = [option for option in row.get("options", ()) if option != row["answer"]]
        right_kept += judge.is_right(row["video"], row["question"], row["answer"], wrong)
    right_dropped = 0
    for row in dropped:
        right_dropped += judge.is_right(row["video"], row["question"], row["answer"], row["wrong"])
    written = len(kept) + len(dropped)
    num_right = right_kept + right_dropped
    return {
        "written": written,
        "kept": len(kept),
        "wrong before": 1 - num_right / written,
        "wrong after": 1 - right_kept / max(1, len(kept)),
        "right lost": right_dropped / max(1, num_right),
    }


def policy_scores(out: Path, videos: Path, agreements: int, objections: int) -> dict[str, float]:
    """What the verifier alone would have made of the questions if it had been asked until so many of either.

    Args:
        out: of a run that asked until three of each.
        videos: folder.
        agreements, objections: that decide.
    """
    judge = Judge(videos)
    verdicts = {row["id"]: row["value"] for row in rows_of(out / "stages" / "checks.jsonl")}
    kept, dropped = (rows_of(out / "jsons" / f"{name}.jsonl") for name in ("questions", "dropped"))
    counts: Counter[str] = Counter()
    for row in (*kept, *dropped):
        verdict = verdicts.get(row["question_id"])
        if verdict is None:
            continue
        wrong = row.get("wrong", [option for option in row.get("options", ()) if option != row["answer"]])
        is_right = judge.is_right(row["video"], row["question"], row["answer"], wrong)
        opinions = [own["verdict"] == "same" for own in verdict.get("open", ())]
        opinions += [option == row["answer"] for option in verdict.get("verified", ())]
        k = next(k for k in range(1, 6) if sum(opinions[:k]) == agreements or opinions[:k].count(False) == objections)
        is_kept = sum(opinions[:k]) == agreements
        counts.update(questions=1, answers=k, right=is_right, kept=is_kept, right_kept=is_right and is_kept)
    return {
        "questions": counts["questions"],
        "answers": counts["answers"] / counts["questions"],
        "wrong before": 1 - counts["right"] / counts["questions"],
        "wrong after": 1 - counts["right_kept"] / counts["kept"],
        "right lost": 1 - counts["right_kept"] / counts["right"],
    }


def evidence_scores(out: Path, videos: Path) -> dict[str, float]:
    """Of the questions that are kept and right: with evidence, with enough of it, and its length."""
    judge = Judge(videos)
    rows = [row for row in rows_of(out / "jsons" / "questions.jsonl") if row["task"] != SUMMARY_TASK]
    enough, lengths, shares = 0, [], []
    for row in rows:
        wrong = [option for option in row.get("options", ()) if option != row["answer"]]
        evidence = row.get("evidence", [])
        enough += judge.is_sufficient(row["video"], row["question"], row["answer"], wrong, evidence)
        lengths.append(sum(end - start for start, end in evidence))
        shares.append(lengths[-1] / row["duration_seconds"])
    return {
        "with evidence": sum(bool(row.get("evidence")) for row in rows) / len(rows),
        "enough to answer": enough / len(rows),
        "median seconds": sorted(lengths)[len(lengths) // 2],
        "median share of the video": sorted(shares)[len(shares) // 2],
    }
