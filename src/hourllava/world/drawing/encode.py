"""From a script to a video file, with a frame at exactly every whole second.

The frame rate is constant, a keyframe comes every five seconds, and the encoder has one thread: the same script gives
the same bytes with the same FFmpeg build. A second thread renders while the encoder works.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from tqdm import tqdm

from hourllava.errors import ConfigError, VideoError
from hourllava.files import replacing
from hourllava.world.drawing.render import Frame, Renderer
from hourllava.world.script import Script

VIDEO_FPS = 4
VIDEO_PIXELS = 256
KEYFRAME_SECONDS = 5
_CHUNK_FRAMES = 32
_CODECS = {
    ".mp4": ("libx264", {"preset": "superfast", "crf": "20", "tune": "animation"}),
    ".webm": ("libvpx", {"deadline": "realtime", "cpu-used": "8", "crf": "14", "b": "1M"}),
}


def encode_video(
    script: Script, path: Path, size_pixels: int = VIDEO_PIXELS, fps: int = VIDEO_FPS, *, progress: bool = False
) -> None:
    """Write the video to `path` (.mp4 or .webm); frame i shows the script at i / fps seconds.

    `progress` shows a progress bar on stderr.

    Raises:
        ConfigError: another file ending, an odd size, or a frame rate outside 1 to 30.
        VideoError: the file cannot be written.
    """
    if path.suffix not in _CODECS:
        raise ConfigError(f"{path.name} cannot be encoded; use a name that ends in {' or '.join(_CODECS)}")
    if size_pixels % 2 or not 1 <= fps <= 30:
        raise ConfigError(f"{size_pixels} pixels at {fps} fps was asked for; use an even size and 1 to 30 fps")
    try:
        _encode(Renderer(script, size_pixels), path, fps, progress)
    except OSError as error:  # FFmpeg's write errors are OSErrors, too
        raise VideoError(
            f"{path} cannot be written: {error.strerror or error}; check the folder and the disk"
        ) from error


def _encode(renderer: Renderer, path: Path, fps: int, progress: bool) -> None:
    codec, options = _CODECS[path.suffix]
    with replacing(path) as temporary, av.open(str(temporary), "w", format=path.suffix[1:]) as container:
        stream = container.add_stream(codec, rate=fps, options=options)
        assert isinstance(stream, av.VideoStream)
        stream.width = stream.height = renderer.size_pixels
        stream.pix_fmt = "yuv420p"
        stream.thread_count = 1
        stream.gop_size = KEYFRAME_SECONDS * fps
        shown = None
        total = renderer.script.duration_seconds * fps
        bar = tqdm(_rendered_ahead(renderer, fps), total=total, unit="frame", desc="making", disable=not progress)
        for index, pixels in enumerate(bar):
            if pixels is not shown:  # a picture that stays is converted once
                shown, frame = pixels, av.VideoFrame.from_ndarray(pixels, format="rgb24").reformat(format="yuv420p")
            frame.pts = index
            frame.time_base = Fraction(1, fps)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def _rendered_ahead(renderer: Renderer, fps: int) -> Iterator[Frame]:
    total = renderer.script.duration_seconds * fps

    def render(start: int) -> list[Frame]:
        return [np.ascontiguousarray(renderer.frame(i / fps)) for i in range(start, min(start + _CHUNK_FRAMES, total))]

    with ThreadPoolExecutor(max_workers=1) as pool:
        chunk = pool.submit(render, 0)
        for start in range(_CHUNK_FRAMES, total + _CHUNK_FRAMES, _CHUNK_FRAMES):
            ready = chunk.result()
            chunk = pool.submit(render, start)
            yield from ready
