"""Scores as Markdown tables, for people to read."""

from collections.abc import Mapping
from typing import Any

from hourllava.evaluation.scores import CONDITIONS, FORMATS

TITLES = {
    "all": "All questions",
    "task": "By task",
    "topic": "By topic",
    "form": "By how much of the video a question needs",
    "length": "By length of the video",
    "depth": "Questions about a card, by depth: the card's place in the video",
}
FORMAT_NAMES = {"choice": "multiple choice", "open": "open-ended"}
CONDITION_NAMES = {"video": "video", "frames_only": "kept frames only", "blind": "blind"}

_NOTE = """Percentages of right answers, with 95 % intervals. Questions about one video are not independent, so the
intervals are wider than the number of questions n suggests. *One video*: all questions of this cell are about a single
video, so it says little about other videos. *Kept frames only*: MemAug reads only the kept tokens, which the decoder
sees anyway. *Blind*: the question without the video. Multiple choice has four options, so chance is 25. Open-ended
answers are right if they match the truth exactly; case, spaces and a full stop at the end do not count."""
_DIFFERENCE_NOTE = """Differences in percentage points, with 95 % intervals. Both sides answered the same questions, so
a difference is known better than the two separate intervals suggest. If its interval excludes 0, chance is an unlikely
cause."""


def table_of(scores: Mapping[str, Any]) -> str:
    """The report about the scores of `hourllava.evaluation.scores.score`: one table per axis, then the differences."""
    parts = [_NOTE, *_correlations(scores["all"])]
    for axis, title in TITLES.items():
        if scores[axis]:
            parts += [f"## {title}", _axis_table(scores[axis])]
    for condition in CONDITIONS[1:]:
        found = {axis: {group: {format_: cells[condition] for format_, cells in formats.items() if condition in cells}
                        for group, formats in groups.items()}
                 for axis, groups in scores["differences"].items()}  # fmt: skip
        if any(found["all"].get("all", {}).values()):
            parts += [f"## Video minus {CONDITION_NAMES[condition]}", _DIFFERENCE_NOTE, difference_table(found)]
    if scores["evidence"]:
        parts += [
            "## Evidence: is the card inside one of the three evidence spans?",
            _evidence_table(scores["evidence"]),
        ]
    return "\n\n".join(parts) + "\n"


def _correlations(groups: Mapping[str, Any]) -> list[str]:
    """A sentence on how many independent questions the answers count as."""
    parts = []
    for format_, cells in groups.get("all", {}).items():
        cell = cells["video"]
        if cell["correlation"] is not None:
            parts.append(
                f"{FORMAT_NAMES[format_]}: {cell['n']} questions about {cell['videos']} videos count as "
                f"{cell['effective_n']:.0f} independent ones (correlation within a video: {cell['correlation']:.2f})"
            )
    return [f"Over all questions: {'; '.join(parts)}."] if parts else []


def against_section(differences: Mapping[str, Any], num_alone: int) -> str:
    """The differences of `hourllava.evaluation.scores.compare`, as a section of the report."""
    alone = f" {num_alone} questions were answered by only one of the two models and are left out." if num_alone else ""
    return f"## This model minus the other model\n\n{_DIFFERENCE_NOTE}{alone}\n\n{difference_table(differences)}"


def difference_table(differences: Mapping[str, Any]) -> str:
    """Cells of `difference_of` by axis, group and format: one row for all questions, one per task, one per length."""
    columns = [format_ for format_ in FORMATS if format_ in differences["all"].get("all", {})]
    heads = ["", *(head for format_ in columns for head in (f"{FORMAT_NAMES[format_]}, n", "points"))]
    rows = []
    for axis in ("all", "task", "length"):
        for name, formats in differences[axis].items():
            cells = [formats.get(format_) for format_ in columns]
            rows.append(
                [name, *(text for cell in cells for text in ((str(cell["n"]), points(cell)) if cell else ("", "")))]
            )
    return markdown_table(heads, rows)


def points(cell: Mapping[str, Any]) -> str:
    """A difference in percentage points: "+5.1 (+1.0 to +9.2)"."""
    numbers = (f"{100 * cell[name]:+.1f}" for name in ("difference", "low", "high"))
    return "{} ({} to {}{})".format(*numbers, _one_video(cell))


def _one_video(cell: Mapping[str, Any]) -> str:
    return "; one video" if cell["videos"] == 1 and cell["n"] > 1 else ""


def _axis_table(groups: Mapping[str, Any]) -> str:
    columns = [
        (format_, condition)
        for format_ in FORMATS
        for condition in CONDITIONS
        if any(condition in group.get(format_, {}) for group in groups.values())
    ]
    formats = [format_ for format_ in FORMATS if any(format_ == column[0] for column in columns)]
    heads, rows = [""], [[name] for name in groups]
    for format_ in formats:
        conditions = [condition for of, condition in columns if of == format_]
        heads += [f"{FORMAT_NAMES[format_]}, n", *(CONDITION_NAMES[condition] for condition in conditions)]
        for row, group in zip(rows, groups.values()):
            cells = group.get(format_, {})
            row.append(str(cells["video"]["n"]) if cells else "")
            row += [percent(cells[condition]) if condition in cells else "" for condition in conditions]
    return markdown_table(heads, rows)


def _evidence_table(groups: Mapping[str, Any]) -> str:
    rows = [
        [name, str(group["n"]), percent(group), f"{100 * group['by_chance']:.1f}"] for name, group in groups.items()
    ]
    return markdown_table(["", "n", "inside", "expected by chance"], rows)


def percent(accuracy: Mapping[str, Any]) -> str:
    """An accuracy in percent: "71.4 (66.0-76.3)", or "71.4 (22.1-96.0; one video)"."""
    low, high = 100 * accuracy["low"], 100 * accuracy["high"]
    return f"{100 * accuracy['accuracy']:.1f} ({low:.1f}-{high:.1f}{_one_video(accuracy)})"


def markdown_table(heads: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)
