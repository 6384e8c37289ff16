"""Picture files that Pillow reads and FFmpeg does not, as videos: animated WebP, and AVIF made of tiles."""

from __future__ import annotations

from bisect import bisect_right
from fractions import Fraction
from itertools import accumulate
from pathlib import Path

from PIL import Image, ImageOps

from hourllava.errors import VideoError
from hourllava.video.layout import tiled_picture_kind, webp_durations_ms
from hourllava.video.picture import PictureArray, check_size, resized
from hourllava.video.source import Source
from hourllava.video.timeline import SampleGrid
from hourllava.video.types import VideoInfo

STILL_MS = 40  # a still lasts one picture at FFmpeg's rate for stills, 25 fps
MIN_ANIMATED_MS, BROWSER_MS = 11, 100  # browsers show a picture with a duration of 10 ms or less for 100 ms


def is_for_pillow(path: Path) -> bool:
    """Whether `PillowVideo` reads this file."""
    return len(webp_durations_ms(path)) > 0 or tiled_picture_kind(path) is not None


class PillowVideo:
    """The pictures of one file, each shown for the duration in the file.

    Args:
        source: The file.

    Raises:
        VideoError: Pillow cannot read it, or it is too large.
    """

    def __init__(self, source: Source):
        self._path = Path(source.location)
        kind = tiled_picture_kind(self._path)
        if kind == "heic":
            raise VideoError(f"{self._path} is an HEIC picture made of tiles, which cannot be read: convert it to JPEG")
        durations = [ms if ms >= MIN_ANIMATED_MS else BROWSER_MS for ms in webp_durations_ms(self._path)] or [STILL_MS]
        self._starts_ms = [0, *accumulate(durations)]
        try:
            self._file = Image.open(self._path)
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise self._unreadable(error) from error
        check_size(*self._file.size, source.location)
        # All pictures of an animation have one size; EXIF can turn stills only.
        width, height = self._file.size if kind is None else ImageOps.exif_transpose(self._file).size
        self.info = VideoInfo(
            path=source.location,
            container="animated WebP" if kind is None else "AVIF of tiles",
            codec="webp" if kind is None else "av1",
            pixel_format=self._file.mode,
            width_pixels=width,
            height_pixels=height,
            duration_seconds=self._starts_ms[-1] / 1000,
            average_fps=1000 * len(durations) / self._starts_ms[-1],
        )

    def samples(self, grid: SampleGrid) -> range:
        """The samples of a grid that lie within the video."""
        return grid.samples_within(Fraction(self._starts_ms[-1], 1000))

    def frame_index(self, grid: SampleGrid, sample: int) -> int:
        """Which picture is on screen at a sample."""
        return min(bisect_right(self._starts_ms, sample / grid.fps * 1000), len(self._starts_ms) - 1) - 1

    def seconds(self, index: int) -> float:
        """When a picture begins."""
        return self._starts_ms[index] / 1000

    def read(self, index: int, size_pixels: tuple[int, int] | None) -> PictureArray:
        """RGB picture, uint8 [H, W, 3], over black.

        Raises:
            VideoError: the picture is damaged.
        """
        try:
            self._file.seek(index)
            picture = ImageOps.exif_transpose(self._file) if len(self._starts_ms) == 2 else self._file
            rgba = picture.convert("RGBA")
        except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
            raise self._unreadable(error) from error
        rgb = Image.alpha_composite(Image.new("RGBA", rgba.size, (0, 0, 0, 255)), rgba).convert("RGB")
        return resized(rgb, size_pixels or (self.info.height_pixels, self.info.width_pixels))

    def _unreadable(self, error: Exception) -> VideoError:
        return VideoError(f"{self._path} cannot be read as a picture: {error}: replace it, or convert it to mp4")
