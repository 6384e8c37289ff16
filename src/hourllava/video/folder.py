"""A folder of numbered frames, read as a video of a given rate."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

from PIL import Image

from hourllava.errors import VideoError
from hourllava.video.picture import PictureArray, resized
from hourllava.video.picture_file import PICTURE_ERRORS, open_picture, upright_rgb
from hourllava.video.source import Source, frame_files
from hourllava.video.timeline import MAX_DENOMINATOR, SampleGrid
from hourllava.video.types import VideoInfo


class FrameFolder:
    """The pictures of a folder, in natural order, each shown for 1 / `folder_fps` seconds.

    Args:
        source: The folder.
        folder_fps: Pictures per second.

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
            duration_seconds=float(len(self._files) / self._fps),
            average_fps=float(self._fps),
            timestamps_derived=True,
        )

    def samples(self, grid: SampleGrid) -> range:
        """The samples of a grid that lie within the video."""
        return grid.samples_within(len(self._files) / self._fps)

    def frame_index(self, grid: SampleGrid, sample: int) -> int:
        """Which picture is on screen at a sample."""
        return min(int(sample / grid.fps * self._fps), len(self._files) - 1)

    def seconds(self, index: int) -> float:
        """When a picture begins."""
        return float(index / self._fps)

    def read(self, index: int, size_pixels: tuple[int, int] | None) -> PictureArray:
        """RGB picture, uint8 [H, W, 3].

        Raises:
            VideoError: the picture is damaged.
        """
        with _open_picture(self._files[index]) as picture:
            return resized(picture, size_pixels or (self.info.height_pixels, self.info.width_pixels))


def _open_picture(path: Path) -> Image.Image:
    try:
        with open_picture(path) as file:
            return upright_rgb(file)
    except PICTURE_ERRORS as error:
        reason = " ".join(str(error).split())
        raise VideoError(f"{path} cannot be read as a picture: {reason}; replace or remove it") from error
