"""Contact sheets: frames in rows, with captions, for people to look at."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

_MARGIN, _CAPTION = 8, 34
_FONT_PIXELS = 12


def contact_sheet(
    frames: NDArray[np.uint8], captions: Sequence[str], columns: int = 6, titles: Sequence[str] = ()
) -> Image.Image:
    """Frames [N, H, W, 3] in rows of `columns`. Below each frame is its caption, of at most two lines.

    Above each row is its title, of at most two lines, if there are titles.
    """
    assert len(frames) == len(captions)
    height, width = frames.shape[1:3]
    rows = -(-len(frames) // columns)
    assert len(titles) in (0, rows)
    heading = _CAPTION + _MARGIN if titles else 0
    row_height = heading + height + _CAPTION + _MARGIN
    sheet = Image.new(
        "RGB",
        (columns * (width + _MARGIN) + _MARGIN, rows * row_height + _MARGIN),
        (250, 250, 248),
    )
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(_FONT_PIXELS)
    for k, (frame, caption) in enumerate(zip(frames, captions)):
        row, column = divmod(k, columns)
        x, y = _MARGIN + column * (width + _MARGIN), _MARGIN + row * row_height + heading
        sheet.paste(Image.fromarray(frame), (x, y))
        draw.text((x + 2, y + height + 3), caption, fill=(40, 40, 44), font=font)
    for row, title in enumerate(titles):
        draw.text((_MARGIN + 2, 2 * _MARGIN + row * row_height), title, fill=(0, 0, 0), font=font)
    return sheet
