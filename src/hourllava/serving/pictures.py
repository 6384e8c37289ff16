"""Small pictures of a video: one at a time, or a filmstrip of some sixty on one sheet.

They are decoded in a child process from the file, by seeking: nothing between them is kept, and no GPU is used. These
functions wait for that; call them in a thread.
"""

import io
import json
import threading
from dataclasses import asdict, dataclass
from pathlib import Path

from PIL import Image

from hourllava.errors import VideoError
from hourllava.files import replacing
from hourllava.video import probe, read_frames
from hourllava.video.limits import VideoLimits

MAX_TILES = 60
COLUMNS = 10
TILE_PIXELS = 160
"""Longer side of a tile."""

JPEG_QUALITY = 80
SECONDS_LIMIT = 300.0
"""Time for a filmstrip."""

FRAME_SECONDS_LIMIT = 30.0

_USUAL_FPS = 25.0
_FINEST_FPS = 1000.0  # samples lie on multiples of 1 / fps


@dataclass(frozen=True)
class Filmstrip:
    """A sheet of tiles, row by row.

    Attributes:
        columns, rows: of the sheet; the last row may be short.
        tile_width, tile_height: in pixels.
        times: of each tile, in seconds on the player's clock.
    """

    columns: int
    rows: int
    tile_width: int
    tile_height: int
    times: list[float]


def jpeg_at(path: Path, at_seconds: float, max_width: int, limits: VideoLimits | None = None) -> bytes:
    """The picture on screen at a time, as a JPEG.

    Args:
        path: of the video.
        at_seconds: on the player's clock; after the end, the last picture is meant.
        max_width: in pixels; a smaller picture keeps its size.
        limits: of the video, and of decoding it.

    Raises:
        VideoError: the video cannot be read.
        Cancelled: it took too long.
    """
    info = probe(path, timeout_seconds=FRAME_SECONDS_LIMIT, limits=limits)
    seconds = max(at_seconds - info.player_offset_seconds, 0.0)
    if info.duration_seconds is not None:
        seconds = min(seconds, max(info.duration_seconds - 1 / (info.average_fps or _USUAL_FPS), 0.0))
    start = round(seconds, 3)
    with (
        _time_limit(FRAME_SECONDS_LIMIT) as stop,
        read_frames(
            path,
            fps=_FINEST_FPS,
            start_seconds=start,
            end_seconds=start + 1 / _FINEST_FPS,
            num_processes=1,
            timeout_seconds=FRAME_SECONDS_LIMIT,
            limits=limits,
            stop=stop,
        ) as reader,
    ):
        batch = next(reader, None)
    if batch is None:
        raise VideoError(f"{path} shows no picture at {at_seconds:g} s")
    image = Image.fromarray(batch.frames[0])
    image.thumbnail((max_width, max_width * 4))
    return _jpeg(image)


def make_filmstrip(
    path: Path,
    sheet: Path,
    start_seconds: float,
    end_seconds: float,
    *,
    limits: VideoLimits | None = None,
    stop: threading.Event | None = None,
) -> Filmstrip:
    """Draw a sheet into a file, and its description beside it (`.json`).

    Args:
        path: of the video.
        sheet: JPEG file to write.
        start_seconds, end_seconds: the part, on the player's clock.
        limits: of the video, and of decoding it.
        stop: ends it.

    Raises:
        VideoError: the video cannot be read.
        Cancelled: it was stopped, or took too long.
    """
    offset = probe(path, limits=limits).player_offset_seconds
    start, end = max(start_seconds - offset, 0.0), max(end_seconds - offset, 0.1)
    seconds = max(end - start, 0.1)
    num_tiles = max(1, min(MAX_TILES, round(seconds)))
    with (
        _time_limit(SECONDS_LIMIT, stop) as limit,
        read_frames(
            path,
            fps=num_tiles / seconds,
            start_seconds=start,
            end_seconds=start + seconds,
            num_processes=1,
            batch_frames=1,
            limits=limits,
            stop=limit,
        ) as reader,
    ):
        info = reader.info
        scale = TILE_PIXELS / max(info.width_pixels, info.height_pixels)
        width, height = max(1, round(info.width_pixels * scale)), max(1, round(info.height_pixels * scale))
        tiles, times = [], []
        for batch in reader:
            tiles.append(Image.fromarray(batch.frames[0]).resize((width, height)))
            times.append(float(batch.sample_seconds[0]) + offset)
            if len(tiles) == MAX_TILES:
                break
    if not tiles:
        raise VideoError(f"{path} shows no picture in this part")
    columns = min(COLUMNS, len(tiles))
    strip = Filmstrip(columns, -(-len(tiles) // columns), width, height, times)
    image = Image.new("RGB", (columns * width, strip.rows * height))
    for number, tile in enumerate(tiles):
        image.paste(tile, (number % columns * width, number // columns * height))
    with replacing(sheet, durable=False) as temporary:
        temporary.write_bytes(_jpeg(image))
    with replacing(sheet.with_suffix(".json"), durable=False) as temporary:  # last: it says that both are there
        temporary.write_text(json.dumps(asdict(strip)), encoding="utf-8")
    return strip


def known_filmstrip(sheet: Path) -> Filmstrip | None:
    """The description of a sheet that was drawn before; None if there is none."""
    try:
        return Filmstrip(**json.loads(sheet.with_suffix(".json").read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None


def _jpeg(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=JPEG_QUALITY)
    return file.getvalue()


class _time_limit:
    """Sets an event after so many seconds."""

    def __init__(self, seconds: float, stop: threading.Event | None = None) -> None:
        self._stop = stop or threading.Event()
        self._timer = threading.Timer(seconds, self._stop.set)
        self._timer.daemon = True

    def __enter__(self) -> threading.Event:
        self._timer.start()
        return self._stop

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()
