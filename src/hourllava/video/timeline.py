"""Which frame is on screen at k / fps, and which packets need not be decoded to know: arithmetic on integers only.

Times are compared in ticks of the stream's time base, the finest its timestamps can tell. A sample falls on the nearest
tick, because the container rounded the frames' times to ticks too: frame 2 of a 3 fps Matroska file is written at
667 ms, and it is the frame at 2/3 s.

`plan_packets` is what makes sampling cheaper than decoding while staying exact. Figures:
docs/experiments.md#2026-11-22-skipping-what-need-not-be-decoded-kept.
"""

from __future__ import annotations

import heapq
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from fractions import Fraction
from math import ceil

from hourllava.errors import ConfigError

MAX_DENOMINATOR = 1_000_000  # floats such as 29.97 or 0.1 mean the decimal fraction they were written as
REORDER_PACKETS = 32  # H.264 and HEVC reorder at most 16 frames, here counted as 32 fields
MIN_DROPPED_PACKETS = 8  # restarting the decoder for less gains nothing
DTS_BACK_SECONDS = 0.1  # decoding times never go back; FFmpeg's own tolerance
BACK_SECONDS = 10  # no reordering of pictures is this deep: a clock that goes back by more has jumped
KEYFRAME_BACK_FRAMES = 4  # a keyframe is shown after all before it; files that call B pictures keyframes err by less


@dataclass(frozen=True)
class SampleGrid:
    """The sample times k / fps with first <= k < stop; `stop` None means to the end of the video."""

    fps: Fraction
    first: int
    stop: int | None

    @classmethod
    def of(cls, fps: float, start_seconds: float = 0.0, end_seconds: float | None = None) -> SampleGrid:
        """Grid of the samples k / fps in [start_seconds, end_seconds); always anchored at 0, whatever the start.

        Raises:
            ConfigError: `fps` is not in (0, 1000], or the times are negative or out of order.
        """
        if not 0 < fps <= 1000:
            raise ConfigError(f"fps is {fps}, it must be above 0 and at most 1000: give frames per second, such as 1")
        if not 0 <= start_seconds < float("inf"):
            raise ConfigError(f"start_seconds is {start_seconds}, it must be 0 or more: count from the first picture")
        if end_seconds is not None and not start_seconds <= end_seconds < float("inf"):
            raise ConfigError(f"end_seconds is {end_seconds}, it must not be before start_seconds ({start_seconds})")
        rate = max(Fraction(fps).limit_denominator(MAX_DENOMINATOR), Fraction(1, MAX_DENOMINATOR))
        first = ceil(Fraction(start_seconds).limit_denominator(MAX_DENOMINATOR) * rate)
        stop = None
        if end_seconds is not None:
            stop = ceil(Fraction(end_seconds).limit_denominator(MAX_DENOMINATOR) * rate)
        return cls(rate, first, stop)

    def seconds(self, sample: int) -> float:
        """Time of a sample in seconds."""
        return float(sample / self.fps)


@dataclass(frozen=True)
class Clock:
    """Converts between samples, seconds and the stream's timestamps (pts, in ticks of `time_base` seconds)."""

    time_base: Fraction
    origin_pts: int  # of the first picture: time 0

    def pts(self, grid: SampleGrid, sample: int) -> int:
        """Timestamp of a sample, rounded to the nearest tick."""
        ticks = sample / grid.fps / self.time_base
        return self.origin_pts + (2 * ticks.numerator + ticks.denominator) // (2 * ticks.denominator)

    def first_sample(self, grid: SampleGrid, pts: int) -> int:
        """The first sample (of those >= 0) at or after a timestamp."""
        half_ticks = Fraction(2 * (pts - self.origin_pts) - 1, 2)  # what rounds up to `pts`
        return max(0, ceil(half_ticks * self.time_base * grid.fps))

    def seconds(self, pts: int) -> float:
        """Time of a timestamp in seconds; 0 = the first picture."""
        return float((pts - self.origin_pts) * self.time_base)


@dataclass(frozen=True)
class Jump:
    """A place where a file's clock restarts or jumps."""

    at_pts: int  # mapped: where the last picture before it ends and the first one after it begins
    ticks: int  # how far the file's clock moves there; negative: back


class ClockMap:
    """Carries timestamps over the places where a file's clock restarts or jumps, packet by packet in decoding order.

    What follows a jump is shown where the display of the last picture before it ends, as FFmpeg's own tools do.

    Args:
        time_base: Seconds of a tick.
        frame_ticks: How long a picture lasts if its packet does not say.
        max_hole_seconds: A clock that goes forward by more, without a picture, has jumped.
        ends_by_dts: FFmpeg made the presentation time of the last packet before a jump from what follows the jump
            (MPEG-1 and 2), so that the end is reckoned from decoding times.

    Attributes:
        offset_ticks: What to add to the timestamps of the packet looked at last.
        end_pts: Mapped time at which the display of the latest picture ends; None before the first.
        num_packets: How many packets were looked at.
        jumps: The jumps met so far.
        corrections: Mapped times, by number of the packet, of pictures that would be shown behind a jump they precede.
    """

    def __init__(self, time_base: Fraction, frame_ticks: int, max_hole_seconds: float, ends_by_dts: bool = False):
        self.offset_ticks = 0
        self.end_pts: int | None = None
        self.num_packets = 0
        self.jumps: list[Jump] = []
        self.corrections: dict[int, int] = {}
        self._frame_ticks = frame_ticks
        self._hole_ticks = max(round(max_hole_seconds / time_base), 4 * frame_ticks)
        self._back_ticks = max(round(BACK_SECONDS / time_base), REORDER_PACKETS * frame_ticks)
        self._dts_back_ticks = max(round(DTS_BACK_SECONDS / time_base), frame_ticks)
        self._ends_by_dts = ends_by_dts
        self._begin()

    def _begin(self) -> None:
        """Forget the section before a jump. Times of a section are as the file has them."""
        self._latest_pts: int | None = None
        self._latest_packet = 0
        self._latest_dts: int | None = None
        self._delay_ticks = 0  # of the section's first picture, from decoding to showing
        self._recent: list[int] = []  # heap of the latest timestamps

    def add(self, pts: int | None, dts: int | None, duration_ticks: int | None, is_key: bool) -> None:
        """Look at the next packet; `dts` None where the file has no decoding times of its own."""
        self.num_packets += 1
        ticks = duration_ticks or self._frame_ticks
        if self.end_pts is not None and self._jumps_to(pts, dts, is_key):
            to_pts = pts if pts is not None else dts
            assert to_pts is not None
            self.jumps.append(Jump(self.end_pts, to_pts + self.offset_ticks - self.end_pts))
            if self._latest_pts is not None and self._latest_pts + self.offset_ticks >= self.end_pts:
                self.corrections[self._latest_packet] = self.end_pts - ticks
            self.offset_ticks = self.end_pts - to_pts
            self._begin()
        if pts is None:
            if self._latest_pts is not None:
                self._latest_pts += ticks
                self.end_pts = self._latest_pts + self.offset_ticks + ticks
            if self._latest_dts is not None:
                self._latest_dts += ticks
            return
        step = duration_ticks or (pts - self._latest_pts if self._latest_pts is not None else 0) or self._frame_ticks
        if self._latest_dts is None and dts is not None:
            self._delay_ticks = pts - dts
        if self._latest_pts is None or pts > self._latest_pts:
            self._latest_pts, self._latest_packet = pts, self.num_packets - 1
            if dts is None or not self._ends_by_dts:
                self.end_pts = pts + self.offset_ticks + step
        if dts is not None:
            self._latest_dts = dts
            if self._ends_by_dts:
                self.end_pts = dts + self._delay_ticks + self.offset_ticks + ticks
        heapq.heappush(self._recent, pts)
        if len(self._recent) > REORDER_PACKETS:
            heapq.heappop(self._recent)

    def _jumps_to(self, pts: int | None, dts: int | None, is_key: bool) -> bool:
        assert self.end_pts is not None
        if dts is not None and self._latest_dts is not None:
            forward_ticks = dts - self._latest_dts
            return forward_ticks > self._hole_ticks or -forward_ticks > self._dts_back_ticks
        if pts is None or self._latest_pts is None:
            return False
        if pts + self.offset_ticks - self.end_pts > self._hole_ticks:
            return True
        back_ticks = self._latest_pts - pts
        # A picture cannot be shown before one that more pictures than a decoder may reorder are shown after.
        is_out_of_reach = len(self._recent) == REORDER_PACKETS and pts < self._recent[0]
        is_early_key = is_key and back_ticks > KEYFRAME_BACK_FRAMES * self._frame_ticks
        return is_out_of_reach or is_early_key or back_ticks > self._back_ticks


class Action(IntEnum):
    """What to do with a packet."""

    SHOW = 0  # decode: a sample may show it
    REFERENCE = 1  # decode unless nothing refers to it
    DROP = 2  # neither shown nor referred to by anything shown: the decoder restarts at the next keyframe


def plan_packets(
    pts: Sequence[int | None], is_key: Sequence[bool], sample_pts: Sequence[int], count: int, at_end: bool
) -> list[Action]:
    """Decide what to do with the first `count` packets of a run in decoding order; the others are only looked at.

    A packet must be shown if a sample falls between its timestamp and the next later one in sight. Not seeing far
    enough makes "next" too late, so that too much is decoded, never too little.

    Args:
        pts: Timestamps; a missing one (None) turns all economy off.
        is_key: Whether decoding can begin at the packet.
        sample_pts: Timestamps of the samples still to be shown, rising.
        count: How many packets to decide on.
        at_end: No packet follows those in sight.
    """
    known = [value for value in pts if value is not None]
    if len(known) < len(pts):
        return [Action.SHOW] * count
    ordered = sorted(set(known))
    shown: set[int] = set()
    for i, value in enumerate(ordered):
        nearest = bisect_left(sample_pts, value)
        is_last = i + 1 == len(ordered)
        if nearest < len(sample_pts) and (is_last or sample_pts[nearest] < ordered[i + 1]):
            shown.add(value)
    actions = [Action.SHOW if value in shown else Action.REFERENCE for value in known]

    # Behind the last shown packet of a group of pictures, nothing is needed up to the next keyframe - unless pictures
    # that follow that keyframe are displayed before it (open group of pictures): those may refer across it.
    unneeded_from = 0
    for i, value in enumerate(known):
        if is_key[i] and i - unneeded_from >= MIN_DROPPED_PACKETS:
            following = known[i + 1 : i + 1 + REORDER_PACKETS]
            in_sight = at_end or len(following) == REORDER_PACKETS
            if in_sight and all(later >= value for later in following):
                actions[unneeded_from:i] = [Action.DROP] * (i - unneeded_from)
        if actions[i] is Action.SHOW:
            unneeded_from = i + 1
    return actions[:count]
