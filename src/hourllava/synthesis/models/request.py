"""What a model is asked, and what it gives back.

A request is texts and pictures in order, and the shape of the JSON that is wanted. All models take the same: servers
get it over HTTP, hourllava and MarathonWorld look at the video that it names.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol, Self

from pydantic import BaseModel


@dataclass(frozen=True)
class Picture:
    """A frame: JPEG bytes and its time in the video.

    Attributes:
        jpeg: the file.
        seconds: from the first picture of the video.
        width_pixels, height_pixels: of the picture.
    """

    jpeg: bytes
    seconds: float
    width_pixels: int
    height_pixels: int


@dataclass(frozen=True)
class Stretch:
    """A part of a video, for models that look at it themselves.

    Attributes:
        video: the file.
        start_seconds, end_seconds: from the first picture.
        player_offset_seconds: when a player shows the first picture.
    """

    video: Path
    start_seconds: float
    end_seconds: float
    player_offset_seconds: float = 0.0


@dataclass(frozen=True)
class Request:
    """One question to a model.

    Attributes:
        kind: what is asked, such as "clip_caption"; the name of the JSON schema.
        system: what holds for all requests of the kind; a server may cache it.
        parts: of the user's message, in order.
        shape: of the answer.
        max_tokens: of the answer.
        temperature: 0 takes the likeliest token.
        seed: of the draws, where the server has one.
        stretch: what the pictures show.
    """

    kind: str
    system: str
    parts: tuple[str | Picture, ...]
    shape: type[BaseModel]
    max_tokens: int
    temperature: float = 0.0
    seed: int = 0
    stretch: Stretch | None = None

    def with_note(self, note: str) -> Self:
        """The request with one more text at its end, so that a cached beginning stays the same."""
        return replace(self, parts=(*self.parts, note))

    @property
    def text(self) -> str:
        """All texts of the user's message."""
        return "\n".join(part for part in self.parts if isinstance(part, str))

    @property
    def pictures(self) -> Sequence[Picture]:
        """All pictures, in order."""
        return [part for part in self.parts if isinstance(part, Picture)]


@dataclass(frozen=True)
class Reply:
    """What a model wrote.

    Attributes:
        text: as it came.
        finish: "stop", "length" (cut at `max_tokens`) or "filter" (the server held it back).
        refusal: the model's own words, if it refused.
        prompt_tokens, completion_tokens: as the model counts them.
        server: that answered.
    """

    text: str
    finish: str = "stop"
    refusal: str | None = None
    prompt_tokens: int = 0
    completion_tokens: int = 0
    server: str = ""


class CallFault(Exception):
    """The request brought no reply; the same request may be sent again.

    Attributes:
        kind: for counts: "timeout", "rate limit", ...
        retry_after_seconds: what the server asks for.
    """

    def __init__(self, kind: str, reason: str, *, retry_after_seconds: float | None = None, server: str = "") -> None:
        super().__init__(f"{kind}: {reason}")
        self.kind, self.reason, self.server = kind, reason, server
        self.retry_after_seconds = retry_after_seconds


class Model(Protocol):
    """A model that is asked. Any number of calls may run at once, up to `concurrency`."""

    @property
    def name(self) -> str:
        """What the model is, for provenance; not where it runs."""
        ...

    @property
    def concurrency(self) -> int:
        """Calls at a time that are useful."""
        ...

    async def call(self, request: Request) -> Reply:
        """Ask once.

        Raises:
            CallFault: no reply; try again.
            ItemFault: this request will never get one.
            StopRun: no request will.
        """
        ...

    async def close(self) -> None:
        """Let go of connections and of the device."""
        ...
