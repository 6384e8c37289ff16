"""The settings of synthesis, with their defaults; a YAML file may change any of them (docs/synthesis.md)."""

from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from hourllava.data.records.taxonomy import TASKS
from hourllava.errors import ConfigError
from hourllava.synthesis.models.asking import RetryPolicy
from hourllava.synthesis.models.spending import Price

Format = Literal["open", "choice"]
Seconds = Annotated[float, Field(gt=0, le=3600)]
Share = Annotated[float, Field(ge=0, le=1)]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ClipSettings(_Section):
    """How a video is cut into clips.

    Attributes:
        length_seconds, stride_seconds: of clips, as published; clips overlap by the difference.
        look: decode each video once beforehand, small, for cuts and for clips in which nothing changes.
        recurrent: tell the captioner the summary of the clip before; clips of a video then wait for one another.
    """

    length_seconds: Seconds = 30.0
    stride_seconds: Seconds = 20.0
    look: bool = True
    recurrent: bool = False

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.stride_seconds > self.length_seconds:
            raise ValueError("stride_seconds is larger than length_seconds: the video between clips would not be seen")
        return self


class FrameSettings(_Section):
    """The frames that a captioner gets.

    Attributes:
        fps: frames a second.
        longest_side_pixels: larger frames are made smaller; smaller ones stay.
        jpeg_quality: of the frames.
    """

    fps: Annotated[float, Field(gt=0, le=30)] = 1.0
    longest_side_pixels: Annotated[int, Field(ge=16, le=4096)] = 448
    jpeg_quality: Annotated[int, Field(ge=1, le=100)] = 85


class QuestionSettings(_Section):
    """What is asked for.

    Attributes:
        per_task: questions of a task and format that the writer is asked for; fewer are allowed.
        formats: open-ended, multiple choice.
        tasks: by name.
    """

    per_task: Annotated[int, Field(ge=1, le=20)] = 3
    formats: tuple[Format, ...] = ("open", "choice")
    tasks: tuple[str, ...] = tuple(TASKS)

    @model_validator(mode="after")
    def _check(self) -> Self:
        unknown = [task for task in self.tasks if task not in TASKS]
        if unknown:
            raise ValueError(f"unknown tasks: {', '.join(unknown)}; known are: {', '.join(TASKS)}")
        return self


class SamplingSettings(_Section):
    """How models draw their answers.

    Attributes:
        caption_temperature: of captions, events and summaries.
        question_temperature: of questions.
        verify_temperature: of a second and later answer of the verifier to the same open question; its first one, and
            those to multiple choice, which gets another order of the options each time, are the likeliest ones.
        max_tokens: of an answer, by kind of request; one that is cut is asked for again with twice as many.
    """

    caption_temperature: Annotated[float, Field(ge=0, le=2)] = 0.0
    question_temperature: Annotated[float, Field(ge=0, le=2)] = 0.7
    verify_temperature: Annotated[float, Field(ge=0, le=2)] = 0.7
    max_tokens: dict[str, Annotated[int, Field(ge=1)]] = {
        "clip_caption": 1024,
        "events": 4096,
        "event_caption": 1024,
        "summary": 2048,
        "open_questions": 4096,
        "choice_questions": 6144,
        "verify_choice": 64,
        "verify_open": 256,
        "guess": 32,
    }


class CheckSettings(_Section):
    """Which checks drop questions; each can be turned off. docs/synthesis.md describes them.

    Attributes:
        near_duplicate: share of common words above which two questions are alike.
        guesses: orders of the options under which the verifier guesses without data.
        agreements, objections: of the verifier; a question is kept after so many agreements and dropped after so many
            objections, whichever comes first.
    """

    times: bool = True
    evidence: bool = True
    talk: bool = True
    text: bool = True
    personal: bool = True
    options: bool = True
    duplicates: bool = True
    contradictions: bool = True
    verifier: bool = True
    guessing: bool = True
    blind: bool = True
    longest: bool = True
    yes_no: bool = True
    script: str = "latin"
    near_duplicate: Share = 0.9
    guesses: Annotated[int, Field(ge=1, le=4)] = 3
    agreements: Annotated[int, Field(ge=1, le=3)] = 2
    objections: Annotated[int, Field(ge=1, le=3)] = 2


class SynthSettings(_Section):
    """All settings of a run. Those that change an answer are part of the keys of its rows.

    Attributes:
        seed: of shuffles, and of models that sample.
        server: how servers are asked, as `models.openai_server.ServerOptions`.
        prices: by the model's name, for a million tokens.
    """

    seed: int = 0
    clips: ClipSettings = ClipSettings()
    frames: FrameSettings = FrameSettings()
    questions: QuestionSettings = QuestionSettings()
    sampling: SamplingSettings = SamplingSettings()
    checks: CheckSettings = CheckSettings()
    retries: RetryPolicy = RetryPolicy()
    server: dict[str, Any] = {}
    prices: dict[str, Price] = {}


def load_settings(path: Path | None) -> SynthSettings:
    """Settings of a YAML file; the defaults without one.

    Raises:
        ConfigError: it cannot be read, or a setting is unknown or not allowed.
    """
    if path is None:
        return SynthSettings()
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error
    try:
        settings = SynthSettings.model_validate(found)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise ConfigError(f"{path}: {where}: {first['msg']}; docs/synthesis.md lists all settings") from error
    sampling = SamplingSettings().max_tokens | settings.sampling.max_tokens
    return settings.model_copy(update={"sampling": settings.sampling.model_copy(update={"max_tokens": sampling})})
