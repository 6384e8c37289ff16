"""A clip's frames as a small video file, for servers that take videos."""

import io
from collections.abc import Sequence
from fractions import Fraction

import av
import numpy as np
from PIL import Image

from hourllava.synthesis.models.request import Picture


def clip_as_mp4(pictures: Sequence[Picture]) -> bytes:
    """An H.264 file with these pictures, from time 0 on.

    Args:
        pictures: of one size, in order, equally far apart in time; at least one.
    """
    buffer = io.BytesIO()
    seconds = pictures[-1].seconds - pictures[0].seconds
    rate = Fraction((len(pictures) - 1) / seconds).limit_denominator(1001) if len(pictures) > 1 else Fraction(1)
    with av.open(buffer, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=rate, options={"crf": "20", "preset": "veryfast"})
        stream.width, stream.height = pictures[0].width_pixels // 2 * 2, pictures[0].height_pixels // 2 * 2
        stream.pix_fmt = "yuv420p"
        for picture in pictures:
            pixels = np.asarray(Image.open(io.BytesIO(picture.jpeg)).convert("RGB"))
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels[: stream.height, : stream.width])))
        container.mux(stream.encode())
    return buffer.getvalue()
