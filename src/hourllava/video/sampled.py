"""Sampled frames of one video in segments of about 60 s, each of which can be decoded alone.

The segments depend on the file and the sample grid only, not on the number of processes: borders every 60 s, moved back
to the last keyframe. A segment is decoded from its keyframe. So nothing is decoded twice, and any number of processes
gives the same frames, also of a damaged file.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import replace

from av.packet import Packet
from av.video.stream import VideoStream

from hourllava.errors import VideoError
from hourllava.video.demuxer import Demuxer
from hourllava.video.screen import Screen, Shown, StartsTooLateError
from hourllava.video.timeline import REORDER_PACKETS, Action, SampleGrid, plan_packets
from hourllava.video.types import Gap, VideoInfo

SEGMENT_SECONDS = 60  # 60 frames of 384x384 are 27 MB, less than a process may be ahead of the reader
BLOCK_PACKETS = 256  # planned at once; with look-ahead more than the 250 of x264's longest group of pictures
BLOCK_BYTES = 16 << 20
MAX_SAMPLES = 1_000_000  # of one reading: 11 days at 1 fps. Only wrong timestamps or a wrong fps give more.
# In these codecs no picture refers to a picture marked as non-reference. HEVC is left out: its sub-layer non-reference
# pictures may serve higher temporal sub-layers. MPEG-4 part 2 is left out: AVI packs two pictures into one packet.
DISPOSABLE_CODECS = frozenset({"h264", "mpeg1video", "mpeg2video"})


class SampledVideo:
    """Samples of one opened video.

    Args:
        demuxer: The opened video.
        grid: The wanted samples.
    """

    def __init__(self, demuxer: Demuxer, grid: SampleGrid):
        self._video = demuxer
        self._clock = demuxer.clock
        self._grid = grid
        self._samples_per_segment = max(1, round(SEGMENT_SECONDS * grid.fps))
        self._skips_disposable = demuxer.codec.name in DISPOSABLE_CODECS and demuxer.codec.field_order in (0, 1)
        self._stop: int | None = grid.stop
        if demuxer.end_pts is not None:
            stop = self._clock.first_sample(grid, demuxer.end_pts)
            self._stop = stop if grid.stop is None else min(stop, grid.stop)
            if self._stop - grid.first > MAX_SAMPLES:
                raise self._too_many()

    @property
    def info(self) -> VideoInfo:
        """What the video is; if its end could be read, the duration is the one found, not the header's."""
        if self._video.end_pts is None:
            return self._video.info
        return replace(self._video.info, duration_seconds=self._clock.seconds(self._video.end_pts))

    @property
    def num_segments(self) -> int:
        """Number of segments; 1 for a video that must be read from its start."""
        if self._stop is None or not self._video.can_seek:
            return 1
        return max(1, -(-(self._stop - self._grid.first) // self._samples_per_segment))

    def segment(self, index: int) -> Iterator[Shown | Gap]:
        """Samples of a segment in order, and the gaps in it."""
        self._last_end_pts = self._video.end_pts
        yield from self._samples_of(index)
        end_pts = self._last_end_pts
        if index + 1 < self.num_segments or end_pts is None:
            return
        if self._grid.stop is None or self._grid.stop > self._clock.first_sample(self._grid, end_pts):
            promised_end_pts = self._video.promised_end_pts(end_pts)
            if promised_end_pts is not None:
                start, end = self._clock.seconds(end_pts), self._clock.seconds(promised_end_pts)
                yield Gap(start, end, "the file was cut short")

    def _too_many(self) -> VideoError:
        return VideoError(
            f"{self._video.source.location} gives more than {MAX_SAMPLES:,} samples at {float(self._grid.fps):g} fps:"
            " its timestamps are wrong, or fps is too high; lower fps, or read a part (start_seconds, end_seconds)"
        )

    def _samples_of(self, index: int) -> Iterator[Shown | Gap]:
        if not self._video.can_seek or self._video.end_pts is None:
            yield from self._read_on()
            return
        assert self._stop is not None
        first, keyframe = self._border(index)
        last = self._stop if index + 1 == self.num_segments else self._border(index + 1)[0]
        first, last = max(first, self._grid.first), min(last, self._stop)
        done = first
        step = round(2 / self._clock.time_base)
        economical = True
        while done < last:
            try:
                for item in self._decode_from(keyframe, done, last, economical):
                    yield item
                    if isinstance(item, Shown):
                        done = item.sample + 1
                return
            except StartsTooLateError:
                # The keyframe is damaged, or is none in truth (gradual refresh, wrong index).
                economical = False
                keyframe, step = self._video.keyframe_before(keyframe - step), step * 4

    def _border(self, index: int) -> tuple[int, int]:
        """First sample of a segment, and the timestamp of the keyframe at its start."""
        nominal = self._grid.first + index * self._samples_per_segment
        keyframe = self._video.keyframe_before(self._clock.pts(self._grid, nominal))
        return (self._clock.first_sample(self._grid, keyframe) if index else self._grid.first), keyframe

    def _decode_from(self, keyframe: int, first: int, last: int, economical: bool) -> Iterator[Shown | Gap]:
        """Samples first <= k < last, decoding from a keyframe."""
        at_start = keyframe <= self._clock.origin_pts
        self._video.seek_keyframe(keyframe)
        screen = Screen(self._video, self._grid, first, last, None if at_start else keyframe)
        last_pts = self._clock.pts(self._grid, last - 1)
        packets = self._planned(keyframe, screen) if economical else ((p, Action.SHOW) for p in self._from(keyframe))
        is_dropping = False
        for packet, action in packets:
            if packet.dts is not None and packet.dts > last_pts:
                break  # later packets are shown later, and no earlier picture refers to them
            if is_dropping and not (packet.is_keyframe and action is not Action.DROP):
                continue
            if action is Action.DROP:
                yield from screen.feed(None)
                is_dropping = True
                continue
            if is_dropping:
                screen.begins_pts = packet.pts
                is_dropping = False
            if self._skips_disposable:
                self._video.codec.skip_frame = "NONREF" if action is Action.REFERENCE else "DEFAULT"
            yield from screen.feed(packet)
        yield from screen.feed(None)
        assert self._video.end_pts is not None
        yield from screen.finish(min(self._video.end_pts, self._clock.pts(self._grid, last)))

    def _from(self, keyframe: int) -> Iterator[Packet[VideoStream]]:
        """Packets from a keyframe on; the seek may have landed before it."""
        packets = self._video.packets()
        if keyframe > self._clock.origin_pts:
            for packet in packets:
                if packet.is_keyframe and packet.pts == keyframe:
                    yield packet
                    break
        yield from packets

    def _planned(self, keyframe: int, screen: Screen) -> Iterator[tuple[Packet[VideoStream], Action]]:
        """Packets from a keyframe on, and what to do with each."""
        packets = self._from(keyframe)
        sight: deque[Packet[VideoStream]] = deque()
        while True:
            num_bytes = sum(packet.size for packet in sight)
            at_end = True
            for packet in packets:
                sight.append(packet)
                num_bytes += packet.size
                if len(sight) >= BLOCK_PACKETS + 2 * REORDER_PACKETS or (
                    num_bytes >= BLOCK_BYTES and len(sight) > 2 * REORDER_PACKETS
                ):
                    at_end = False
                    break
            if not sight:
                return
            count = len(sight) if at_end else len(sight) - REORDER_PACKETS
            latest_pts = max((packet.pts for packet in sight if packet.pts is not None), default=0)
            actions = plan_packets(
                [packet.pts for packet in sight],
                [packet.is_keyframe for packet in sight],
                screen.pending_pts(latest_pts),
                count,
                at_end,
            )
            for action in actions:
                yield sight.popleft(), action

    def _read_on(self) -> Iterator[Shown | Gap]:
        """All samples, decoding from the first frame, for sources that have one segment."""
        last = self._stop if self._stop is not None else 1 << 62
        most = 1 << 62 if self._video.info.is_live else self._grid.first + MAX_SAMPLES
        screen = Screen(self._video, self._grid, self._grid.first, min(last, most), None)
        if self._video.can_seek:  # a file without a known end
            self._video.seek_start()
        else:
            yield from screen.receive(self._video.first_frames)
            self._video.first_frames.clear()
        for packet in self._video.packets():
            yield from screen.feed(packet)
            if screen.is_done:
                break
        else:
            yield from screen.feed(None)
            yield from screen.finish(self._video.end_pts)
            self._last_end_pts = screen.end_pts
        if screen.next_sample >= most:
            raise self._too_many()
