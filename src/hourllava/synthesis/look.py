"""Looks at a video once, small: where it is cut, and in which clips nothing changes.

One small frame a second does. A cut changes the colours of the whole picture at once; its place is known to a second,
which is enough to move the bound of an event there. A clip is unchanged if no block of the picture differs from the end
of the clip before: a slide that stays, or a test card. It needs no caption of its own.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hourllava.video.reader import read_frames

SIDE_PIXELS = 48
BLOCKS = 8  # along a side
STILL_LEVEL = 4.0  # of 255: mean difference of a block that counts as noise
CUT_SHARE = 0.35  # of the picture whose colour bin changes
CUT_FACTOR = 3.0  # times the usual change around it
_BINS = 4  # of each colour channel
_AROUND = 5  # seconds before and after that are usual


@dataclass(frozen=True)
class Seen:
    """What was seen of a video, one frame a second.

    Attributes:
        seconds: float64 [N], from the first picture.
        blocks: float32 [N, 8, 8, 3], mean colour of the blocks.
        colours: float32 [N, 64], shares of the colour bins.
    """

    seconds: NDArray[np.float64]
    blocks: NDArray[np.float32]
    colours: NDArray[np.float32]


def look_at(video: Path) -> Seen:
    """Read a video at one small frame a second.

    Raises:
        VideoError: it cannot be read.
    """
    seconds, blocks, colours = [], [], []
    with read_frames(video, fps=1.0, size_pixels=(SIDE_PIXELS, SIDE_PIXELS)) as reader:
        for batch in reader:
            seconds.append(batch.sample_seconds)
            blocks.append(_blocks(batch.frames))
            colours.append(_colours(batch.frames))
    return Seen(np.concatenate(seconds), np.concatenate(blocks), np.concatenate(colours))


def find_cuts(seen: Seen) -> list[float]:
    """Seconds of the frames before which the picture is cut."""
    changes = np.abs(np.diff(seen.colours, axis=0)).sum(1) / 2  # [N - 1]
    cuts = []
    for k, change in enumerate(changes):
        around = np.delete(changes[max(0, k - _AROUND) : k + _AROUND + 1], min(k, _AROUND))
        usual = float(np.median(around)) if len(around) else 0.0
        if change >= CUT_SHARE and change >= CUT_FACTOR * usual:
            cuts.append(float(seen.seconds[k + 1]))
    return cuts


def find_unchanged(seen: Seen, spans: Sequence[tuple[float, float]]) -> list[int]:
    """Numbers of the clips in which every frame looks like the last frame of the clip before."""
    found = []
    for number, ((_, before_end), (start, end)) in enumerate(pairwise(spans), 1):
        inside = (seen.seconds >= start) & (seen.seconds < end)
        before = np.searchsorted(seen.seconds, before_end) - 1
        if not inside.any() or before < 0:
            continue
        differences = np.abs(seen.blocks[inside] - seen.blocks[before]).mean(-1)
        if differences.max() < STILL_LEVEL:
            found.append(number)
    return found


def _blocks(frames: NDArray[np.uint8]) -> NDArray[np.float32]:
    side = SIDE_PIXELS // BLOCKS
    parts = frames.reshape(len(frames), BLOCKS, side, BLOCKS, side, 3)
    return np.asarray(parts.mean((2, 4)), dtype=np.float32)


def _colours(frames: NDArray[np.uint8]) -> NDArray[np.float32]:
    bins = (frames // (256 // _BINS)).astype(np.int64) @ np.array([_BINS * _BINS, _BINS, 1])
    counts = np.stack([np.bincount(each.ravel(), minlength=_BINS**3) for each in bins])
    return np.asarray(counts / counts.sum(1, keepdims=True), dtype=np.float32)
