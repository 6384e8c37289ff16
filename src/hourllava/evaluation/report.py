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

_NOTE = """Right answers in percent, with their 95 % Wilson intervals. *Kept frames only*: MemAug finds nothing in the
memory but the tokens that the decoder has anyway. *Blind*: the question alone. Four options: chance is 25. Open-ended
answers count if they match exactly, but for case, spaces and a full stop at the end."""


def table_of(scores: Mapping[str, Any]) -> str:
    """The scores of `hourllava.evaluation.scores.score`, one table per axis."""
    parts = [_NOTE]
    for axis, title in TITLES.items():
        if scores[axis]:
            parts += [f"## {title}", _axis_table(scores[axis])]
    if scores["evidence"]:
        parts += ["## Evidence: the card lies in one of the three spans", _evidence_table(scores["evidence"])]
    return "\n\n".join(parts) + "\n"


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
    """ "71.4 (66.0-76.3)" """
    low, high = 100 * accuracy["low"], 100 * accuracy["high"]
    return f"{100 * accuracy['accuracy']:.1f} ({low:.1f}-{high:.1f})"


def markdown_table(heads: list[str], rows: list[list[str]]) -> str:
    """A table in Markdown."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)
