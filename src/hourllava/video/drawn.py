"""Videos whose pictures can be had in any order: folders, animated pictures, and all that `openers` knows."""

from pathlib import Path
from typing import Protocol

import numpy as np

from hourllava.openers import load_opener, opener_of
from hourllava.video.picture import PictureArray
from hourllava.video.source import Source, SourceKind
from hourllava.video.timeline import SampleGrid
from hourllava.video.types import VideoInfo


class DrawnVideo(Protocol):
    """A video whose pictures can be had in any order."""

    info: VideoInfo

    def samples(self, grid: SampleGrid) -> range:
        """The samples that fall into the video's time."""
        ...

    def frame_index(self, grid: SampleGrid, sample: int) -> int:
        """Which picture a sample shows."""
        ...

    def seconds(self, index: int) -> float:
        """Time of a picture."""
        ...

    def read(self, index: int, size_pixels: tuple[int, int] | None) -> PictureArray:
        """RGB picture, uint8 [H, W, 3], of this height and width or its own."""
        ...


def open_drawn(path: Path, fps: float) -> DrawnVideo | None:
    """The video behind a file that a registered class opens, here and without a process; None for other files.

    Raises:
        VideoError: the file is damaged.
    """
    opener = opener_of(path.name)
    if opener is None:
        return None
    video: DrawnVideo = load_opener(opener)(Source(SourceKind.DRAWN, str(path), opener=opener), fps)
    return video


def draw_all(video: DrawnVideo, grid: SampleGrid) -> PictureArray:
    """Every sampled picture at its own size: uint8 [T, H, W, 3]."""
    return np.stack([video.read(video.frame_index(grid, sample), None) for sample in video.samples(grid)])
