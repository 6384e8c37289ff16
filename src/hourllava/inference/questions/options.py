"""What may be given with a question, or with a video to watch."""

import dataclasses
from collections.abc import Sequence
from typing import TypedDict

from hourllava.errors import InputError
from hourllava.inference.memories.cache import MemoryCache
from hourllava.inference.memories.memory import Memory
from hourllava.inference.questions.subtitles import Cue
from hourllava.inference.rows.sampling import Sampling
from hourllava.video.limits import VideoLimits

DEFAULT_SUBTITLE_TOKENS = 2048
DEFAULT_MAX_NEW_TOKENS = 512

History = Sequence[tuple[str, str]]
"""(question, answer) pairs of a conversation."""


class SubtitleOptions(TypedDict, total=False):
    """Subtitles that come with a question.

    Attributes:
        subtitles: what is said in the video. Those around the question's evidence become part of its prompt; without a
            memory, the earliest.
        subtitle_tokens: tokens that subtitles may take, by default 2,048.
    """

    subtitles: Sequence[Cue]
    subtitle_tokens: int


class AskOptions(SubtitleOptions, total=False):
    """Options of `HourLlava.ask`, `ask_all`, `stream` and `Chat.ask`, with those of `SubtitleOptions`.

    Attributes:
        max_new_tokens: tokens that an answer may have, by default 512. The model's context limits them too; an answer
            that is cut by either has `finish_reason` "length".
        temperature, top_p, seed: see `Sampling`; temperature 0, the default, always takes the likeliest token.
        stop: texts that end an answer; they are not part of it.
    """

    max_new_tokens: int
    temperature: float
    top_p: float
    seed: int
    stop: Sequence[str]


class WatchOptions(TypedDict, total=False):
    """Options of `HourLlava.watch` and `start_watch`.

    Attributes:
        fps: frames sampled per second, by default 1.
        start_seconds, end_seconds: the part to watch, on the player's clock; by default all of the video.
        memory: of an earlier, shorter state of the same video. Only new frames are appended to it; its last four frames
            are read again and compared. `start_seconds` is ignored then.
        cache: holds memories of earlier calls, and keeps this one. A pipe, a playlist, and a URL whose server sends
            neither a date nor a tag have no identity, so their memories are not kept.
        allow_network: whether a URL may be opened.
        allow_playlists: whether a playlist may be opened, a file that names other files or addresses.
        digest: a text that stands for the content of the video, from a caller who knows it; by default it is computed,
            see `hourllava.video.source_digest`.
        limits: on length and size of the video, and on what its decoding may take; for videos of strangers.
        num_processes: that decode, at most. All videos that a model watches share one process for each usable core, 16
            at most; each has at least one.
    """

    fps: float
    start_seconds: float
    end_seconds: float | None
    memory: Memory | None
    cache: MemoryCache | None
    allow_network: bool
    allow_playlists: bool
    digest: str | None
    limits: VideoLimits | None
    num_processes: int | None


@dataclasses.dataclass(frozen=True)
class AskSettings:
    """Options of one question with their defaults; the fields are those of `AskOptions`.

    Raises:
        InputError: `max_new_tokens` is below 1, or a stop text is empty.
        ConfigError: temperature, top_p or seed is outside what is allowed.
    """

    subtitles: Sequence[Cue] = ()
    subtitle_tokens: int = DEFAULT_SUBTITLE_TOKENS
    max_new_tokens: int = DEFAULT_MAX_NEW_TOKENS
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0
    stop: Sequence[str] = ()

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1:
            raise InputError(f"max_new_tokens is {self.max_new_tokens}; an answer needs 1 or more")
        if isinstance(self.stop, str) or not all(isinstance(text, str) and text for text in self.stop):
            raise InputError(f"stop is {self.stop!r}; give a list of texts, none of them empty")
        _ = self.sampling

    @property
    def sampling(self) -> Sampling:
        """How tokens are chosen."""
        return Sampling(self.temperature, self.top_p, self.seed)
