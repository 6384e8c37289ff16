"""Scores of a benchmark as Markdown: how many questions, how they were asked, what came out, what others published."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from hourllava.evaluation.benchmarks.benchmark import Benchmark, Published
from hourllava.evaluation.benchmarks.protocols import Protocol
from hourllava.evaluation.benchmarks.raw import SERVED, RunSettings
from hourllava.evaluation.benchmarks.scoring import HOW_WORDS
from hourllava.evaluation.report import markdown_table

_MAX_PROMPT_CHARACTERS = 1500
_NOTE = """Percentages of right answers. *Scored* is the number of scored questions, with that of all questions in the
files behind it. *% of scored* has a 95 % interval, for which whole videos were drawn again. It is Wilson's (w) below 10
videos, or if all answers are alike. *% of all* counts every question without a score as wrong."""
_PUBLISHED_NOTE = """Published figures. Frames, prompt, subtitles or the version of the harness alone can make a
difference of a few points, so only figures of one protocol can be compared."""
_DIFFERENCE_NOTE = """Percentage points, this run minus the other, over the same questions, with 95 % intervals by
drawing videos. p: how often a difference as large appears if both are equally good (the signs of the videos'
differences are drawn)."""
_MAX_REASONS = 5
_FRAMES = {
    "video": "1 a second, the whole video; the prompt begins with the video's length",
    "frames_only": "1 a second; MemAug finds the kept tokens only (--condition frames_only)",
    "blind": "none: the questions alone (--condition blind)",
}


def report_of(
    benchmark: Benchmark,
    protocol: Protocol,
    settings: RunSettings,
    scores: Mapping[str, Any],
    prompt: str,
) -> str:
    """The report as Markdown.

    Args:
        benchmark: the benchmark.
        protocol: by which it was asked.
        settings: of the run.
        scores: from `scoring.scores_of`, with `rule`, `judge`, `notes` and, if there is one, `against`.
        prompt: of the first question.
    """
    parts = [f"# {benchmark.title}: {settings.model}", _how_asked(benchmark, protocol, settings, scores)]
    parts += ["## How many questions", "\n".join(f"- {line}" for line in count_lines(scores))]
    parts += ["## Scores", _NOTE, headline(benchmark, scores), f"What to quote: {benchmark.advice}"]
    parts += [_axes(benchmark, scores)]
    if scores["evidence"]:
        parts += ["## Evidence", _evidence(scores["evidence"])]
    if scores.get("against"):
        parts += ["## This run minus the other run", _DIFFERENCE_NOTE, *_differences(benchmark, scores["against"])]
    if benchmark.figures:
        parts += ["## Published", _PUBLISHED_NOTE, _published(benchmark.figures)]
    parts += ["## The first prompt", _block(prompt)]
    return "\n\n".join(part for part in parts if part) + "\n"


def headline(benchmark: Benchmark, scores: Mapping[str, Any]) -> str:
    """The figure that is quoted, in a sentence."""
    cell = scores["headline"]
    if cell["accuracy"] is None:
        return "No answer is scored."
    if benchmark.headline == "macro":
        kind = f"mean of {cell['groups']} {benchmark.macro_axis}s without weights (macro)"
    else:
        kind = "over all scored questions (micro)"
    guessing = scores["guessing"]
    guess = f" Guessing an option would have {100 * guessing:.1f} % right." if guessing is not None else ""
    return f"**{percent(cell)}** {kind}, {cell['n']:,} of {scores['counts']['in_files']:,} questions scored.{guess}"


def percent(cell: Mapping[str, Any]) -> str:
    """An accuracy in percent: "60.6 (58.9-62.3)"; "w" marks Wilson's interval."""
    if cell["accuracy"] is None:
        return "-"
    mark = " w" if cell["interval"] == "wilson" else ""
    return f"{100 * cell['accuracy']:.1f} ({100 * cell['low']:.1f}-{100 * cell['high']:.1f}{mark})"


def count_lines(scores: Mapping[str, Any]) -> Iterator[str]:
    """How many questions there are, were asked and scored, and what became of the others."""
    counts = scores["counts"]
    yield f"{counts['in_files']:,} questions about {counts['videos_in_files']:,} videos in the files"
    for reason, count in counts["left_out"].items():
        yield f"{count:,} more are left out: {reason}"
    yield f"{counts['answered']:,} answered, about {counts['videos']:,} videos; {counts['not_answered']:,} not answered"
    failures = sorted(scores["failures"].items(), key=lambda item: (-item[1], item[0]))
    for reason, count in failures[:_MAX_REASONS]:
        yield f"{count:,} of these could not be asked: {reason}"
    if more := sum(count for _, count in failures[_MAX_REASONS:]):
        yield f"{more:,} more of these could not be asked, for {len(failures) - _MAX_REASONS:,} other reasons"
    yield f"{counts['scored']:,} scored"
    for how, words in HOW_WORDS.items():
        if counts["how"].get(how):
            yield f"{counts['how'][how]:,} {words}"
    if counts["cut_short"]:
        yield f"{counts['cut_short']:,} answers reached the limit of tokens"
    for note in scores.get("notes", ()):
        yield f"in the files: {note}"


def _how_asked(benchmark: Benchmark, protocol: Protocol, settings: RunSettings, scores: Mapping[str, Any]) -> str:
    counts = scores["counts"]
    subtitles = (
        f"yes; {counts['with_subtitles']:,} of {counts['answered']:,} prompts have some" if settings.subtitles else "no"
    )
    decoding = (
        "the most probable letter" if protocol.is_likelihood else f"greedy, at most {settings.max_new_tokens} tokens"
    )
    is_served = settings.weights == SERVED
    rows = [
        ["split", f"{settings.split}, revision {settings.revision}"],
        ["protocol", protocol.name],
        ["rule", scores["rule"]],
        ["subtitles", subtitles],
        ["frames", "as the server samples them" if is_served else _FRAMES[settings.condition]],
        ["decoding", decoding],
        ["judge", scores["judge"] or "none"],
        ["model", f"{settings.model}, {'behind a server' if is_served else f'weights {settings.weights[:12]}'}"],
        ["hourllava", ", ".join(scores["versions"])],
    ]
    notes = "\n".join(note for note in (protocol.note, benchmark.rules[scores["rule"]].note) if note)
    return "\n\n".join(part for part in (markdown_table(["", ""], rows), notes) if part)


def _axes(benchmark: Benchmark, scores: Mapping[str, Any]) -> str:
    heads = ["", "scored", "videos", "% of scored", "% of all"]
    rows = [_row("all (micro)", scores["axes"]["all"]["all"])]
    if scores["mean"]:
        cell = scores["mean"]
        rows.append(
            [f"mean over {benchmark.macro_axis}s (macro)", f"{cell['n']:,}", f"{cell['videos']:,}", percent(cell), ""]
        )
    tables = [markdown_table(heads, rows)]
    for axis, title in benchmark.axes.items():
        if scores["axes"][axis]:
            rows = [_row(group, cell) for group, cell in scores["axes"][axis].items()]
            tables.append(f"### {title}\n\n{markdown_table(heads, rows)}")
    return "\n\n".join(tables)


def _row(name: str, cell: Mapping[str, Any]) -> list[str]:
    of_all = "-" if cell["of_all"] is None else f"{100 * cell['of_all']:.1f}"
    return [_cell_text(name), f"{cell['n']:,} of {cell['total']:,}", f"{cell['videos']:,}", percent(cell), of_all]


def _evidence(cell: Mapping[str, Any]) -> str:
    return (
        f"For {cell['n']:,} answers the files say which moments show them. In {percent(cell)} % of these, one of the "
        f"model's evidence spans holds the middle of such a moment; spans of the same length anywhere would in "
        f"{100 * cell['by_chance']:.1f} %."
    )


def _differences(benchmark: Benchmark, against: Mapping[str, Any]) -> list[str]:
    rows = [_difference_row("all (micro)", against["axes"]["all"]["all"])]
    if against["mean"]:
        rows.append(_difference_row(f"mean over {benchmark.macro_axis}s (macro)", against["mean"]))
    for axis, title in benchmark.axes.items():
        for group, cell in against["axes"][axis].items():
            rows.append(_difference_row(f"{title.removeprefix('By ').partition(' (')[0]}: {group}", cell))
    heads = ["", "both scored", "only this right", "only the other right", "points", "p"]
    alone = (
        f"{against['alone']:,} questions are scored in only one of the runs and are left out."
        if against["alone"]
        else ""
    )
    return [part for part in (alone, markdown_table(heads, rows)) if part]


def _difference_row(name: str, cell: Mapping[str, Any]) -> list[str]:
    points = "{:+.1f} ({:+.1f} to {:+.1f})".format(*(100 * cell[one] for one in ("difference", "low", "high")))
    p = f"{cell['p']:.4f}" if cell["p"] >= 0.0005 else "< 0.0005"
    return [_cell_text(name), f"{cell['n']:,}", str(cell["won"]), str(cell["lost"]), points, p]


def _published(figures: Sequence[Published]) -> str:
    rows = [[one.model, one.what, one.percent, one.subtitles, one.protocol, one.source] for one in figures]
    return markdown_table(["model", "questions", "%", "subtitles", "protocol", "source"], rows)


def _cell_text(text: str) -> str:
    """A text that stays in its cell."""
    return " ".join(text.replace("|", "\\|").split())


def _block(text: str) -> str:
    shown = text if len(text) <= _MAX_PROMPT_CHARACTERS else f"{text[:_MAX_PROMPT_CHARACTERS]} ..."
    fence = "~~~" if "```" in shown else "```"
    return f"{fence}\n{shown}\n{fence}"
