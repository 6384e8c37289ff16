"""Figures of an evaluation: a bar per task, accuracy by length and by depth, and the needle map."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hourllava.data.records.taxonomy import TASKS
from hourllava.evaluation.report import CONDITION_NAMES, FORMAT_NAMES
from hourllava.evaluation.scores import DEPTH_BINS, FORMATS, AnsweredQuestion
from hourllava.plotting import (
    INK,
    MUTED,
    OTHER,
    OWN,
    STYLE,
    TOPIC_COLOURS,
    new_figure,
    save_figure,
    styled_axes,
)
from hourllava.world.making.needles import NeedleResult, draw_needle_map
from hourllava.world.questions.draft import NUM_OPTIONS

_CONDITION_COLOURS = {"video": OWN, "frames_only": "#d1803a", "blind": OTHER}


def write_figures(scores: Mapping[str, Any], answered: Sequence[AnsweredQuestion], out: Path) -> list[Path]:
    """Draw every figure for which there are answers; returns their paths."""
    paths = []
    for format_ in FORMATS:
        if format_ in scores["all"].get("all", {}):
            paths.append(save_figure(draw_tasks(scores["task"], format_), out / f"tasks-{format_}.png"))
    for axis, label in (("length", "length of the video"), ("depth", "place of the card in the video")):
        if scores[axis]:
            paths.append(save_figure(draw_axis(scores[axis], label), out / f"{axis}.png"))
    if all(one.template == "letter_colour" for one in answered):
        needles = [
            NeedleResult(round(one.duration_seconds), _middle_of_bin(one.depth), one.right["video"]) for one in answered
        ]
        paths.append(save_figure(draw_needle_map(needles), out / "needles.png"))
    return paths


def _middle_of_bin(depth: float) -> float:
    return (min(int(depth * DEPTH_BINS), DEPTH_BINS - 1) + 0.5) / DEPTH_BINS


def draw_tasks(tasks: Mapping[str, Any], format_: str) -> Figure:
    """A bar with its interval per task, in the topic's colour; the baselines are marks."""
    names = [name for name in TASKS if format_ in tasks.get(name, {})]
    with rc_context(STYLE):
        bars_inches = 0.34 * len(names)
        height_inches = bars_inches + 1.7
        figure = new_figure(9.5, height_inches)
        axes = figure.add_axes((0.27, 0.75 / height_inches, 0.68, bars_inches / height_inches))
        styled_axes(axes, f"Right answers by task, {FORMAT_NAMES[format_]}", grid="x")
        for y, name in enumerate(names):
            cells = tasks[name][format_]
            _bar(axes, y, cells["video"], TOPIC_COLOURS[TASKS[name].topic])
            for condition, mark in (("frames_only", "o"), ("blind", "|")):
                if condition in cells:
                    axes.plot(
                        100 * cells[condition]["accuracy"], y, mark, color=INK, markersize=7, markerfacecolor="white",
                        label=CONDITION_NAMES[condition] if y == 0 else None,
                    )  # fmt: skip
        if format_ == "choice":
            axes.axvline(100 / NUM_OPTIONS, color=MUTED, linewidth=1, linestyle=":")
        axes.set_yticks(range(len(names)), names, color=INK)
        axes.set_ylim(len(names) - 0.4, -0.6)
        axes.set_xlim(-1.5, 101.5)
        axes.set_xlabel(
            "percent, with 95 % intervals" + ("; dotted line: chance" if format_ == "choice" else ""), loc="left"
        )
        if axes.get_legend_handles_labels()[0]:
            axes.legend(frameon=False, loc="upper right", bbox_to_anchor=(1, -0.8 / bars_inches * 0.28), ncols=2)
    return figure


def _bar(axes: Axes, y: float, cell: Mapping[str, Any], colour: str) -> None:
    value = 100 * cell["accuracy"]
    axes.barh(y, value, color=colour, height=0.62, alpha=0.85)
    below, above = max(0.0, value - 100 * cell["low"]), max(0.0, 100 * cell["high"] - value)
    axes.errorbar(value, y, xerr=[[below], [above]], color=INK, linewidth=1, capsize=2)


def draw_axis(groups: Mapping[str, Any], label: str) -> Figure:
    """Accuracy of each condition over the bins of one axis; one panel per format."""
    formats = [format_ for format_ in FORMATS if any(format_ in group for group in groups.values())]
    with rc_context(STYLE):
        figure = new_figure(6.2 * len(formats), 4.4)
        for panel, format_ in zip(figure.subplots(1, len(formats), squeeze=False)[0], formats):
            styled_axes(panel, FORMAT_NAMES[format_].capitalize())
            for shift, (condition, colour) in enumerate(_CONDITION_COLOURS.items()):
                cells = [(x, group[format_][condition]) for x, group in enumerate(groups.values())
                         if condition in group.get(format_, {})]  # fmt: skip
                if not cells:
                    continue
                values = [100 * cell["accuracy"] for _, cell in cells]
                below = [max(0.0, value - 100 * cell["low"]) for value, (_, cell) in zip(values, cells)]
                above = [max(0.0, 100 * cell["high"] - value) for value, (_, cell) in zip(values, cells)]
                places = [x + 0.09 * (shift - 1) for x, _ in cells]
                panel.errorbar(places, values, yerr=[below, above], color=colour, marker="o", capsize=2,
                               label=CONDITION_NAMES[condition])  # fmt: skip
            panel.set_xticks(range(len(groups)), [name.removesuffix(" %") for name in groups], rotation=30)
            panel.set_ylim(0, 102)
            panel.set_xlabel(label + (" (percent)" if label.startswith("place") else ""))
            panel.set_ylabel("right answers (percent), 95 % intervals")
        panel.legend(frameon=False)
        figure.tight_layout()
    return figure
