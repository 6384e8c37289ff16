"""A clip's frames as a small video file, for servers that take videos."""

import io
from collections.abc import Sequence
from fractions import Fraction

import av
import numpy as np
from PIL import Image

from hourllava.synthesis.models.request import Picture

_MILLISECONDS = 1000


def clip_as_mp4(pictures: Sequence[Picture]) -> bytes:
    """An H.264 file with these pictures at their times, from 0 on.

    Args:
        pictures: of one size, in order; at least one.
    """
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height = pictures[0].width_pixels // 2 * 2, pictures[0].height_pixels // 2 * 2
        stream.pix_fmt = "yuv420p"
        stream.time_base = stream.codec_context.time_base = Fraction(1, _MILLISECONDS)
        stream.codec_context.options = {"crf": "20", "preset": "veryfast"}
        for picture in pictures:
            pixels = np.asarray(Image.open(io.BytesIO(picture.jpeg)).convert("RGB"))
            frame = av.VideoFrame.from_ndarray(pixels[: stream.height, : stream.width])
            frame.time_base = stream.time_base
            frame.pts = round((picture.seconds - pictures[0].seconds) * _MILLISECONDS)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return buffer.getvalue()
