"""Contact sheets: frames in rows, with captions, for people to look at."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

BACKGROUND = (250, 250, 248)
_INK, _MUTED = (20, 20, 24), (80, 80, 86)
_MARGIN, _GAP = 8, 18  # pixels around frames, and more of them above a row with a title
_FONT_PIXELS, _LINE_PIXELS = 12, 16
_CAPTION_LINES = 2


@dataclass(frozen=True)
class RowTitle:
    """Text above a row of frames: lines from top to bottom, and the colour of the second line."""

    lines: tuple[str, ...]
    second_colour: tuple[int, int, int] = _INK


def contact_sheet(
    frames: NDArray[np.uint8], captions: Sequence[str], columns: int = 6, titles: Sequence[RowTitle] = ()
) -> Image.Image:
    """Frames [N, H, W, 3] in rows of `columns`. Below each frame is its caption, of at most two lines.

    Above each row is its title, if there are titles; all have the same number of lines.
    """
    assert len(frames) == len(captions)
    height, width = frames.shape[1:3]
    rows = -(-len(frames) // columns)
    assert len(titles) in (0, rows)
    heading = _GAP + len(titles[0].lines) * _LINE_PIXELS if titles else 0
    row_height = heading + height + _CAPTION_LINES * _LINE_PIXELS + _MARGIN
    size = (columns * (width + _MARGIN) + _MARGIN, rows * row_height + _MARGIN)
    sheet = Image.new("RGB", size, BACKGROUND)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(_FONT_PIXELS)
    for k, (frame, caption) in enumerate(zip(frames, captions)):
        row, column = divmod(k, columns)
        x, y = _MARGIN + column * (width + _MARGIN), _MARGIN + row * row_height + heading
        sheet.paste(Image.fromarray(frame), (x, y))
        draw.text((x + 1, y + height + 3), caption, fill=_MUTED, font=font)
    for row, title in enumerate(titles):
        top = row * row_height + _GAP
        for number, line in enumerate(title.lines):
            colour = title.second_colour if number == 1 else _INK
            draw.text((_MARGIN + 1, top + number * _LINE_PIXELS), line, fill=colour, font=font)
    return sheet
