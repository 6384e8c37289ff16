"""Scores as Markdown tables."""

from collections.abc import Mapping
from typing import Any

from hourllava.evaluation.scores import CONDITIONS, FORMATS

TITLES = {
    "all": "All questions",
    "task": "By task",
    "topic": "By topic",
    "form": "By stretch of video that must be seen",
    "length": "By length of the video",
    "depth": "Needles by depth: where in the video the card is",
}
FORMAT_NAMES = {"choice": "multiple choice", "open": "open-ended"}
CONDITION_NAMES = {"video": "video", "frames_only": "kept frames only", "blind": "blind"}

_NOTE = """Right answers in percent, with 95 % intervals. The questions of one video belong together: n questions count
as fewer independent ones. A cell of *one video* says little about others. *Kept frames only*: MemAug finds nothing in
the memory but the tokens that the decoder has anyway. *Blind*: the question alone. Four options: chance is 25.
Open-ended answers count if they match exactly, but for case, spaces and a full stop at the end."""
_DIFFERENCE_NOTE = """Points in percent, with 95 % intervals of the difference itself: the same questions were asked, so
it is surer than two overlapping intervals suggest. An interval without 0 is a difference that chance hardly makes."""


def table_of(scores: Mapping[str, Any]) -> str:
    """The scores of `hourllava.evaluation.scores.score`, one table per axis."""
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
        parts += ["## Evidence: the card lies in one of the three spans", _evidence_table(scores["evidence"])]
    return "\n\n".join(parts) + "\n"


def _correlations(groups: Mapping[str, Any]) -> list[str]:
    """How much the questions of a video hang together, in words."""
    told = []
    for format_, cells in groups.get("all", {}).items():
        cell = cells["video"]
        if cell["correlation"] is not None:
            told.append(
                f"{FORMAT_NAMES[format_]}: {cell['n']} questions about {cell['videos']} videos, whose answers "
                f"correlate by {cell['correlation']:.2f} within a video, count as {cell['effective_n']:.0f}"
            )
    return [f"All: {'; '.join(told)}."] if told else []


def against_section(differences: Mapping[str, Any], num_alone: int) -> str:
    """The scores of `hourllava.evaluation.scores.compare`."""
    alone = f" {num_alone} questions were answered by one of the two only and do not count." if num_alone else ""
    return f"## Minus the other model\n\n{_DIFFERENCE_NOTE}{alone}\n\n{difference_table(differences)}"


def difference_table(differences: Mapping[str, Any]) -> str:
    """Cells of `difference_of` by axis, group and format: everything, then each task and each length."""
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
    """ "+5.1 (+1.0 to +9.2)", in percent"""
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
    return markdown_table(["", "n", "inside", "inside by chance"], rows)


def percent(accuracy: Mapping[str, Any]) -> str:
    """ "71.4 (66.0-76.3)", or "71.4 (22.1-96.0; one video)" """
    low, high = 100 * accuracy["low"], 100 * accuracy["high"]
    return f"{100 * accuracy['accuracy']:.1f} ({low:.1f}-{high:.1f}{_one_video(accuracy)})"


def markdown_table(heads: list[str], rows: list[list[str]]) -> str:
    """A table in Markdown."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)
