"""A folder of numbered frames read as a video of a given rate."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
from PIL import Image

from hourllava.errors import VideoError
from hourllava.video.picture import PictureArray
from hourllava.video.picture_file import PICTURE_ERRORS, open_picture, upright_rgb
from hourllava.video.source import Source, frame_files
from hourllava.video.timeline import MAX_DENOMINATOR, SampleGrid
from hourllava.video.types import VideoInfo


class FrameFolder:
    """The pictures of a folder, in natural order, each shown for 1 / `folder_fps` seconds.

    Args:
        source: The folder.
        folder_fps: Pictures per second that the folder stands for.

    Raises:
        VideoError: the first picture cannot be read.
    """

    def __init__(self, source: Source, folder_fps: float):
        self._files = frame_files(Path(source.location))
        self._fps = Fraction(folder_fps).limit_denominator(MAX_DENOMINATOR)
        with _open_picture(self._files[0]) as picture:
            width, height = picture.size
            mode = picture.mode
        self.info = VideoInfo(
            path=source.location,
            container="image folder",
            codec=self._files[0].suffix.lower().lstrip("."),
            pixel_format=mode,
            width_pixels=width,
            height_pixels=height,
            rotation_degrees=0,
            sample_aspect_ratio=1.0,
            duration_seconds=float(len(self._files) / self._fps),
            average_fps=float(self._fps),
            start_seconds=0.0,
            transfer="sdr",
            timestamps_derived=True,
            is_live=False,
        )

    def samples(self, grid: SampleGrid) -> range:
        """The samples that fall into the folder's time."""
        stop = -(-len(self._files) * grid.fps // self._fps)
        return range(grid.first, int(stop if grid.stop is None else min(stop, grid.stop)))

    def frame_index(self, grid: SampleGrid, sample: int) -> int:
        """Which picture a sample shows."""
        return min(int(sample / grid.fps * self._fps), len(self._files) - 1)

    def seconds(self, index: int) -> float:
        """Time of a picture."""
        return float(index / self._fps)

    def read(self, index: int, size_pixels: tuple[int, int] | None) -> PictureArray:
        """RGB picture, uint8 [H, W, 3].

        Raises:
            VideoError: the picture is damaged.
        """
        height, width = size_pixels or (self.info.height_pixels, self.info.width_pixels)
        with _open_picture(self._files[index]) as picture:
            if picture.size != (width, height):
                picture = picture.resize((width, height), Image.Resampling.BICUBIC)
            return np.array(picture)


def _open_picture(path: Path) -> Image.Image:
    try:
        with open_picture(path) as file:
            return upright_rgb(file)
    except PICTURE_ERRORS as error:
        reason = " ".join(str(error).split())
        raise VideoError(f"{path} cannot be read as a picture: {reason}; replace or remove it") from error
