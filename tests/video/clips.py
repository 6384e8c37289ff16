"""Clips with known frames: every frame shows its own number as a board of 4 x 3 bright and dark blocks."""

from collections.abc import Iterable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray

COLUMNS, ROWS = 4, 3
DARK, BRIGHT = 40, 215


def board(number: int, width: int = 64, height: int = 48) -> NDArray[np.uint8]:
    """Grey picture [height, width] that shows a number below 4096."""
    bits = [(number >> bit) & 1 for bit in range(COLUMNS * ROWS)]
    cells = np.array(bits, np.uint8).reshape(ROWS, COLUMNS) * (BRIGHT - DARK) + DARK
    return cells[np.arange(height) * ROWS // height][:, np.arange(width) * COLUMNS // width]


def number_of(picture: NDArray[np.uint8]) -> int:
    """The number that a picture [H, W, 3] shows."""
    grey = picture.astype(float).mean(axis=-1)
    height, width = grey.shape
    number = 0
    for bit in range(COLUMNS * ROWS):
        row, column = divmod(bit, COLUMNS)
        top, left = (2 * row + 1) * height // (2 * ROWS), (2 * column + 1) * width // (2 * COLUMNS)
        number |= int(grey[top - 2 : top + 3, left - 2 : left + 3].mean() > 127) << bit
    return number


_made: dict[tuple[str, str], bytes] = {}


def write_clip(path: Path, num_frames: int = 100, fps: float | Fraction = 25, **options: Any) -> Path:
    """Write frames 0, 1, ... at i / fps, or at `times` (seconds); see `_encode`. Equal clips are encoded once."""
    key = path.suffix, repr((num_frames, fps, sorted(options.items())))
    if key not in _made:
        _made[key] = _encode(path, num_frames, fps, **options).read_bytes()
    else:
        path.write_bytes(_made[key])
    return path


def _encode(
    path: Path,
    num_frames: int,
    fps: float | Fraction,
    *,
    width: int = 64,
    height: int = 48,
    codec: str = "libx264",
    pixel_format: str = "yuv420p",
    container: str | None = None,
    options: dict[str, str] | None = None,
    times: Sequence[Fraction | float] | None = None,
    time_base: Fraction | None = None,
    rotation: int | None = None,
    sample_aspect_ratio: Fraction | None = None,
    audio: bool = False,
    container_options: dict[str, str] | None = None,
) -> Path:
    rate = Fraction(fps).limit_denominator(100000)
    with av.open(str(path), "w", format=container, options=container_options or {}) as output:
        stream = output.add_stream(codec, rate=rate, options=options or {})
        stream.width, stream.height, stream.pix_fmt = width, height, pixel_format
        stream.codec_context.thread_count = 1
        if time_base is not None:
            stream.codec_context.time_base = time_base
        if sample_aspect_ratio is not None:
            stream.codec_context.sample_aspect_ratio = sample_aspect_ratio
        if rotation is not None:
            stream.set_display_rotation(rotation)
        sound = output.add_stream("aac", rate=48000) if audio else None
        ticks = time_base or 1 / rate
        reformatter = VideoReformatter()  # one for all frames: setting it up takes longer than encoding a frame
        for i in range(num_frames):
            seconds = Fraction(times[i]) if times is not None else i / rate
            picture = np.repeat(board(i, width, height)[..., None], 3, axis=-1)
            frame = reformatter.reformat(
                av.VideoFrame.from_ndarray(picture, format="rgb24"), format=pixel_format, threads=1
            )
            frame.pts, frame.time_base = round(seconds / ticks), ticks
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
        if sound is not None:
            output.mux(sound.encode(silence(48000)))
            output.mux(sound.encode(None))
    return path


def silence(num_samples: int) -> av.AudioFrame:
    """Stereo silence at 48 kHz."""
    frame = av.AudioFrame.from_ndarray(np.zeros((2, num_samples), np.float32), format="fltp", layout="stereo")
    frame.sample_rate = 48000
    frame.pts = 0
    return frame


def expected_numbers(frame_times: Iterable[float | Fraction], fps: float, end_seconds: float | Fraction) -> list[int]:
    """Ground truth: the frame on screen at each k / fps, computed the slow way from the written times."""
    times = [Fraction(time).limit_denominator(100000) for time in frame_times]
    rate = Fraction(fps).limit_denominator(100000)
    numbers = []
    k = 0
    while k / rate < end_seconds:
        numbers.append(max((i for i, time in enumerate(times) if time <= k / rate), default=0))
        k += 1
    return numbers
