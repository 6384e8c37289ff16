"""hourllava: watch a video once, ask it anything, for as long as you like.

    from hourllava import HourLlava

    model = HourLlava.from_pretrained("nano")
    memory = model.watch("lecture.mp4")
    answer = model.ask(memory, "When is the first graph shown?")

`import hourllava` takes milliseconds: a name is imported when it is first used, and torch with it.
"""

import importlib
from typing import TYPE_CHECKING, Any

from hourllava.errors import (
    Cancelled,
    CheckpointError,
    ConfigError,
    DataError,
    EngineBusy,
    HourLlavaError,
    InputError,
    MemoryFileError,
    PartlyDoneError,
    TrainingError,
    VideoError,
)
from hourllava.openers import register_opener

if TYPE_CHECKING:
    from hourllava.inference.chat import Chat
    from hourllava.inference.engine import HourLlava
    from hourllava.inference.memories.cache import CacheEntry, MemoryCache
    from hourllava.inference.memories.encoder import EncoderIdentity
    from hourllava.inference.memories.memory import Memory
    from hourllava.inference.memories.snapshot import MemorySnapshot, WatchedSource
    from hourllava.inference.questions.answers import Answer, Choice
    from hourllava.inference.questions.evidence import Span
    from hourllava.inference.questions.options import AskOptions, SubtitleOptions, WatchOptions
    from hourllava.inference.questions.subtitles import Cue, read_subtitles
    from hourllava.inference.rows.sampling import Sampling
    from hourllava.inference.streams import AnswerStream
    from hourllava.inference.watching.job import WatchJob
    from hourllava.inference.watching.progress import Progress
    from hourllava.model.checkpoint import export_released, load_model
    from hourllava.model.config import HourLlavaConfig
    from hourllava.model.messages import Video
    from hourllava.model.modeling import HourLlavaForConditionalGeneration
    from hourllava.model.processor import HourLlavaProcessor
    from hourllava.video.types import Gap

__version__ = "0.1.0"

register_opener(".world.json", "hourllava.world.rendered:RenderedVideo")

# Where each lazy name lives. Lazy, because the processes that decode video import this package too and need no torch.
_HOMES = {
    "Answer": "hourllava.inference.questions.answers",
    "AnswerStream": "hourllava.inference.streams",
    "AskOptions": "hourllava.inference.questions.options",
    "CacheEntry": "hourllava.inference.memories.cache",
    "Chat": "hourllava.inference.chat",
    "Choice": "hourllava.inference.questions.answers",
    "Cue": "hourllava.inference.questions.subtitles",
    "EncoderIdentity": "hourllava.inference.memories.encoder",
    "Gap": "hourllava.video.types",
    "HourLlava": "hourllava.inference.engine",
    "HourLlavaConfig": "hourllava.model.config",
    "HourLlavaForConditionalGeneration": "hourllava.model.modeling",
    "HourLlavaProcessor": "hourllava.model.processor",
    "Memory": "hourllava.inference.memories.memory",
    "MemoryCache": "hourllava.inference.memories.cache",
    "MemorySnapshot": "hourllava.inference.memories.snapshot",
    "Progress": "hourllava.inference.watching.progress",
    "Video": "hourllava.model.messages",
    "Sampling": "hourllava.inference.rows.sampling",
    "Span": "hourllava.inference.questions.evidence",
    "SubtitleOptions": "hourllava.inference.questions.options",
    "WatchJob": "hourllava.inference.watching.job",
    "WatchOptions": "hourllava.inference.questions.options",
    "WatchedSource": "hourllava.inference.memories.snapshot",
    "export_released": "hourllava.model.checkpoint",
    "load_model": "hourllava.model.checkpoint",
    "read_subtitles": "hourllava.inference.questions.subtitles",
}

__all__ = [
    "Answer",
    "AnswerStream",
    "AskOptions",
    "CacheEntry",
    "Cancelled",
    "Chat",
    "CheckpointError",
    "Choice",
    "ConfigError",
    "Cue",
    "DataError",
    "EncoderIdentity",
    "EngineBusy",
    "Gap",
    "HourLlava",
    "HourLlavaConfig",
    "HourLlavaError",
    "HourLlavaForConditionalGeneration",
    "HourLlavaProcessor",
    "InputError",
    "Memory",
    "MemoryCache",
    "MemoryFileError",
    "MemorySnapshot",
    "PartlyDoneError",
    "Progress",
    "Sampling",
    "Span",
    "SubtitleOptions",
    "TrainingError",
    "Video",
    "VideoError",
    "WatchJob",
    "WatchOptions",
    "WatchedSource",
    "export_released",
    "load_model",
    "read_subtitles",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'hourllava' has no attribute {name!r}")
    home = _HOMES[name]
    if home.startswith("hourllava.model."):
        importlib.import_module("hourllava.model.processor")  # registers all of them with transformers' Auto classes
    globals()[name] = value = getattr(importlib.import_module(home), name)
    return value


def __dir__() -> list[str]:
    return sorted(globals().keys() | set(__all__))
