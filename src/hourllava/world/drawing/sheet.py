"""Contact sheets: frames in rows, with captions, for people to look at."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

_BACKGROUND, _MUTED = (250, 250, 248), (80, 80, 86)
_MARGIN = 8  # pixels around frames
_FONT_PIXELS, _LINE_PIXELS = 12, 16
_CAPTION_LINES = 2


def contact_sheet(frames: NDArray[np.uint8], captions: Sequence[str], columns: int = 6) -> Image.Image:
    """Frames [N, H, W, 3] in rows of `columns`. Below each frame is its caption, of at most two lines."""
    assert len(frames) == len(captions)
    height, width = frames.shape[1:3]
    rows = -(-len(frames) // columns)
    row_height = height + _CAPTION_LINES * _LINE_PIXELS + _MARGIN
    size = (columns * (width + _MARGIN) + _MARGIN, rows * row_height + _MARGIN)
    sheet = Image.new("RGB", size, _BACKGROUND)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(_FONT_PIXELS)
    for k, (frame, caption) in enumerate(zip(frames, captions)):
        row, column = divmod(k, columns)
        x, y = _MARGIN + column * (width + _MARGIN), _MARGIN + row * row_height
        sheet.paste(Image.fromarray(frame), (x, y))
        draw.text((x + 1, y + height + 3), caption, fill=_MUTED, font=font)
    return sheet
