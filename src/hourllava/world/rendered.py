"""Reads a MarathonWorld reference (`NAME.world.json`) as a video: frames are drawn when they are requested."""

from __future__ import annotations

import math
from functools import cached_property
from pathlib import Path

import numpy as np
from PIL import Image

from hourllava.video.picture import PictureArray, resized
from hourllava.video.source import Source
from hourllava.video.timeline import SampleGrid
from hourllava.video.types import VideoInfo
from hourllava.world.drawing.render import Frame, Renderer
from hourllava.world.reference import load_reference


class RenderedVideo:
    """The video that a reference stands for; each sample has its own picture.

    Args:
        source: The reference.
        fps: Samples per second of the reader.

    Raises:
        VideoError: the file is no reference.
    """

    def __init__(self, source: Source, fps: float):
        self._reference = reference = load_reference(Path(source.location))
        side = reference.size_pixels
        self._fps = fps
        self._duration_seconds = reference.duration_seconds
        self._resized: tuple[Frame, PictureArray] | None = None  # while nothing moves, frames are the same array
        self.info = VideoInfo(
            path=source.location,
            container="MarathonWorld reference",
            codec="rendered",
            pixel_format="RGB",
            width_pixels=side,
            height_pixels=side,
            rotation_degrees=0,
            sample_aspect_ratio=1.0,
            duration_seconds=float(reference.duration_seconds),
            average_fps=None,
            start_seconds=0.0,
            transfer="sdr",
            timestamps_derived=False,
            is_live=False,
        )

    @cached_property
    def _renderer(self) -> Renderer:  # lazy: often only the length is needed
        return Renderer(self._reference.script(), self._reference.size_pixels)

    def samples(self, grid: SampleGrid) -> range:
        """The samples within the video's duration."""
        stop = math.ceil(self._duration_seconds * grid.fps)
        return range(grid.first, stop if grid.stop is None else min(stop, grid.stop))

    def frame_index(self, grid: SampleGrid, sample: int) -> int:
        """Index of the picture that a sample shows: the sample's own."""
        return sample

    def seconds(self, index: int) -> float:
        """The time of a picture, in seconds."""
        return float(index / self._fps)

    def read(self, index: int, size_pixels: tuple[int, int] | None) -> PictureArray:
        """The RGB picture, uint8 [H, W, 3], at its own or the given size. Reads of equal frames may share an array."""
        frame = self._renderer.frame(self.seconds(index))
        height, width = size_pixels or frame.shape[:2]
        if frame.shape[:2] == (height, width):
            return np.ascontiguousarray(frame)
        if self._resized is None or self._resized[0] is not frame or self._resized[1].shape[:2] != (height, width):
            self._resized = (frame, resized(Image.fromarray(frame), (height, width)))
        return self._resized[1]
