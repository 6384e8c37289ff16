"""What a server asks of an engine: asynchronous calls, and plain data that can be pickled.

The routes, the page and the MCP tools know only `Engine`. `LocalEngine` fulfils it in this process, `RayEngine` with
replicas in others. No tensor, path of a memory or open file crosses it.
"""

import hashlib
import json
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from hourllava.errors import HourLlavaError
from hourllava.inference.questions.answers import Answer, Choice
from hourllava.inference.questions.evidence import Span
from hourllava.inference.questions.options import DEFAULT_MAX_NEW_TOKENS, DEFAULT_SUBTITLE_TOKENS
from hourllava.inference.questions.subtitles import Cue

WatchState = Literal["queued", "watching", "ready", "failed", "cancelled"]


@dataclass(frozen=True)
class Video:
    """A video file and the part of it that is to be watched.

    Attributes:
        path: of a file that every engine process can read.
        digest: SHA-256 of the whole file in hexadecimal digits, or another text that stands for its content.
        fps: frames sampled per second.
        start_seconds, end_seconds: the part, on the player's clock; end None: to the end.
        name: as its owner calls it, for messages, which never hold `path`.
    """

    path: str
    digest: str
    fps: float = 1.0
    start_seconds: float = 0.0
    end_seconds: float | None = None
    name: str = "the video"

    @property
    def key(self) -> str:
        """What the memory depends on: content and part, not path and name. 32 hexadecimal digits."""
        facts = json.dumps([self.digest, self.fps, self.start_seconds, self.end_seconds])
        return hashlib.sha256(facts.encode()).hexdigest()[:32]


@dataclass(frozen=True)
class WatchFailure:
    """Why a video could not be watched.

    Attributes:
        code: for programs, such as `video_unreadable`; the codes are those of the HTTP API.
        message: for people, on one line, without a path of the server.
    """

    code: str
    message: str


class EngineFailure(HourLlavaError):
    """A request failed for a reason that the HTTP API has a code for.

    Attributes:
        code: as in `WatchFailure`, or `shutting_down`, `out_of_memory` (of the device; try again), `replica_lost` (a
            process has ended; try again), `internal`.
    """

    def __init__(self, message: str, code: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True)
class WatchView:
    """How far a video is watched, at one moment.

    Attributes:
        key: of the video.
        state: `ready`, `failed` and `cancelled` are final.
        frames_done, frames_total: frames in the memory, and frames that it will have, about; None if unknown.
        frames_per_second: of the watching so far; 0 if a cache had the memory.
        seconds_left: at this rate; None if unknown.
        duration_seconds: of what was watched, on the player's clock; None before `ready`.
        gaps: (start_seconds, end_seconds) of damaged parts that show nothing.
        attempt: 1, or 2 if a replica died during the first.
        failure: for `failed`.
    """

    key: str
    state: WatchState
    frames_done: int = 0
    frames_total: int | None = None
    frames_per_second: float = 0.0
    seconds_left: float | None = None
    duration_seconds: float | None = None
    gaps: tuple[tuple[float, float], ...] = ()
    attempt: int = 1
    failure: WatchFailure | None = None

    @property
    def is_final(self) -> bool:
        """Whether this state does not change by itself any more."""
        return self.state in ("ready", "failed", "cancelled")


@dataclass(frozen=True)
class Question:
    """One question.

    Attributes:
        text: the question.
        history: (question, answer) pairs of the conversation so far.
        subtitles: what is said in the video.
        subtitle_tokens: tokens that subtitles may take.
        max_new_tokens, temperature, top_p, seed, stop: as `hourllava.AskOptions`.
        caller: questions of one caller wait for one another, and callers take turns; None: a caller of its own.
    """

    text: str
    history: Sequence[tuple[str, str]] = ()
    subtitles: Sequence[Cue] = ()
    subtitle_tokens: int = DEFAULT_SUBTITLE_TOKENS
    max_new_tokens: int = DEFAULT_MAX_NEW_TOKENS
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0
    stop: Sequence[str] = ()
    caller: str | None = None


@dataclass(frozen=True)
class TextPiece:
    """A new piece of an answer's text; pieces are never taken back."""

    text: str


AskEvent = WatchView | TextPiece | Answer
"""What `Engine.ask` yields: progress if the video is still being watched, then the text, then the whole answer."""


@dataclass(frozen=True)
class EngineStatus:
    """What an engine is and does, at one moment.

    Attributes:
        model: name for clients, such as `hourllava-nano`.
        context_tokens: tokens that a prompt and its answer may take.
        num_replicas: processes that answer.
        questions_waiting, questions_running: now.
        watches_waiting, watches_running: now.
        ready_memories, memory_cache_bytes: memories ready for questions, and bytes of the cache on disk.
        memory_queries, memory_hits: questions about videos so far, and those whose memory was at hand in the process
            that answered: it was not watched or read from the disk first.
        is_draining: whether new work is refused because the engine is closing.
    """

    model: str
    context_tokens: int
    num_replicas: int = 1
    questions_waiting: int = 0
    questions_running: int = 0
    watches_waiting: int = 0
    watches_running: int = 0
    ready_memories: int = 0
    memory_cache_bytes: int = 0
    memory_queries: int = 0
    memory_hits: int = 0
    is_draining: bool = False


class Engine(Protocol):
    """Watches videos and answers questions about them. All calls may run at once, in one event loop.

    Every call may raise `HourLlavaError`, and nothing else. `EngineBusy` means: the queue is full, try again after its
    `retry_after_seconds`, at most 120. `EngineFailure` has a code; other classes say what is wrong with the question.
    `Cancelled` means that somebody cancelled the watching, or that the engine was closed. An asynchronous iterator that
    is closed, or whose task is cancelled, ends its work within one token or one batch of frames.
    """

    async def watch(self, video: Video, *, keeps_running: bool = False) -> WatchView:
        """Begin to watch a video, or join the watching of the same key; does not wait for its end.

        Args:
            video: what to watch.
            keeps_running: whether it goes on without listeners. Without it, it ends when the last iterator of
                `follow` or `ask` has ended.
        """
        ...

    def follow(self, video: Video) -> AsyncGenerator[WatchView, None]:
        """The state of a video now, and at each change, at most ten times a second, to a final one.

        A video that is not being watched gives one view: `ready` if the cache has its memory, `failed` if that was the
        end of the last watching, else `cancelled`.
        """
        ...

    async def view(self, video: Video) -> WatchView | None:
        """The state of a video now; None if nothing is known of it."""
        ...

    async def cancel_watch(self, video: Video) -> None:
        """End the watching of a video for all listeners. A video that is not being watched stays as it is."""
        ...

    def ask(self, video: Video | None, question: Question) -> AsyncGenerator[AskEvent, None]:
        """Answer a question; a video that was not watched is watched first.

        Args:
            video: None asks the language model alone.
            question: the question.

        Yields:
            `WatchView` while the video is watched, then `TextPiece`s, and one `Answer` at the end.

        Raises:
            InputError, ConfigError: the question or an option is not allowed.
            EngineFailure: the video could not be watched, or the device has no memory left.
            Cancelled: the watching was cancelled, or the engine closed.
            EngineBusy: too many questions or watches wait; raised before the first event.
        """
        ...

    async def choose(self, video: Video | None, question: Question, options: Sequence[str]) -> Choice:
        """Multiple choice; the video must be `ready` or is watched first."""
        ...

    async def find(self, video: Video, text: str) -> list[Span]:
        """The moments that a text is about; the video must be `ready` or is watched first."""
        ...

    async def export_memory(self, video: Video, path: str) -> None:
        """Write the memory of a `ready` video to a file, whole or not at all."""
        ...

    async def forget(self, video: Video) -> None:
        """Delete the memory of a video, from the device and from the cache."""
        ...

    async def status(self) -> EngineStatus:
        """What the engine is and does now."""
        ...

    async def close(self, drain_seconds: float = 0.0) -> None:
        """Refuse new work, wait up to `drain_seconds` for what runs, end the rest with `Cancelled`, free everything."""
        ...
