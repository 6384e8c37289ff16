"""MarathonWorld's held-out videos and their questions: new seeds, phrasings and (colour, shape) combinations.

The videos come from a folder of `hourllava world make`, or are made in OUT/world. The questions follow from the videos'
seeds, so they are not stored.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from hourllava.data.records.models import QuestionRow
from hourllava.errors import ConfigError
from hourllava.evaluation.answering import Case
from hourllava.world.making.make import SETTINGS_NAME, MakeSettings, make_videos
from hourllava.world.making.needles import needle_cases
from hourllava.world.making.records import SOURCE, question_rows
from hourllava.world.questions.draft import Format
from hourllava.world.reference import REFERENCE_SUFFIX, write_reference


class NeedleSettings(BaseModel):
    """Which needle videos are made: one per length and depth, each with a question about one card."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    lengths_seconds: tuple[int, ...]
    num_depths: int
    seed: int
    formats: tuple[Format, ...]
    kind: Literal["needles"] = "needles"


def world_cases(settings: MakeSettings, folder: Path) -> Iterator[Case]:
    """The videos of a world, with the questions of its tasks; missing videos are made."""
    for path, reference in make_videos(settings, folder, processes=1):
        name = f"{SOURCE}/{path.name}"
        rows = question_rows(reference.script(), name, settings.per_task, settings.formats, settings.tasks)
        yield Case(path, list(rows))


def world_of(folder: Path) -> MakeSettings:
    """Read the settings of an existing world.

    Raises:
        ConfigError: the folder holds no world.
    """
    path = folder / SETTINGS_NAME
    try:
        return MakeSettings.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise ConfigError(
            f"{folder} holds no world ({path.name} is missing, damaged or of another version); give a folder "
            "that `hourllava world make` wrote, or omit --world"
        ) from error


def needle_videos(settings: NeedleSettings, folder: Path) -> Iterator[Case]:
    """One reference per length and depth, with a question about one card in each format."""
    cases = [
        needle_cases(
            settings.lengths_seconds, settings.num_depths, seed=settings.seed, split="test", answer_format=answer_format
        )
        for answer_format in settings.formats
    ]
    folder.mkdir(parents=True, exist_ok=True)
    for number, same in enumerate(zip(*cases, strict=True)):
        case = same[0]
        path = folder / f"needle-{settings.seed}-{number:05}{REFERENCE_SUFFIX}"
        write_reference(case.reference, path)
        rows = [
            QuestionRow(
                question_id=f"needle-{settings.seed}-{number:05}-{one.question.format}",
                video=path.name,
                data_source=SOURCE,
                duration_seconds=one.length_seconds,
                split="test",
                **one.question.model_dump(),
            )
            for one in same
        ]
        yield Case(path, rows)
