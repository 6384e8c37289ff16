"""Decoded frames to samples: which frame is on screen at each sample time, and where damage cost pictures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import av
from av.packet import Packet
from av.video.frame import PictureType, VideoFrame
from av.video.stream import VideoStream

from hourllava.video.demuxer import Demuxer
from hourllava.video.timeline import SampleGrid
from hourllava.video.types import Gap


@dataclass(frozen=True)
class Shown:
    """A sample and the frame on screen then."""

    sample: int
    frame: VideoFrame
    seconds: float  # presentation time of the frame


class StartsTooLateError(Exception):
    """Decoding from this keyframe gives incomplete pictures: begin further back."""


class Screen:
    """Feeds packets to the decoder and gives the samples first <= k < last as soon as each is certain.

    A sample is certain once the decoder has given a later frame. Samples before the first frame show the first frame.

    Args:
        video: The opened video.
        grid: The sample times.
        first: First wanted sample.
        last: One behind the last wanted sample.
        begins_pts: Timestamp of the keyframe that is fed first; None at the start of the video, where any frame may
            come first.
    """

    def __init__(self, video: Demuxer, grid: SampleGrid, first: int, last: int, begins_pts: int | None):
        self._video, self._clock, self._grid = video, video.clock, grid
        self._next, self._last = first, last
        self._first_pts = self._next_pts = self._clock.pts(grid, first)
        # Decoding must start with an intra frame at this time; otherwise the next frames are incomplete.
        self.begins_pts = begins_pts
        self._frame: VideoFrame | None = None
        self._frame_pts = self._clock.origin_pts if begins_pts is None else begins_pts
        self._packet_pts: int | None = None
        self._num_frames = 0
        self._damaged_reads = video.damaged_reads
        self._num_jumps = 0
        self.end_pts: int | None = None  # where the display of the last picture ends; set by finish()
        self._gap: tuple[int, str] | None = None  # start and reason

    @property
    def is_done(self) -> bool:
        """Whether all samples have been given."""
        return self._next >= self._last

    @property
    def next_sample(self) -> int:
        """The next sample to be given."""
        return self._next

    def pending_pts(self, until_pts: int) -> list[int]:
        """Timestamps of the samples that are still to be given, up to the first at or after `until_pts`."""
        pending: list[int] = []
        for sample in range(self._next, self._last):
            pending.append(self._clock.pts(self._grid, sample))
            if pending[-1] >= until_pts:
                break
        return pending

    def feed(self, packet: Packet[VideoStream] | None) -> Iterator[Shown | Gap]:
        """Decode a packet (None: the frames that the decoder still holds) and give the samples that became certain."""
        if packet is not None:
            if self._video.damaged_reads > self._damaged_reads:
                self._damaged_reads = self._video.damaged_reads
                self._damage(self._packet_pts, "unreadable data")
            yield from self._new_jumps()
            if packet.pts is not None:
                self._packet_pts = packet.pts
            if packet.is_corrupt:
                self._damage(packet.pts, "lost data")
        try:
            frames = self._video.decode(packet)
        except MemoryError:  # FFmpeg's is an FFmpegError too
            raise
        except av.FFmpegError:
            self._damage(packet.pts if packet is not None else None, "damaged picture")
            return
        yield from self.receive(frames)

    def receive(self, frames: Sequence[VideoFrame]) -> Iterator[Shown | Gap]:
        """Take frames in presentation order and give the samples that became certain."""
        for frame in frames:
            pts = self._pts(frame)
            if self._frame is not None and pts <= self._frame_pts:
                if pts < self._frame_pts:  # too little for a jump of the clock
                    self._damage(self._frame_pts, "pictures out of order")
                continue  # the picture on screen stays
            if self.begins_pts is not None and pts >= self.begins_pts:
                if pts > self.begins_pts or frame.pict_type != PictureType.I:
                    raise StartsTooLateError
                self.begins_pts = None
            if frame.is_corrupt:
                self._damage(pts, "damaged picture")
            elif self._gap is not None and frame.key_frame and pts > self._gap[0]:
                yield self._close_gap(pts)
            if self._frame is not None:
                yield from self._give_until(pts)
            self._frame, self._frame_pts = frame, pts

    def finish(self, end_pts: int | None) -> Iterator[Shown | Gap]:
        """After the last packet: show the last frame until the end (None: for its own duration)."""
        yield from self._new_jumps()
        if self._frame is None:
            if self.begins_pts is not None:
                raise StartsTooLateError
            return
        if end_pts is None:
            end_pts = self._frame_pts + (self._frame.duration or self._video.frame_ticks)
            self._last = min(self._last, max(1, self._clock.first_sample(self._grid, end_pts)))
        if self._gap is not None:
            yield self._close_gap(max(end_pts, self._gap[0] + self._video.frame_ticks))
        self.end_pts = end_pts
        yield from self._give_until(None)

    def _give_until(self, pts: int | None) -> Iterator[Shown]:
        assert self._frame is not None
        while self._next < self._last and (pts is None or self._next_pts < pts):
            yield Shown(self._next, self._frame, self._clock.seconds(self._frame_pts))
            self._next += 1
            self._next_pts = self._clock.pts(self._grid, self._next)

    def _pts(self, frame: VideoFrame) -> int:
        self._num_frames += 1
        pts = frame.pts if frame.pts is not None else frame.dts
        if pts is not None and not self._video.timestamps_derived:
            return pts
        if self._video.timestamps_derived:
            return self._video.derived_pts(self._num_frames - 1)
        return self._frame_pts + self._video.frame_ticks

    def _new_jumps(self) -> Iterator[Gap]:
        """A gap of length 0 for every jump of the clock: no picture is lost, but the times are not the file's."""
        for jump in self._video.jumps[self._num_jumps :]:
            self._num_jumps += 1
            if jump.at_pts >= self._first_pts:
                seconds = self._clock.seconds(jump.at_pts)
                change = float(jump.ticks * self._clock.time_base)
                yield Gap(seconds, seconds, f"the file's clock jumps by {change:+.1f} s, time is counted on")

    def _damage(self, pts: int | None, reason: str) -> None:
        start = pts if pts is not None else self._frame_pts
        if self._gap is None:
            self._gap = (start, reason)
        elif start < self._gap[0]:
            self._gap = (start, self._gap[1])

    def _close_gap(self, end_pts: int) -> Gap:
        assert self._gap is not None
        start, reason = self._gap
        self._gap = None
        return Gap(self._clock.seconds(start), self._clock.seconds(end_pts), reason)
