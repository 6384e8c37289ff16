"""Videos whose pictures can be read in any order: folders, pictures that Pillow reads, files with a registered opener.

Everything else is decoded by FFmpeg (demuxer.py).
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import numpy as np

from hourllava.openers import load_opener, opener_of
from hourllava.video.folder import FrameFolder
from hourllava.video.picture import PictureArray
from hourllava.video.pillow_video import PillowVideo, is_for_pillow
from hourllava.video.source import Source, SourceKind
from hourllava.video.timeline import SampleGrid
from hourllava.video.types import VideoInfo


class DrawnVideo(Protocol):
    """A video whose pictures can be read in any order."""

    info: VideoInfo

    def samples(self, grid: SampleGrid) -> range:
        """The samples of a grid that lie within the video."""
        ...

    def frame_index(self, grid: SampleGrid, sample: int) -> int:
        """Which picture is on screen at a sample."""
        ...

    def seconds(self, index: int) -> float:
        """When a picture begins."""
        ...

    def read(self, index: int, size_pixels: tuple[int, int] | None) -> PictureArray:
        """RGB picture, uint8 [H, W, 3], of this (height, width); None: its own.

        Raises:
            VideoError: the picture is damaged.
        """
        ...


def open_drawn(source: Source, fps: float, folder_fps: float = 1.0) -> DrawnVideo | None:
    """Open a source whose pictures can be read in any order; None for other sources.

    Args:
        source: What to open.
        fps: Samples per second that will be read.
        folder_fps: Pictures per second of a folder of frames.

    Raises:
        VideoError: the source is damaged.
    """
    if source.kind is SourceKind.FOLDER:
        return FrameFolder(source, folder_fps)
    if source.kind is SourceKind.DRAWN:
        video: DrawnVideo = load_opener(source.opener)(source, fps)
        return video
    if source.kind is SourceKind.FILE and is_for_pillow(Path(source.location)):
        return PillowVideo(source)
    return None


def open_registered(path: Path, fps: float) -> DrawnVideo | None:
    """Open a file that has a registered opener; None for other files.

    Raises:
        VideoError: the file is damaged.
    """
    opener = opener_of(path.name)
    return None if opener is None else open_drawn(Source(SourceKind.DRAWN, str(path), opener=opener), fps)


def draw_all(video: DrawnVideo, grid: SampleGrid, size_pixels: tuple[int, int] | None = None) -> PictureArray:
    """Every sampled picture, of this (height, width) or its own: uint8 [T, H, W, 3]."""
    return np.stack([video.read(video.frame_index(grid, sample), size_pixels) for sample in video.samples(grid)])
