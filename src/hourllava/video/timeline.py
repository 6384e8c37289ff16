"""Which frame is on screen at k / fps, and which packets need no decoding to show it: arithmetic on integers.

Times are compared in ticks of the stream's time base. A sample falls on the nearest tick, because the container rounded
the frames' times to ticks too: a 3 fps Matroska file stores frame 2 at 667 ms, and it is the frame at 2/3 s.

`plan_packets` makes sampling cheaper than decoding everything, with the same frames. Figures:
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

MAX_DENOMINATOR = 1_000_000  # floats such as 29.97 or 0.1 stand for the decimal fraction that was written
REORDER_PACKETS = 32  # H.264 and HEVC reorder at most 16 frames, here counted as 32 fields
MIN_DROPPED_PACKETS = 8  # restarting the decoder for fewer gains nothing
DTS_BACK_SECONDS = 0.1  # decoding times never go back; this is FFmpeg's tolerance
BACK_SECONDS = 10  # a clock that goes back by more has jumped: no reordering of pictures is so deep
# A keyframe is shown after all pictures before it. Files that mark B pictures as keyframes are off by less than this.
KEYFRAME_BACK_FRAMES = 4


@dataclass(frozen=True)
class SampleGrid:
    """The sample times k / fps with first <= k < stop; `stop` None: to the end of the video."""

    fps: Fraction
    first: int
    stop: int | None

    @classmethod
    def of(cls, fps: float, start_seconds: float = 0.0, end_seconds: float | None = None) -> SampleGrid:
        """Grid of the samples k / fps in [start_seconds, end_seconds); k counts from time 0, not from the start.

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

    def samples_within(self, duration_seconds: Fraction) -> range:
        """The samples within a video of this length."""
        stop = ceil(duration_seconds * self.fps)
        return range(self.first, stop if self.stop is None else min(stop, self.stop))

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
        half_ticks = Fraction(2 * (pts - self.origin_pts) - 1, 2)  # the earliest time that rounds to `pts`
        return max(0, ceil(half_ticks * self.time_base * grid.fps))

    def seconds(self, pts: int) -> float:
        """Time of a timestamp in seconds; 0 = the first picture."""
        return float((pts - self.origin_pts) * self.time_base)


@dataclass(frozen=True)
class Jump:
    """A place where a file's clock restarts or jumps."""

    at_pts: int  # mapped time at which the last picture before it ends and the first one after it begins
    ticks: int  # by how much the file's clock moves; negative: back


class ClockMap:
    """Maps a file's clock, which may restart or jump, to one that runs on; packet by packet in decoding order.

    The first picture after a jump is shown when the display of the last one before it ends, as FFmpeg's tools do.

    Args:
        time_base: Seconds of a tick.
        frame_ticks: How long a picture lasts if its packet has no duration.
        max_hole_seconds: A clock that goes forward by more than this without a picture has jumped.
        ends_by_dts: Compute the end from decoding times. Needed for MPEG-1 and 2: FFmpeg derives the presentation time
            of the last packet before a jump from the packets after it.

    Attributes:
        offset_ticks: To be added to the timestamps of the latest packet.
        end_pts: Mapped time at which the display of the latest picture ends; None before the first.
        num_packets: How many packets were added.
        jumps: The jumps so far.
        corrections: Packet number -> mapped time, for pictures whose own time lies behind the jump that follows them.
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
        """Begin a section of the file after a jump of the clock. Times within a section are the file's own."""
        self._latest_pts: int | None = None
        self._latest_packet = 0
        self._latest_dts: int | None = None
        self._delay_ticks = 0  # of the section's first picture, from decoding to display
        self._recent: list[int] = []  # heap of the latest timestamps

    def add(self, pts: int | None, dts: int | None, duration_ticks: int | None, is_key: bool) -> None:
        """Add the next packet; `dts` is None if the file has no decoding times of its own."""
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
        # Earlier than all of the latest 32 pictures: no decoder may reorder that much.
        is_out_of_reach = len(self._recent) == REORDER_PACKETS and pts < self._recent[0]
        is_early_key = is_key and back_ticks > KEYFRAME_BACK_FRAMES * self._frame_ticks
        return is_out_of_reach or is_early_key or back_ticks > self._back_ticks


class Slots:
    """When the pictures of an AVI are shown.

    An AVI gives every packet a slot in decoding order; an empty packet repeats a picture. So the pictures, in the order
    in which they are shown, take the slots of the packets for which the decoder gives them.

    Args:
        slots: Times of the packets that are not empty, in ticks.
        delay_packets: Packets that the decoder takes before it gives the first picture.
        frame_ticks: How long a picture lasts according to the header.
    """

    def __init__(self, slots: Sequence[int], delay_packets: int, frame_ticks: int):
        self._slots = slots
        self._delay = min(delay_packets, len(slots) - 1)
        self._rhythm_ticks = slots[-1] - slots[-2] if len(slots) > 1 else frame_ticks

    def ticks(self, number: int) -> int:
        """When the `number`-th picture is shown; 0 = the first."""
        # The decoder gives the last pictures after the last packet: they follow in the rhythm of the last two slots.
        beyond = max(0, number + self._delay - len(self._slots) + 1)
        slot = self._slots[number + self._delay - beyond] + beyond * self._rhythm_ticks
        return slot - self._slots[self._delay]


class Action(IntEnum):
    """What to do with a packet."""

    SHOW = 0  # decode: a sample may show it
    REFERENCE = 1  # decode if a picture may refer to it
    DROP = 2  # no sample shows it or a picture that refers to it: the decoder restarts at the next keyframe


def plan_packets(
    pts: Sequence[int | None], is_key: Sequence[bool], sample_pts: Sequence[int], count: int, at_end: bool
) -> list[Action]:
    """Decide what to do with the first `count` packets in decoding order; the others are look-ahead.

    A packet must be shown if a sample falls between its timestamp and the next later timestamp. A look-ahead that is
    too short makes "next" too late: then too many packets are decoded, never too few.

    Args:
        pts: Timestamps; if one is missing (None), every packet is decoded.
        is_key: Whether decoding can begin at the packet.
        sample_pts: Timestamps of the samples still to be shown, rising.
        count: How many packets to decide on.
        at_end: No packet follows these.
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

    # After the last shown packet of a group of pictures, no packet is needed up to the next keyframe. An open group is
    # an exception: pictures behind that keyframe are displayed before it and may refer across it.
    unneeded_from = 0
    for i, value in enumerate(known):
        if is_key[i] and i - unneeded_from >= MIN_DROPPED_PACKETS:
            following = known[i + 1 : i + 1 + REORDER_PACKETS]
            is_known = at_end or len(following) == REORDER_PACKETS
            if is_known and all(later >= value for later in following):
                actions[unneeded_from:i] = [Action.DROP] * (i - unneeded_from)
        if actions[i] is Action.SHOW:
            unneeded_from = i + 1
    return actions[:count]
