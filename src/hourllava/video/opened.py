"""An opened video of any kind, in this process: what it is, and its sampled pictures, segment by segment.

This is all that a decoding process (worker.py) does with a video. Tests and tools may call it directly.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

from hourllava.video.demuxer import Demuxer
from hourllava.video.drawn import DrawnVideo, open_drawn
from hourllava.video.picture import Painter, PictureArray
from hourllava.video.sampled import SampledVideo
from hourllava.video.source import Source
from hourllava.video.timeline import SampleGrid
from hourllava.video.types import Gap, VideoInfo

DRAWN_SEGMENT_SAMPLES = 32


@dataclass(frozen=True)
class SampledFrame:
    """The frame on screen at a sample time.

    Attributes:
        sample_seconds: The sample time k / fps.
        timestamp_seconds: Presentation time of the frame.
        picture: RGB, uint8 [H, W, 3]; None: the same as that of the sample before.
    """

    sample_seconds: float
    timestamp_seconds: float
    picture: PictureArray | None


class OpenedVideo(Protocol):
    """A video whose segments can be read in any order, also by several processes.

    Attributes:
        info: What the video is.
        num_segments: How many segments it has.
        steady_end_pts: For other processes that open the same file: with it they need not search for the end.
    """

    info: VideoInfo
    num_segments: int
    steady_end_pts: int | None

    def segment(self, index: int) -> Iterator[SampledFrame | Gap]:
        """Frames of a segment in order, and the gaps in it; the first frame has a picture."""
        ...


def open_video(
    source: Source,
    grid: SampleGrid,
    size_pixels: tuple[int, int] | None = None,
    *,
    folder_fps: float = 1.0,
    heartbeat: Callable[[], None] = lambda: None,
    steady_end_pts: int | None = None,
) -> OpenedVideo:
    """Open a video of any kind.

    Args:
        source: What to open.
        grid: The wanted samples.
        size_pixels: (height, width) of the pictures; None as displayed.
        folder_fps: Pictures per second of a folder of frames.
        heartbeat: Called for every packet, to show that this process is alive.
        steady_end_pts: That of another `OpenedVideo` of the same file; None: find out.

    Raises:
        VideoError: it cannot be opened, or holds no picture.
    """
    drawn = open_drawn(source, float(grid.fps), folder_fps)
    if drawn is not None:
        return _Drawn(drawn, grid, size_pixels)
    return _Decoded(Demuxer(source, heartbeat, steady_end_pts), grid, size_pixels)


class _Drawn:
    def __init__(self, video: DrawnVideo, grid: SampleGrid, size_pixels: tuple[int, int] | None):
        self._video, self._grid, self._size_pixels = video, grid, size_pixels
        self._samples = video.samples(grid)
        self.info = video.info
        self.num_segments = -(-len(self._samples) // DRAWN_SEGMENT_SAMPLES)
        self.steady_end_pts: int | None = None

    def segment(self, index: int) -> Iterator[SampledFrame | Gap]:
        last_frame = None
        for sample in self._samples[index * DRAWN_SEGMENT_SAMPLES : (index + 1) * DRAWN_SEGMENT_SAMPLES]:
            frame = self._video.frame_index(self._grid, sample)
            picture = self._video.read(frame, self._size_pixels) if frame != last_frame else None
            last_frame = frame
            yield SampledFrame(self._grid.seconds(sample), self._video.seconds(frame), picture)


class _Decoded:
    def __init__(self, video: Demuxer, grid: SampleGrid, size_pixels: tuple[int, int] | None):
        self._samples, self._grid = SampledVideo(video, grid), grid
        self.info = self._samples.info
        self.num_segments = self._samples.num_segments
        self.steady_end_pts = video.end_pts if video.can_seek else None
        height, width = size_pixels or (self.info.height_pixels, self.info.width_pixels)
        self._painter = Painter(width, height, video.crop)

    def segment(self, index: int) -> Iterator[SampledFrame | Gap]:
        last_frame = None
        for item in self._samples.segment(index):
            if isinstance(item, Gap):
                yield item
                continue
            picture = self._painter.paint(item.frame) if item.frame is not last_frame else None
            last_frame = item.frame
            yield SampledFrame(self._grid.seconds(item.sample), item.seconds, picture)
