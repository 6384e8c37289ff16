"""The needle benchmark: what colour had the letter on one card, in videos of 1 minute to 24 hours, at ten depths?

Each video has other cards with other letters, so a model must find the right card. Cases are made one at a time, and
only scripts are held in memory.

    for case in needle_cases():
        frames = render_frames(case.script, range(case.length_seconds), 64)
        is_right = answer(frames, case.question) == case.question.answer
        results.append(NeedleResult(case.length_seconds, case.depth, is_right))
    save_figure(draw_needle_map(results), Path("needles.png"))
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hourllava.errors import ConfigError
from hourllava.world.generate import DIFFICULTIES, MAX_SECONDS, max_needles
from hourllava.world.questions import Question, needle_question
from hourllava.world.questions.draft import Format
from hourllava.world.reference import Reference
from hourllava.world.script import Needle, Script
from hourllava.world.vocabulary import Split

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FRAME_PIXELS = 64  # cards are legible at this size
LENGTHS_SECONDS = (60, 300, 900, 1800, 3600, 7200, 14400, 28800, 57600, 86400)
NUM_DEPTHS = 10


@dataclass(frozen=True)
class NeedleCase:
    """A script, the card in question, and the question about its colour."""

    length_seconds: int
    depth: float  # place of the card, as a share of the video
    reference: Reference  # of the video
    script: Script
    needle: Needle
    question: Question


@dataclass(frozen=True)
class NeedleResult:
    """Whether a model answered one case correctly."""

    length_seconds: int
    depth: float
    is_right: bool


def needle_cases(
    lengths_seconds: Sequence[int] = LENGTHS_SECONDS,
    num_depths: int = NUM_DEPTHS,
    *,
    cards: int = 8,
    repeats: int = 1,
    seed: int = 0,
    split: Split = "test",
    answer_format: Format = "choice",
) -> Iterator[NeedleCase]:
    """Yield `repeats` cases per length and depth, each with its own video with `cards` cards.

    Raises:
        ConfigError: a length outside 1 minute to 24 hours, or settings below 1.
    """
    if min(num_depths, cards, repeats) < 1:
        raise ConfigError(
            f"{num_depths} depths, {cards} cards and {repeats} repeats were asked for; use at least 1 of each"
        )
    for length_seconds in lengths_seconds:
        if not 60 <= length_seconds <= MAX_SECONDS:
            raise ConfigError(f"a needle video of {length_seconds} seconds was asked for; use 60 to {MAX_SECONDS}")
        if cards > (limit := max_needles(length_seconds, DIFFICULTIES["normal"])):
            raise ConfigError(f"{cards} cards were asked for; {length_seconds} seconds take at most {limit}")
        for k in range(num_depths):
            depth = (k + 0.5) / num_depths
            for repeat in range(repeats):
                reference = Reference(
                    seed=(seed * 1000 + repeat) * 1000 + k,
                    duration_seconds=length_seconds,
                    split=split,
                    density=DIFFICULTIES["normal"],
                    needles=cards,
                    size_pixels=FRAME_PIXELS,
                    needle_starts_seconds=(int(depth * length_seconds),),
                )
                script = reference.script()
                needle = min(script.needles, key=lambda n: abs(n.start_seconds - depth * length_seconds))
                question = needle_question(script, needle, answer_format)
                yield NeedleCase(length_seconds, depth, reference, script, needle, question)


def needle_accuracy(results: Iterable[NeedleResult]) -> dict[tuple[int, float], float]:
    """Accuracy per (length_seconds, depth)."""
    cells: dict[tuple[int, float], list[bool]] = defaultdict(list)
    for result in results:
        cells[result.length_seconds, result.depth].append(result.is_right)
    return {key: sum(answers) / len(answers) for key, answers in cells.items()}


def draw_needle_map(results: Iterable[NeedleResult], title: str = "Which colour had the letter?") -> "Figure":
    """A heat map of accuracy: video lengths from left to right, depths from top to bottom.

    Raises:
        ConfigError: no results.
    """
    from matplotlib import rc_context
    from matplotlib.colors import LinearSegmentedColormap

    from hourllava.plotting import INK, MUTED, STYLE, new_figure

    accuracy = needle_accuracy(results)
    if not accuracy:
        raise ConfigError("there are no needle results to draw; run some cases first")
    lengths, depths = sorted({key[0] for key in accuracy}), sorted({key[1] for key in accuracy})
    grid = [[accuracy.get((length, depth), float("nan")) for length in lengths] for depth in depths]
    colours = LinearSegmentedColormap.from_list("needles", ("#b8475b", "#e9a56b", "#f4ecd0", "#7cc0a8", "#1f8a7d"))
    with rc_context(STYLE):
        figure = new_figure(2.6 + 0.95 * len(lengths), 2.2 + 0.48 * len(depths))
        axes = figure.add_axes((0.1, 0.13, 0.86, 0.7))
        axes.imshow(grid, cmap=colours, vmin=0, vmax=1, aspect="auto")
        for row, values in enumerate(grid):
            for column, value in enumerate(values):
                if value == value:  # cells without results stay empty
                    dark = value < 0.15 or value > 0.9
                    text = f"{100 * value:.0f}"
                    axes.text(column, row, text, ha="center", va="center", color="white" if dark else INK, fontsize=10)
        axes.set_xticks(range(len(lengths)), [_length_label(length) for length in lengths])
        axes.set_yticks(range(len(depths)), [f"{100 * depth:.0f} %" for depth in depths])
        axes.set_xticks([k - 0.5 for k in range(1, len(lengths))], minor=True)
        axes.set_yticks([k - 0.5 for k in range(1, len(depths))], minor=True)
        axes.grid(which="minor", color="white", linewidth=2)
        axes.tick_params(which="both", length=0)
        for spine in axes.spines.values():
            spine.set_visible(False)
        axes.set_xlabel("length of the video")
        axes.set_ylabel("depth of the card")
        mean = sum(accuracy.values()) / len(accuracy)
        figure.text(0.1, 0.925, title, fontsize=15, fontweight="bold", color=INK)
        figure.text(0.1, 0.868, f"right answers in percent, mean {100 * mean:.1f}", color=MUTED)
    return figure


def _length_label(seconds: int) -> str:
    return f"{seconds // 3600} h" if seconds >= 3600 else f"{seconds // 60} min"
