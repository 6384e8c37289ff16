"""Contact sheets: frames with their times, to look at."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

_MARGIN, _CAPTION = 8, 34


def contact_sheet(frames: NDArray[np.uint8], captions: Sequence[str], columns: int = 6) -> Image.Image:
    """Frames [N, H, W, 3] in rows of `columns`, each with its caption of at most two lines below."""
    assert len(frames) == len(captions)
    height, width = frames.shape[1:3]
    rows = -(-len(frames) // columns)
    sheet = Image.new(
        "RGB",
        (columns * (width + _MARGIN) + _MARGIN, rows * (height + _CAPTION + _MARGIN) + _MARGIN),
        (250, 250, 248),
    )
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(12)
    for k, (frame, caption) in enumerate(zip(frames, captions)):
        row, column = divmod(k, columns)
        x, y = _MARGIN + column * (width + _MARGIN), _MARGIN + row * (height + _CAPTION + _MARGIN)
        sheet.paste(Image.fromarray(frame), (x, y))
        draw.text((x + 2, y + height + 3), caption, fill=(40, 40, 44), font=font)
    return sheet
