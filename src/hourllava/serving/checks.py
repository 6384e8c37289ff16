"""What a video is, before it is watched: opened in a process of its own, and compared with the limits."""

import asyncio
import dataclasses
from pathlib import Path

from hourllava.errors import HourLlavaError
from hourllava.serving.errors import api_error, invalid
from hourllava.serving.protocol import Video
from hourllava.serving.settings import ServeSettings
from hourllava.video import VideoInfo, probe
from hourllava.video.formats import CONTAINERS, RAW_STREAMS

PROBES_AT_ONCE = 2
PROBE_SECONDS = 30.0
_ANIMATIONS = ("gif", "apng", "webp_pipe")
_VIDEO_FORMATS = frozenset((*CONTAINERS, *RAW_STREAMS, *_ANIMATIONS))


@dataclasses.dataclass(frozen=True)
class Part:
    """Which part of a video is watched, and how densely; by default all of it, a frame a second."""

    fps: float = 1.0
    start_seconds: float = 0.0
    end_seconds: float | None = None


WHOLE = Part()


class Checks:
    """Opens videos, few at once.

    Args:
        settings: limits.
    """

    def __init__(self, settings: ServeSettings) -> None:
        self._settings = settings
        self._places = asyncio.Semaphore(PROBES_AT_ONCE)

    async def info(self, path: Path, name: str) -> VideoInfo:
        """What a video is.

        Raises:
            ApiError: it is no video that can be read.
        """
        async with self._places:
            try:
                limits = self._settings.video_limits
                info = await asyncio.to_thread(probe, path, timeout_seconds=PROBE_SECONDS, limits=limits)
            except HourLlavaError as error:
                raise api_error(error, Video(str(path), "", name=name)) from error
        if not _VIDEO_FORMATS & set(info.container.split(",")):
            raise invalid(f"{name} is no video but a picture ({info.container})", code="video_unreadable")
        return info

    async def part(self, path: Path, name: str, part: Part) -> Part:
        """The part of a video that is watched, if that is within the limits.

        Raises:
            ApiError: it cannot be read, or is too long.
        """
        settings = self._settings
        if not 0.001 <= part.fps <= settings.max_fps:
            raise invalid(f"fps is {part.fps:g}; use 0.001 to {settings.max_fps:g}", "fps")
        if part.end_seconds is not None and part.end_seconds <= part.start_seconds:
            raise invalid("end_seconds must be after start_seconds", "end_seconds")
        info = await self.info(path, name)
        ends = [] if info.duration_seconds is None else [info.duration_seconds + info.player_offset_seconds]
        ends += [] if part.end_seconds is None else [part.end_seconds]
        if ends and part.start_seconds >= min(ends):
            raise invalid(f"{name} ends before start_seconds ({min(ends):.0f} s)", "start_seconds")
        if not ends:  # the header does not say
            return dataclasses.replace(part, end_seconds=part.start_seconds + settings.max_video_seconds)
        seconds = min(ends) - part.start_seconds
        if seconds > settings.max_video_seconds or seconds * part.fps > settings.max_frames:
            raise invalid(
                f"{name} lasts {seconds:,.0f} s, {seconds * part.fps:,.0f} frames; this server watches at most "
                f"{settings.max_video_seconds:,.0f} s and {settings.max_frames:,} frames: watch a part of it",
                code="video_too_long",
            )
        return part
