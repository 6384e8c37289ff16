"""Reading a video in this process as a decoding process does; starting such a process takes half a second."""

import os
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hourllava.video.opened import OpenedVideo, open_video
from hourllava.video.source import resolve_source
from hourllava.video.timeline import SampleGrid
from hourllava.video.types import Gap, VideoInfo, join_gaps
from video.clips import number_of


@dataclass
class Reading:
    """Everything read from a video."""

    info: VideoInfo
    frames: list[NDArray[np.uint8]]
    sample_seconds: list[float]
    timestamps: list[float]
    gaps: tuple[Gap, ...]

    @property
    def numbers(self) -> list[int]:
        """The numbers that the frames show."""
        return [number_of(frame) for frame in self.frames]


def open_here(
    source: str | os.PathLike[str],
    fps: float = 1.0,
    start_seconds: float = 0.0,
    end_seconds: float | None = None,
    *,
    size_pixels: tuple[int, int] | None = None,
    folder_fps: float = 1.0,
    steady_end_pts: int | None = None,
    **allowed: bool,
) -> OpenedVideo:
    """Open a video as a decoding process does; the arguments are those of `read_frames`."""
    return open_video(
        resolve_source(source, **allowed),
        SampleGrid.of(fps, start_seconds, end_seconds),
        size_pixels,
        folder_fps=folder_fps,
        steady_end_pts=steady_end_pts,
    )


def read_here(
    source: str | os.PathLike[str],
    fps: float = 1.0,
    start_seconds: float = 0.0,
    end_seconds: float | None = None,
    *,
    num_readers: int = 1,
    **options: Any,
) -> Reading:
    """Read a video as `read_frames` does, with `num_readers` opened videos in place of processes."""
    times = (fps, start_seconds, end_seconds)
    videos = [open_here(source, *times, **options)]
    options["steady_end_pts"] = videos[0].steady_end_pts
    videos += [open_here(source, *times, **options) for _ in range(num_readers - 1)]
    items = [i for index in range(videos[0].num_segments) for i in videos[index % num_readers].segment(index)]
    samples = [item for item in items if not isinstance(item, Gap)]
    frames: list[NDArray[np.uint8]] = []
    for sample in samples:
        frames.append(frames[-1] if sample.picture is None else sample.picture)
    return Reading(
        videos[0].info,
        frames,
        [sample.sample_seconds for sample in samples],
        [sample.timestamp_seconds for sample in samples],
        join_gaps(item for item in items if isinstance(item, Gap)),
    )
