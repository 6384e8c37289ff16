"""`hourllava eval make`: the data folder of a benchmark that is made from seeds."""

from collections.abc import Iterator
from pathlib import Path

from hourllava.errors import ConfigError
from hourllava.evaluation.benchmarks import marathonworld_1, needles
from hourllava.evaluation.benchmarks.lmms_eval_task import FOLDER_NAME
from hourllava.world.generate import MAX_SECONDS


def make_data(
    name: str, data: Path, *, split: str | None, container: str, minutes: str | None, depths: int | None,
    seed: int | None, processes: int,
) -> Iterator[str]:  # fmt: skip
    """Make the videos and questions of a benchmark, or what is missing of them.

    Args:
        name: `marathonworld-1` or `needles`.
        data: the data folder.
        split: of `marathonworld-1`; None for its test.
        container: "reference", "mp4" or "webm".
        minutes, depths, seed: of `needles`, such as "60,120"; None for the usual ones.
        processes: that make video files.

    Yields:
        lines for the user.

    Raises:
        ConfigError: an option is not allowed, or `data` cannot be written.
        DataError: this version would make something else than the release.
        VideoError: a video cannot be written.
    """
    kind = marathonworld_1.parse_container(container)
    if name == marathonworld_1.NAME:
        if given := [
            option for option, value in (("--minutes", minutes), ("--depths", depths), ("--seed", seed))
            if value is not None
        ]:  # fmt: skip
            raise ConfigError(f"{given[0]} is for needles; {name} is what it is")
        chosen = marathonworld_1.BENCHMARK.split(split)
        marathonworld_1.make(data, chosen, kind, processes)
        questions, videos = marathonworld_1.BENCHMARK.counts[chosen]
        yield f"{name}, {chosen}: {questions:,} questions about {videos:,} videos in {data}"
    elif name == needles.NAME:
        if split is not None:
            raise ConfigError("--split is for marathonworld-1; needles have none")
        lengths = needles.LENGTHS_SECONDS if minutes is None else parse_lengths(minutes)
        number = needles.NUM_DEPTHS if depths is None else depths
        needles.make(data, lengths, number, seed or 0, kind, processes)
        yield f"{len(lengths) * number:,} needles in {data}"
    else:
        raise ConfigError(f"{name} is not made but downloaded; these are made: {marathonworld_1.NAME}, {needles.NAME}")
    yield f"the task for lmms-eval: --include_path {data / FOLDER_NAME}"


def parse_lengths(text: str) -> tuple[int, ...]:
    """Turn "1,60" in minutes into seconds.

    Raises:
        ConfigError: a part is no number, or outside 1 to 1,440.
    """
    try:
        lengths = tuple(round(60 * float(part)) for part in text.split(","))
    except ValueError:
        lengths = ()
    if not lengths or not all(60 <= seconds <= MAX_SECONDS for seconds in lengths):
        raise ConfigError(f"--minutes is {text!r}; use numbers from 1 to 1440, such as 60,120")
    return lengths
