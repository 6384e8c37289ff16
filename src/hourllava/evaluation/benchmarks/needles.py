"""Needles: the colour of one letter card among eight, in videos of some lengths, at even depths.

`hourllava eval needles DATA` makes 1 to 60 minutes with ten depths each, if DATA has none yet; `hourllava eval make
needles DATA` makes others. The hours of `marathonworld-1` are its split `needles`.
"""

from pathlib import Path

from hourllava.evaluation.benchmarks.benchmark import Benchmark
from hourllava.evaluation.benchmarks.folder import DataFolder
from hourllava.evaluation.benchmarks.lmms_eval_task import write_task
from hourllava.evaluation.benchmarks.made import Container, make_part, read_parts
from hourllava.evaluation.benchmarks.marathonworld import PLAIN_CHOICE, RULES
from hourllava.evaluation.benchmarks.marathonworld_1 import needle_videos
from hourllava.evaluation.benchmarks.protocols import by_name
from hourllava.evaluation.benchmarks.questions import QuestionTable
from hourllava.world.making.needles import FRAME_PIXELS

NAME = "needles"
LENGTHS_SECONDS = (60, 300, 900, 1800, 3600)
NUM_DEPTHS = 10


def make(
    data: Path,
    lengths_seconds: tuple[int, ...] = LENGTHS_SECONDS,
    num_depths: int = NUM_DEPTHS,
    seed: int = 0,
    container: Container = "reference",
    processes: int = 1,
) -> None:
    """Make the videos and questions, or what is missing.

    Args:
        data: the data folder.
        lengths_seconds: of the videos, 60 to 86,400.
        num_depths: videos of each length.
        seed: another one gives other videos.
        container, processes: as `made.make_part`.

    Raises:
        ConfigError: a number is outside what is allowed, or `data` cannot be written.
        VideoError: a video cannot be written.
    """
    videos = needle_videos(f"needle-{seed}", lengths_seconds, num_depths, seed, FRAME_PIXELS)
    make_part(data, NAME, videos, container, processes)
    write_task(data, f"hourllava_{NAME}", (NAME,), PLAIN_CHOICE.max_new_tokens)


def make_if_missing(data: Path, split: str) -> None:
    """Make the usual ones as references, unless there are some."""
    if not (data / "questions" / f"{NAME}.jsonl").exists():
        make(data)


def read(folder: DataFolder, split: str) -> QuestionTable:
    """The questions of a data folder."""
    return read_parts(folder, NAME, split, (NAME,))


BENCHMARK = Benchmark(
    name=NAME,
    title="Needles",
    read=read,
    splits=("all",),
    protocols=by_name(PLAIN_CHOICE),
    rules=RULES,
    default_protocol=PLAIN_CHOICE.name,
    axes={"length": "By length", "depth": "By depth"},
    macro_axis="length",
    headline="macro",
    advice="Quote plain, a figure per length, with the number of depths.",
    make=make_if_missing,
)
