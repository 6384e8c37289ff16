"""The objects that clients get and that are no OpenAI's: memories, evidence; and the files, which are."""

import math
import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from hourllava.inference.questions.answers import Choice
from hourllava.inference.questions.evidence import Span
from hourllava.serving.protocol import WatchState, WatchView
from hourllava.serving.records import MemoryRecord
from hourllava.serving.store import FileKind

MAX_SECONDS = 1e7

Seconds = Annotated[float, Field(ge=0, le=MAX_SECONDS, allow_inf_nan=False)]
Id = Annotated[str, Field(max_length=64)]


def _in_json(pattern: str) -> BeforeValidator:
    def check(value: object) -> object:
        if isinstance(value, str) and re.fullmatch(pattern, value, re.ASCII) is None:
            raise ValueError("write it as JSON does")
        return value

    return BeforeValidator(check)


# Of an address's query. Pydantic alone takes `yes`, ` 1` and `1_000`, too, which the schema does not allow.
QueryBool = Annotated[bool, _in_json("true|false")]
QueryInt = Annotated[int, _in_json(r"-?(0|[1-9]\d*)")]
QueryFloat = Annotated[float, _in_json(r"-?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?")]


class Strict(BaseModel):
    """A body of a request: no field is guessed, and unknown ones are refused by name."""

    model_config = ConfigDict(extra="forbid", strict=True)


class Evidence(BaseModel):
    """A moment that a prompt looked at, on the player's clock; `weight` is its share of the attention."""

    start_seconds: float
    end_seconds: float
    weight: float

    @classmethod
    def of(cls, span: Span) -> "Evidence":
        """From an engine's span."""
        return cls(start_seconds=span.start_seconds, end_seconds=span.end_seconds, weight=span.weight)


class Chosen(BaseModel):
    """The most probable of several options."""

    question: str
    option: str
    letter: str
    probabilities: list[float] = Field(description="of all options, in the order given")

    @staticmethod
    def fields_of(choice: Choice) -> dict[str, Any]:
        """These fields, for a class that adds the moments in its own shape."""
        return {name: getattr(choice, name) for name in Chosen.model_fields}


class GapObject(BaseModel):
    """A damaged part that shows nothing."""

    start_seconds: float
    end_seconds: float


class Failure(BaseModel):
    """Why a video could not be watched."""

    code: str
    message: str


class MemoryObject(BaseModel):
    """What a client had watched, and how far that is."""

    id: str
    object: Literal["hourllava.memory"] = "hourllava.memory"
    name: str
    file_id: str | None
    media_path: str | None
    state: WatchState
    frames_done: int
    frames_total: int | None
    frames_per_second: float
    seconds_left: float | None
    duration_seconds: float | None
    fps: float
    start_seconds: float
    end_seconds: float | None
    gaps: list[GapObject]
    attempt: int
    created_at: int
    content_url: str | None
    error: Failure | None


class FileExtras(BaseModel):
    """What OpenAI's file object has no word for."""

    kind: FileKind
    memory_id: str | None


class FileObject(BaseModel):
    """OpenAI's file object. `status` is `processed` when the video is watched: the SDK has `wait_for_processing`."""

    id: str
    object: Literal["file"] = "file"
    bytes: int
    created_at: int
    filename: str
    purpose: str
    status: Literal["uploaded", "processed", "error"]
    status_details: str | None = None
    hourllava: FileExtras


class Deleted(BaseModel):
    """That something was deleted."""

    id: str
    object: str
    deleted: bool = True


def memory_object(record: MemoryRecord, view: WatchView, content_url: str | None) -> MemoryObject:
    """A memory as clients get it.

    Args:
        record: from the store.
        view: from an engine.
        content_url: address of the video for a player; None if its file is gone.
    """
    failure = view.failure
    return MemoryObject(
        id=record.id,
        name=record.name,
        file_id=record.file_id,
        media_path=record.media_path,
        state=view.state,
        frames_done=view.frames_done,
        frames_total=view.frames_total,
        frames_per_second=_finite(view.frames_per_second) or 0.0,
        seconds_left=_finite(view.seconds_left),
        duration_seconds=_finite(view.duration_seconds),
        fps=record.fps,
        start_seconds=record.start_seconds,
        end_seconds=record.end_seconds,
        gaps=[GapObject(start_seconds=start, end_seconds=end) for start, end in view.gaps],
        attempt=view.attempt,
        created_at=record.created_at,
        content_url=content_url,
        error=None if failure is None else Failure(code=failure.code, message=failure.message),
    )


def _finite(number: float | None) -> float | None:
    return number if number is not None and math.isfinite(number) else None
