"""The pictures of `hourllava data stats`: four panels, the taxonomy, the comparison with published data sets."""

from collections.abc import Sequence
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch
from matplotlib.ticker import MaxNLocator

from hourllava.data.records.statistics import BIN_MINUTES, PUBLISHED, Statistics, short_number
from hourllava.data.records.taxonomy import TASKS, TOPICS
from hourllava.plotting import GRID, INK, MUTED, OTHER, OWN, STYLE, TOPIC_COLOURS, new_figure, styled_axes


def draw_panels(statistics: Statistics) -> Figure:
    """Sources, question types, lengths in bins of five minutes, and event counts; VideoMarathon's in grey."""
    with rc_context(STYLE):
        figure = new_figure(13, 9)
        ((source, topic), (length, events)) = figure.subplots(2, 2)
        _source_panel(source, statistics)
        _topic_panel(topic, statistics)
        _length_panel(length, statistics)
        _event_panel(events, statistics)
        hours = sum(statistics.durations_minutes) / 60
        total = statistics.num_open + statistics.num_choice
        figure.suptitle(
            f"{statistics.name}:  {short_number(statistics.num_videos)} videos"
            + (f",  {short_number(hours)} hours" if hours else "")
            + f",  {short_number(total)} questions",
            x=0.035, y=0.975, ha="left", fontsize=17, fontweight="bold", color=INK,
        )  # fmt: skip
        figure.text(
            0.965, 0.967, "grey: VideoMarathon as published", ha="right", color=MUTED, fontsize=10.5, style="italic"
        )
        figure.subplots_adjust(left=0.105, right=0.965, top=0.88, bottom=0.075, hspace=0.42, wspace=0.26)
    return figure


def _source_panel(axes: Axes, statistics: Statistics) -> None:
    styled_axes(axes, "Where the videos come from", grid="x")
    own = [(name, 100 * n / statistics.num_videos, OWN) for name, n in statistics.videos_per_source.items()][:8]
    rows = own + [(name, share, OTHER) for name, share in PUBLISHED["source_percent"].items()]
    for y, (_, share, colour) in enumerate(rows):
        axes.barh(y, share, color=colour, height=0.66)
        axes.text(share + 1.2, y, f"{share:.1f} %".replace("100.0", "100"), va="center", fontsize=10, color=INK)
    axes.set_yticks(range(len(rows)), [name for name, _, _ in rows], color=INK)
    axes.invert_yaxis()
    axes.set_xlim(0, 116)
    axes.set_xticks(range(0, 101, 25))
    axes.set_xlabel("share of videos (%)")


def _topic_panel(axes: Axes, statistics: Statistics) -> None:
    styled_axes(axes, "What the questions are about", grid="x")
    total = sum(statistics.questions_per_topic.values())
    for y, name in enumerate(TOPICS):
        own = 100 * statistics.questions_per_topic.get(name, 0) / total
        published = PUBLISHED["topic_percent"][name]
        axes.barh(y - 0.19, own, color=TOPIC_COLOURS[name], height=0.36)
        axes.barh(y + 0.19, published, color=OTHER, height=0.36)
        axes.text(own + 0.4, y - 0.19, f"{own:.1f} %", va="center", fontsize=10, color=INK)
        axes.text(published + 0.4, y + 0.19, f"{published:.1f} %", va="center", fontsize=9, color=MUTED)
    axes.set_yticks(range(len(TOPICS)), TOPICS, color=INK)
    axes.invert_yaxis()
    axes.margins(x=0.14)
    axes.set_xlabel("share of questions (%)")


def _length_panel(axes: Axes, statistics: Statistics) -> None:
    styled_axes(axes, "How long the videos are")
    published = PUBLISHED["videos_per_5_minutes"]
    if not statistics.durations_minutes:
        _say_unknown(axes, "the files do not give lengths")
        return
    counts = statistics.videos_per_bin()
    step = max(1, -(-len(counts) // 24))  # very long videos: wider bars rather than hundreds of thin ones
    width = BIN_MINUTES * step
    grouped = [sum(counts[k : k + step]) for k in range(0, len(counts), step)]
    starts = [width * k for k in range(len(grouped))]
    axes.bar(
        starts,
        [100 * n / sum(counts) for n in grouped],
        width=width * 0.88,
        align="edge",
        color=OWN,
        label=statistics.name,
    )
    if step == 1:
        edges = [BIN_MINUTES * k for k in range(len(published) + 1)]
        axes.stairs([100 * n / sum(published) for n in published], edges, color=MUTED, linewidth=1.6)
    axes.set_xlim(0, starts[-1] + width)
    axes.margins(y=0.1)
    axes.set_xticks([s for k, s in enumerate([*starts, starts[-1] + width]) if k % max(1, len(starts) // 12) == 0])
    axes.set_xlabel(f"minutes, in bins of {width}")
    axes.set_ylabel("share of videos (%)")


def _event_panel(axes: Axes, statistics: Statistics) -> None:
    styled_axes(axes, "How many events a video has")
    counts = statistics.videos_per_event_count
    if not counts:
        _say_unknown(axes, "the files do not give events")
        return
    width = max(1, -(-max(counts) // 20))
    bins = dict.fromkeys(range(0, max(counts) + 1, width), 0)
    for count, videos in counts.items():
        bins[count // width * width] += videos
    axes.bar(list(bins), list(bins.values()), width=width * 0.88, align="edge", color=TOPIC_COLOURS["event"])
    axes.set_xlabel("events per video" + (f", in bins of {width}" if width > 1 else ""))
    axes.set_ylabel("videos")
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))


def _say_unknown(axes: Axes, text: str) -> None:
    axes.text(0.5, 0.5, text, ha="center", va="center", color=MUTED, transform=axes.transAxes)
    axes.set_xticks([])
    axes.set_yticks([])


def draw_taxonomy(statistics: Statistics) -> Figure:
    """The six topics as cards; each task with its short or long tag and its number of questions."""
    with rc_context(STYLE):
        figure = new_figure(13, 8.2)
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set_xlim(0, 13)
        axes.set_ylim(0, 8.2)
        axes.axis("off")
        axes.text(0.45, 7.62, "22 tasks in 6 topics", fontsize=18, fontweight="bold", va="center")
        for x, tag, text in ((6.55, "short", "a moment is enough"), (9.35, "long", "minutes must be kept in mind")):
            _tag(axes, x, 7.62, tag, MUTED)
            axes.text(x + 0.82, 7.62, text, va="center", color=MUTED)
        order = sorted(TOPICS, key=lambda name: -sum(task.topic == name for task in TASKS.values()))
        for k, topic in enumerate(order):
            column, row = k % 3, k // 3
            tasks = [task for task in TASKS.values() if task.topic == topic]
            _topic_card(axes, 0.4 + column * 4.12, (3.0, 0.32)[row], (4.15, 2.5)[row], topic, tasks, statistics)
    return figure


def _topic_card(
    axes: Axes, x: float, y: float, height: float, topic: str, tasks: Sequence[Any], statistics: Statistics
) -> None:
    colour = TOPIC_COLOURS[topic]
    box = {"boxstyle": "round,pad=0,rounding_size=0.12", "linewidth": 0}
    axes.add_patch(FancyBboxPatch((x, y), 3.92, height, facecolor=colour, alpha=0.09, **box))  # type: ignore[arg-type]
    axes.add_patch(FancyBboxPatch((x, y + height - 0.58), 3.92, 0.58, facecolor=colour, **box))  # type: ignore[arg-type]
    title_y = y + height - 0.29
    axes.text(x + 0.22, title_y, topic.capitalize(), color="white", fontsize=14, fontweight="bold", va="center")
    count = statistics.questions_per_topic.get(topic, 0)
    axes.text(x + 3.7, title_y, f"{short_number(count)} questions", color="white", va="center", ha="right")
    for k, task in enumerate(tasks):
        line = y + height - 1.0 - k * 0.54
        _tag(axes, x + 0.2, line, task.form, colour)
        axes.text(x + 1.0, line, task.name, va="center", fontsize=11.5)
        number = short_number(statistics.questions_per_task.get(task.name, 0))
        axes.text(x + 3.7, line, number, va="center", ha="right", color=MUTED, fontsize=10.5)


def _tag(axes: Axes, x: float, y: float, form: str, colour: str) -> None:
    filled = form == "long"
    axes.add_patch(
        FancyBboxPatch(
            (x, y - 0.15), 0.64, 0.3, boxstyle="round,pad=0,rounding_size=0.14",
            facecolor=colour if filled else "white", edgecolor=colour, linewidth=1.1,
        )
    )  # fmt: skip
    axes.text(
        x + 0.32,
        y - 0.01,
        form,
        ha="center",
        va="center",
        fontsize=9,
        color="white" if filled else colour,
        fontweight="bold",
    )


def draw_comparison(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> Figure:
    """The comparison table as a picture; the last row, this data set, stands out."""
    widths = (2.5, 1.75, 1.75, 1.25, 1.35, 1.55, 1.35, 1.65)
    with rc_context(STYLE):
        figure = new_figure(13.6, 0.62 * (len(rows) + 1) + 0.5)
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set_xlim(0, 13.6)
        axes.set_ylim(0, 0.62 * (len(rows) + 1) + 0.5)
        axes.axis("off")
        for r, cells in enumerate((heads, *rows)):
            y = 0.62 * (len(rows) - r) + 0.56
            last = r == len(rows)
            if last:
                box = FancyBboxPatch((0.18, y - 0.29), 13.24, 0.58, boxstyle="round,pad=0,rounding_size=0.1",
                                     facecolor=OWN, alpha=0.13, linewidth=0)  # fmt: skip
                axes.add_patch(box)
            elif r < len(rows) - 1:
                axes.plot(
                    [0.25, 13.35], [y - 0.31] * 2, color=INK if r == 0 else GRID, linewidth=1.2 if r == 0 else 0.9
                )
            x = 0.35
            for c, (cell, width) in enumerate(zip(cells, widths)):
                colour = MUTED if r == 0 or cell in ("0", "not given") else INK
                left = c < 3  # names to the left, numbers to the right
                weight = "bold" if last or r == 0 else "normal"
                place, align = (x, "left") if left else (x + width - 0.2, "right")
                axes.text(place, y, cell, va="center", ha=align, color=colour, fontweight=weight, fontsize=11.5)
                x += width
    return figure
