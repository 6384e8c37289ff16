"""What reading a video gives: its description, batches of frames, and the gaps that damage left."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class VideoInfo:
    """What a video is, found by opening it and decoding its first picture.

    `width_pixels` and `height_pixels` are as displayed: after crop, rotation and sample aspect ratio. Three clocks
    exist. Sample times count from the first picture. A player, and so a subtitle file, counts from the earliest stream
    of the file: add `player_offset_seconds`. The container counts from anywhere: add `start_seconds`.
    """

    path: str
    container: str  # FFmpeg's demuxer, such as "mov,mp4,m4a,3gp,3g2,mj2"; "image folder" for a folder of frames
    codec: str
    pixel_format: str
    width_pixels: int
    height_pixels: int
    duration_seconds: float | None  # to the end of the last frame; None while unknown (live, or no seeking possible)
    average_fps: float | None  # from the header: wrong for variable frame rate, never used to time a frame
    rotation_degrees: int = 0  # clockwise, applied to every frame
    sample_aspect_ratio: float = 1.0
    start_seconds: float = 0.0
    transfer: str = "sdr"  # or "pq" or "hlg", which are tone mapped to 8-bit SDR
    timestamps_derived: bool = False  # the file has no timestamps: frames are counted, `average_fps` gives their times
    is_live: bool = False  # cannot be reopened or sought: frames come once, in order, as they arrive
    num_streams: int = 1  # of pictures, sound, subtitles and data
    player_offset_seconds: float = 0.0  # the first picture on the player's clock: 7 if the sound begins 7 s earlier


@dataclass(frozen=True)
class FrameBatch:
    """Consecutive sampled frames: N pictures of H x W pixels.

    Attributes:
        frames: uint8 [N, H, W, 3], RGB.
        sample_seconds: float64 [N], the sample times k / fps, 0 = the first picture.
        timestamps_seconds: float64 [N], presentation time of the picture on screen at that time; repeated if the
            picture stays.
    """

    frames: NDArray[np.uint8]
    sample_seconds: NDArray[np.float64]
    timestamps_seconds: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.sample_seconds)


class Gap(NamedTuple):
    """A stretch without sound pictures, from the damage to the next whole keyframe.

    Its samples show the last picture before it, or the damaged pictures as far as they can be decoded. A gap of length
    0 marks a jump of the file's clock, which costs no picture.
    """

    start_seconds: float
    end_seconds: float
    reason: str


def join_gaps(gaps: Iterable[Gap]) -> tuple[Gap, ...]:
    """Gaps in time order; those that touch are joined."""
    joined: list[Gap] = []
    for gap in sorted(gaps, key=lambda gap: gap.start_seconds):
        if joined and gap.start_seconds <= joined[-1].end_seconds:
            end, reason = max(joined[-1].end_seconds, gap.end_seconds), joined[-1].reason
            reason = reason if gap.reason in reason else f"{reason}; {gap.reason}"
            joined[-1] = Gap(joined[-1].start_seconds, end, reason)
        else:
            joined.append(gap)
    return tuple(joined)
