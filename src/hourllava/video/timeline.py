"""Which frame is on screen at k / fps, and which packets need not be decoded to know: arithmetic on integers only.

Times are compared in ticks of the stream's time base, the finest its timestamps can tell. A sample falls on the nearest
tick, because the container rounded the frames' times to ticks too: frame 2 of a 3 fps Matroska file is written at
667 ms, and it is the frame at 2/3 s.

`plan_packets` is what makes sampling cheaper than decoding while staying exact. Measured figures: docs/log.md.
"""

from __future__ import annotations

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
