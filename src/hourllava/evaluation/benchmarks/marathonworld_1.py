"""`marathonworld-1`: a frozen release of MarathonWorld, the same questions about the same videos for ever.

    part       videos                        for
    1min       40 of 1 minute                split test
    10min      40 of 10 minutes              split test
    30min      20 of 30 minutes              split test
    60min      20 of an hour                 split test
    3h         10 of 3 hours                 split test
    dev-1min, dev-10min                      split dev: 10 of 1 and 10 of 10 minutes, to try things on
    needles    10 depths in each of 1, 2, 4, 8, 16 and 24 hours

Every video has a multiple-choice question for each of the 22 tasks that it allows; a needle video has one, about the
colour of a card. Seeds follow from the names of release, part and number. `marathonworld-1.json` holds a digest of each
part's scripts and questions, and the version of the generator that draws them. What a later version of this library
would make differently is refused: a release is never changed, the next one has another number.
"""

import hashlib
import json
from collections.abc import Iterator
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, get_args

from hourllava.data.records.models import QuestionRow
from hourllava.errors import ConfigError, DataError
from hourllava.evaluation.benchmarks.benchmark import Benchmark
from hourllava.evaluation.benchmarks.folder import DataFolder
from hourllava.evaluation.benchmarks.lmms_eval_task import write_task
from hourllava.evaluation.benchmarks.made import Container, Made, make_part, read_parts, rows_of
from hourllava.evaluation.benchmarks.marathonworld import PLAIN_CHOICE, RULES
from hourllava.evaluation.benchmarks.protocols import by_name
from hourllava.evaluation.benchmarks.questions import QuestionTable
from hourllava.world.drawing.encode import VIDEO_PIXELS
from hourllava.world.generate import DIFFICULTIES
from hourllava.world.making.needles import needle_cases
from hourllava.world.making.records import SOURCE, question_rows
from hourllava.world.reference import Reference
from hourllava.world.rng import Draws
from hourllava.world.script import GENERATOR

NAME = "marathonworld-1"
VIDEOS = {
    "1min": (60, 40), "10min": (600, 40), "30min": (1800, 20), "60min": (3600, 20), "3h": (10_800, 10),
    "dev-1min": (60, 10), "dev-10min": (600, 10),
}  # fmt: skip
"""By part: (length in seconds, number of videos)."""
NEEDLE_SECONDS = tuple(3600 * hours for hours in (1, 2, 4, 8, 16, 24))
NEEDLE_DEPTHS = 10
_NEEDLE_SEED = 1
_TEST = ("1min", "10min", "30min", "60min", "3h")
SPLITS = {
    "test": _TEST, "dev": ("dev-1min", "dev-10min"), "needles": ("needles",),
    **{part: (part,) for part in _TEST},
}  # fmt: skip
"""By split, its parts."""


@cache
def frozen() -> dict[str, Any]:
    """What the release is: `generator`, and by part `videos`, `questions` and `digest`."""
    text = files("hourllava.evaluation.benchmarks").joinpath(f"{NAME}.json").read_text(encoding="utf-8")
    found: dict[str, Any] = json.loads(text)
    return found


def videos_of(part: str) -> Iterator[Made]:
    """The videos of a part, in order."""
    if part == "needles":
        yield from needle_videos(f"{NAME}-needle", NEEDLE_SECONDS, NEEDLE_DEPTHS, _NEEDLE_SEED, VIDEO_PIXELS)
        return
    seconds, number = VIDEOS[part]
    for k in range(number):
        name = f"{NAME}-{part}-{k:03}"
        reference = Reference(
            seed=Draws(NAME, part, k).below(2**53), duration_seconds=seconds, split="test",
            density=DIFFICULTIES["normal"], needles=None, size_pixels=VIDEO_PIXELS,
        )  # fmt: skip
        rows = question_rows(reference.script(), name, per_task=1, formats=("choice",))
        yield Made(name, reference, list(rows_of(name, rows)))


def needle_videos(
    prefix: str, lengths_seconds: tuple[int, ...], num_depths: int, seed: int, size_pixels: int
) -> Iterator[Made]:
    """A video for each length and depth, with a question about the card there.

    Args:
        prefix: of the videos' names.
        lengths_seconds, num_depths, seed: as `needle_cases`.
        size_pixels: of the frames.

    Raises:
        ConfigError: as `needle_cases`.
    """
    for number, case in enumerate(needle_cases(lengths_seconds, num_depths, seed=seed, split="test")):
        name = f"{prefix}-{number:03}"
        row = QuestionRow(
            question_id=name, video=name, data_source=SOURCE, duration_seconds=case.length_seconds, split="test",
            **case.question.model_dump(),
        )  # fmt: skip
        yield Made(name, case.reference.model_copy(update={"size_pixels": size_pixels}), [row])


def digest_of(part: str) -> dict[str, Any]:
    """`videos`, `questions` and `digest` of a part as this version makes it."""
    digest = hashlib.sha256()
    num_videos = num_questions = 0
    for made in videos_of(part):
        content = {
            "name": made.name, "reference": made.reference.model_dump(mode="json", exclude={"generator"}),
            "script": made.reference.script().model_dump(mode="json"),
            "questions": [row.model_dump(mode="json") for row in made.questions],
        }  # fmt: skip
        digest.update(json.dumps(content, sort_keys=True, ensure_ascii=False).encode())
        num_videos, num_questions = num_videos + 1, num_questions + len(made.questions)
    return {"videos": num_videos, "questions": num_questions, "digest": digest.hexdigest()}


def check_part(part: str) -> None:
    """Compare a part as this version makes it with the release.

    Raises:
        DataError: it would be another one.
    """
    if frozen()["generator"] != GENERATOR or digest_of(part) != frozen()["parts"][part]:
        raise DataError(
            f"this version of hourllava would make other videos or questions than {NAME} ({part}); use the version "
            f"{frozen()['version']}, or a newer release of MarathonWorld"
        )


def make(data: Path, split: str, container: Container = "reference", processes: int = 1) -> None:
    """Make the videos and questions of a split, or what is missing.

    Raises:
        DataError: this version would make others than the release has.
        ConfigError: `data` cannot be written.
        VideoError: a video cannot be written.
    """
    for part in SPLITS[split]:
        check_part(part)
        make_part(data, part, videos_of(part), container, processes)
    task = f"{NAME}-{split}".replace("-", "_")
    write_task(data, task, SPLITS[split], PLAIN_CHOICE.max_new_tokens)


def make_if_missing(data: Path, split: str) -> None:
    """Make a split as references, unless its questions are there: then its videos are, too."""
    if not all((data / "questions" / f"{part}.jsonl").exists() for part in SPLITS[split]):
        make(data, split)


def read(folder: DataFolder, split: str) -> QuestionTable:
    """The questions of a split."""
    return read_parts(folder, NAME, split, SPLITS[split])


def _counts() -> dict[str, tuple[int, int | None]]:
    parts = frozen()["parts"]
    return {
        split: (sum(parts[part]["questions"] for part in some), sum(parts[part]["videos"] for part in some))
        for split, some in SPLITS.items()
    }


BENCHMARK = Benchmark(
    name=NAME,
    title="MarathonWorld 1",
    read=read,
    splits=tuple(SPLITS),
    protocols=by_name(PLAIN_CHOICE),
    rules=RULES,
    default_protocol=PLAIN_CHOICE.name,
    axes={"length": "By length", "topic": "By topic", "task": "By task", "form": "By form", "depth": "By depth"},
    macro_axis="length",
    headline="macro",
    counts=_counts(),
    advice="Quote plain, a figure per length and their mean, with blind beside it.",
    make=make_if_missing,
)


def parse_container(text: str) -> Container:
    """The container of this name.

    Raises:
        ConfigError: there is none.
    """
    containers: tuple[Container, ...] = get_args(Container)
    for container in containers:
        if text == container:
            return container
    raise ConfigError(f"--container is {text!r}; use one of: {', '.join(containers)}")
