"""Held-out videos of MarathonWorld with their questions: new seeds, new phrasings, new (colour, shape) combinations.

A folder of `hourllava world make` can be asked, too; otherwise videos are made in OUT/world. Questions follow from the
videos' seeds, so nothing but the videos lies there.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from hourllava.data.records.models import QuestionRow
from hourllava.errors import ConfigError
from hourllava.world.making.make import SETTINGS_NAME, MakeSettings, make_videos
from hourllava.world.making.needles import needle_cases
from hourllava.world.making.records import SOURCE, question_rows
from hourllava.world.questions.draft import Format
from hourllava.world.reference import REFERENCE_SUFFIX, write_reference


class NeedleSettings(BaseModel):
    """Which videos with one card in question are made: one for each length and depth."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    lengths_seconds: tuple[int, ...]
    num_depths: int
    seed: int
    formats: tuple[Format, ...]
    kind: Literal["needles"] = "needles"


@dataclass(frozen=True)
class Case:
    """A video and what is asked about it."""

    path: Path
    questions: list[QuestionRow]


def world_cases(settings: MakeSettings, folder: Path) -> Iterator[Case]:
    """The videos of a world, made if they are not there, and questions of all tasks."""
    for path, reference in make_videos(settings, folder, processes=1):
        name = f"{SOURCE}/{path.name}"
        yield Case(path, list(question_rows(reference.script(), name, settings.per_task, settings.formats)))


def world_of(folder: Path) -> MakeSettings:
    """The settings of a world that was made before.

    Raises:
        ConfigError: there is none.
    """
    path = folder / SETTINGS_NAME
    try:
        return MakeSettings.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise ConfigError(
            f"{folder} holds no world ({path.name} is missing, damaged or of another version); give a folder of "
            "`hourllava world make`, or leave --world away"
        ) from error


def needle_videos(settings: NeedleSettings, folder: Path) -> Iterator[Case]:
    """One video for each length and depth, as references."""
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
