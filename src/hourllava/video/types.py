"""What reading a video gives: its description, batches of frames, and the gaps that damage left."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class VideoInfo:
    """What a video is, as found by opening it, never by trusting its header alone.

    `width_pixels` and `height_pixels` are as displayed: after crop, rotation and sample aspect ratio. Three clocks tell
    the time of a picture. Sample times count from the first picture. A player, and so a subtitle file, counts from the
    earliest stream of the file: add `player_offset_seconds`. The container counts from anywhere: add `start_seconds`.
    """

    path: str
    container: str  # FFmpeg's demuxer, such as "mov,mp4,m4a,3gp,3g2,mj2"; "image folder" for a folder of frames
    codec: str
    pixel_format: str
    width_pixels: int
    height_pixels: int
    rotation_degrees: int  # clockwise, applied to every frame
    sample_aspect_ratio: float
    duration_seconds: float | None  # to the end of the last frame; None while unknown (live, or no seeking possible)
    average_fps: float | None  # the header's claim: wrong for variable frame rate, never used to time a frame
    start_seconds: float
    transfer: str  # "sdr", "pq" or "hlg"; the last two are tone mapped to 8-bit SDR
    timestamps_derived: bool  # the file has no timestamps: frames are counted and `average_fps` is believed
    is_live: bool  # cannot be reopened or sought: frames come once, in order, as they arrive
    player_offset_seconds: float = 0.0  # the first picture on the player's clock: 7 if the sound begins 7 s earlier


@dataclass(frozen=True)
class FrameBatch:
    """Consecutive sampled frames: N pictures of H x W pixels.

    Attributes:
        frames: uint8 [N, H, W, 3], RGB.
        sample_seconds: float64 [N], the asked times k / fps, 0 = the first picture.
        timestamps_seconds: float64 [N], presentation time of the picture that is on screen at that time; equal ones
            in a row mean the same picture.
    """

    frames: NDArray[np.uint8]
    sample_seconds: NDArray[np.float64]
    timestamps_seconds: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.sample_seconds)


class Gap(NamedTuple):
    """A stretch in which damage cost pictures, to the next keyframe that is whole.

    Samples in it show the last picture before it, or what the decoder made of the damaged ones. A gap without length
    tells of a jump of the file's clock, which costs no picture.
    """

    start_seconds: float
    end_seconds: float
    reason: str
