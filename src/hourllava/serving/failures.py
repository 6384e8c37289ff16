"""Errors of the engine as clients get them: with a code, and without paths of the server."""

import asyncio
import logging
from pathlib import Path

import torch

from hourllava.errors import (
    Cancelled,
    CheckpointError,
    ConfigError,
    EngineBusy,
    HourLlavaError,
    InputError,
    MemoryFileError,
    StorageError,
    VideoError,
    VideoLimitError,
)
from hourllava.serving.protocol import EngineFailure, Video, WatchFailure

MAX_RETRY_SECONDS = 120.0
"""Clients of OpenAI wait for at most so long before they try again."""

_CODES: tuple[tuple[type[HourLlavaError], str], ...] = (
    (VideoError, "video_unreadable"),
    (MemoryFileError, "memory_failed"),
    (StorageError, "storage_full"),
    (ConfigError, "invalid_request"),
    (InputError, "invalid_request"),
    (CheckpointError, "internal"),
)
_LIMIT_CODES = {
    **{"seconds": "video_too_long", "frames": "too_many_frames", "pixels": "too_many_pixels"},
    **{"streams": "too_many_streams"},
}
_OUT_OF_MEMORY = "the memory of the server's device is full; try again later, or with a shorter video"
_INTERNAL = "the server has failed at this; its log says why"

_log = logging.getLogger(__name__)


def failure_of(error: BaseException, video: Video | None = None) -> WatchFailure:
    """The code and the message for an error; one that is not foreseen is logged, and not shown.

    Args:
        error: what was raised.
        video: whose path is replaced by its name.
    """
    if isinstance(error, EngineFailure):
        return WatchFailure(error.code, str(error))
    if isinstance(error, VideoLimitError):
        return WatchFailure(_LIMIT_CODES[error.limit], _without_path(str(error), video))
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return WatchFailure("out_of_memory", _OUT_OF_MEMORY)
    for kind, code in _CODES:
        if isinstance(error, kind):
            return WatchFailure(code, _without_path(str(error), video))
    _log.error("a request failed: %s", error, exc_info=error)
    return WatchFailure("internal", _INTERNAL)


def shown_error(error: BaseException, video: Video | None = None) -> BaseException:
    """The error that a caller of an engine gets; those that are about its question stay what they are."""
    if isinstance(error, EngineFailure | EngineBusy | Cancelled | asyncio.CancelledError):
        return error
    if isinstance(error, InputError | ConfigError):
        message = _without_path(str(error), video)
        return error if message == str(error) else type(error)(message)
    failure = failure_of(error, video)
    return EngineFailure(failure.message, failure.code)


def _without_path(message: str, video: Video | None) -> str:
    if video is None:
        return message
    path = Path(video.path)
    for shown in sorted({video.path, str(path.absolute()), str(path.resolve())} - {"", "."}, key=len, reverse=True):
        message = message.replace(shown, video.name)
    return message.replace(str(path.parent), "...") if path.is_absolute() and len(path.parts) > 2 else message
