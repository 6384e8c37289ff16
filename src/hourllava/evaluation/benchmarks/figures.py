"""Scores of a benchmark as a picture: a bar with its interval for all questions and for each group."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hourllava.evaluation.benchmarks.benchmark import Benchmark
from hourllava.evaluation.benchmarks.scoring import Scored
from hourllava.evaluation.scores import DEPTH_BINS
from hourllava.plotting import INK, MUTED, OTHER, OWN, STYLE, TOPIC_COLOURS, new_figure, styled_axes
from hourllava.world.making.needles import NeedleResult, draw_needle_map

_MAX_GROUPS = 40  # an axis with more is left to the table
_ROW_INCHES = 0.3
_COLOURS = (*TOPIC_COLOURS.values(), OTHER)


def draw_scores(benchmark: Benchmark, title: str, scores: Mapping[str, Any]) -> Figure:
    """The figure: all questions first, then the groups of each axis under its heading.

    Args:
        benchmark: the benchmark.
        title: model and protocol.
        scores: from `scoring.scores_of`.
    """
    rows: list[tuple[str, Mapping[str, Any] | None, str]] = [("all questions", scores["axes"]["all"]["all"], OWN)]
    if scores["mean"]:
        rows.append((f"mean over {benchmark.macro_axis}s", scores["mean"], OWN))
    for k, (axis, heading) in enumerate(benchmark.axes.items()):
        groups = scores["axes"][axis]
        if 0 < len(groups) <= _MAX_GROUPS:
            rows.append((heading.partition(" (")[0], None, INK))
            rows += [(group, cell, _COLOURS[k % len(_COLOURS)]) for group, cell in groups.items()]
    with rc_context(STYLE):
        bars_inches = _ROW_INCHES * len(rows)
        height_inches = bars_inches + 1.5
        figure = new_figure(9.5, height_inches)
        axes = figure.add_axes((0.33, 0.7 / height_inches, 0.62, bars_inches / height_inches))
        styled_axes(axes, title, grid="x")
        for y, (_, cell, colour) in enumerate(rows):
            if cell is not None and cell["accuracy"] is not None:
                _bar(axes, y, cell, colour)
        if scores["guessing"] is not None:
            axes.axvline(100 * scores["guessing"], color=MUTED, linewidth=1, linestyle=":")
        labels = axes.set_yticks(range(len(rows)), [_label(name, cell is None) for name, cell, _ in rows], color=INK)
        for (_, cell, _), label in zip(rows, labels):
            label.label1.set_fontweight("normal" if cell else "bold")
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.set_xlim(0, 100)
        guess = "; dotted line: guessing" if scores["guessing"] is not None else ""
        axes.set_xlabel(f"percent of scored questions, 95 % intervals{guess}", loc="left")
    return figure


def draw_needles(title: str, needles: Sequence[Scored]) -> Figure:
    """The map of needles: lengths from left to right, tenths of the video from top to bottom."""
    results = []
    for one in needles:
        first_percent = int(one.question.groups["depth"][0].partition("-")[0])
        depth = first_percent / 100 + 1 / (2 * DEPTH_BINS)
        results.append(NeedleResult(round(one.question.duration_seconds or 0), depth, bool(one.right)))
    return draw_needle_map(results, title)


def _label(name: str, is_heading: bool) -> str:
    """A text that matplotlib does not take for a formula."""
    return (name.upper() if is_heading else name).replace("$", r"\$")


def _bar(axes: Axes, y: float, cell: Mapping[str, Any], colour: str) -> None:
    value = 100 * cell["accuracy"]
    axes.barh(y, value, color=colour, height=0.62, alpha=0.85)
    below, above = max(0.0, value - 100 * cell["low"]), max(0.0, 100 * cell["high"] - value)
    axes.errorbar(value, y, xerr=[[below], [above]], color=INK, linewidth=1, capsize=2)
