"""Limits for videos of strangers: how long, how large, and what decoding may take.

    memory = model.watch("upload.mp4", limits=VideoLimits(max_seconds=6 * 3600))

Length and size are compared with the header before anything is decoded but the first picture, and with the frames that
really come, because a header may lie. Limits on memory and time are kept by the kernel, for each decoding process.
"""

from __future__ import annotations

import math
import resource
from dataclasses import dataclass
from typing import Any

from hourllava.errors import VideoLimitError
from hourllava.video.types import VideoInfo


@dataclass(frozen=True)
class VideoLimits:
    """What a video may have and take. None: no limit besides those of the library.

    Attributes:
        max_seconds: of the watched part.
        max_frames: sampled in that part.
        max_pixels: of a picture as displayed; the library's own limit is 67 million.
        max_streams: of the file: pictures, sound, subtitles.
        memory_bytes: address space of each decoding process. An honest 4K video takes less than 2 GiB.
        cpu_seconds: of each decoding process.
    """

    max_seconds: float | None = None
    max_frames: int | None = None
    max_pixels: int | None = None
    max_streams: int | None = None
    memory_bytes: int | None = None
    cpu_seconds: int | None = None

    def check(self, info: VideoInfo, shown: str) -> None:
        """Compare with what a video says of itself.

        Raises:
            VideoLimitError: a picture has too many pixels, or the file too many streams.
        """
        num_pixels = info.width_pixels * info.height_pixels
        if self.max_pixels is not None and num_pixels > self.max_pixels:
            raise VideoLimitError(
                f"{shown} has pictures of {info.width_pixels} x {info.height_pixels} pixels, {self.max_pixels:,} in "
                "all are allowed; scale it down",
                "pixels",
            )
        if self.max_streams is not None and info.num_streams > self.max_streams:
            raise VideoLimitError(
                f"{shown} has {info.num_streams} streams, {self.max_streams} are allowed; keep one of pictures",
                "streams",
            )

    def check_frames(self, num_frames: int, fps: float, shown: str) -> None:
        """Compare with a number of frames, expected or done.

        Raises:
            VideoLimitError: they are too many, or take too long.
        """
        # A frame stands for the time to the next one; the end of a video is rounded.
        if self.max_seconds is not None and num_frames > math.ceil(self.max_seconds * fps) + 1:
            raise VideoLimitError(
                f"{shown} lasts longer than the {self.max_seconds:,.0f} s that are allowed; choose a part of it",
                "seconds",
            )
        if self.max_frames is not None and num_frames > self.max_frames:
            raise VideoLimitError(
                f"{shown} has more frames than the {self.max_frames:,} that are allowed at {fps:g} a second; choose a "
                "part of it, or fewer frames a second",
                "frames",
            )

    def for_child(self) -> dict[str, Any]:
        """The part that a decoding process keeps to."""
        return {"memory_bytes": self.memory_bytes, "cpu_seconds": self.cpu_seconds}


def limit_this_process(limits: dict[str, Any]) -> None:
    """Keep this process to `for_child`; a limit that it has already may be lower."""
    for kind, value in ((resource.RLIMIT_AS, limits["memory_bytes"]), (resource.RLIMIT_CPU, limits["cpu_seconds"])):
        if value is not None:
            _, hard = resource.getrlimit(kind)
            # A second more to the hard limit: at the soft one comes SIGXCPU, which says what happened, not SIGKILL.
            most = value + 1 if hard == resource.RLIM_INFINITY else min(value + 1, hard)
            resource.setrlimit(kind, (min(value, most), most))
