"""A picture file to the upright 8-bit RGB picture that a viewer shows: pictures of records, frames of a folder.

    EXIF orientation      turned upright
    transparency          over white, as on a page (video frames: over black, as in players)
    16 bits a sample      the upper 8 bits
    32-bit grey, float    scaled by the smallest range of `_TOPS` that holds all values; an error if none does
    several pictures      the first
    too many pixels       an error, above `PIL.Image.MAX_IMAGE_PIXELS` (89 million)

Without the last rule a PNG of 20 kB takes gigabytes: 169 million black pixels.
"""

import io
import struct
import warnings
from pathlib import Path
from typing import IO

import numpy as np
from PIL import Image

from hourllava.video.formats import PILLOW_FORMATS

_ORIENTATION = 0x0112  # EXIF
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}  # fmt: skip
_SAMPLE_FORMAT, _UNSIGNED = 339, 1  # TIFF
_TOPS = {"F": (1.0, 255.0, 65535.0), "I": (255, 65535, 2**31 - 1, 2**32 - 1)}
"""Mode -> values that may stand for white; the file does not say which."""
_SIXTEEN_BIT_FORMATS = ("PNG", "PPM")  # Pillow opens their 16 bits as 32

PICTURE_ERRORS = (
    OSError, ValueError, SyntaxError, TypeError, LookupError, ArithmeticError, AttributeError, struct.error,
    Image.DecompressionBombError, Image.DecompressionBombWarning,
)  # fmt: skip
"""What the functions below raise for damaged files."""


def open_picture(file: Path | IO[bytes]) -> Image.Image:
    """Open a picture without decoding it; a context manager, like `PIL.Image.open`.

    The bytes of a path are read first: Pillow maps an uncompressed grey TIFF by its turned size and mixes up its rows.

    Raises:
        PICTURE_ERRORS: it is no picture, damaged, or too large.
    """
    if isinstance(file, Path):
        file = io.BytesIO(file.read_bytes())
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)  # Pillow refuses only twice as many pixels
        return Image.open(file, formats=PILLOW_FORMATS)


def is_upright(picture: Image.Image) -> bool:
    """Whether a picture is shown as it is stored; True if its EXIF data is damaged."""
    return _turn(picture) is None


def upright_rgb(picture: Image.Image) -> Image.Image:
    """Decode an open picture: upright, mode RGB.

    Raises:
        PICTURE_ERRORS: it is damaged, or its values fit no known range.
    """
    picture.load()  # turns a TIFF
    turn = _turn(picture)
    rgb = _rgb(picture)
    return rgb if turn is None else rgb.transpose(turn)


def _turn(picture: Image.Image) -> Image.Transpose | None:
    try:
        return _TURNS.get(picture.getexif().get(_ORIENTATION, 1))
    except PICTURE_ERRORS:
        return None


def _rgb(picture: Image.Image) -> Image.Image:
    if picture.mode.startswith("I") or picture.mode == "F":
        return _eight_bit(picture).convert("RGB")
    if not picture.has_transparency_data:
        return picture.convert("RGB")
    rgba = picture.convert("RGBA")
    page = Image.new("RGB", rgba.size, "white")
    page.paste(rgba, mask=rgba.getchannel("A"))
    return page


def _eight_bit(picture: Image.Image) -> Image.Image:
    """Grey of 16 bits, 32 bits or float as grey of 8 bits; the transparent value becomes white."""
    values = np.asarray(picture)
    transparent = picture.info.get("transparency")
    if picture.mode.startswith("I;16"):
        grey = (values >> 8).astype(np.uint8)
    elif picture.format in _SIXTEEN_BIT_FORMATS and picture.mode == "I":
        grey = (values.clip(0, 65535) >> 8).astype(np.uint8)
    else:
        tags = getattr(picture, "tag_v2", {_SAMPLE_FORMAT: None})
        if picture.mode == "I" and tags.get(_SAMPLE_FORMAT, (_UNSIGNED,)) == (_UNSIGNED,):
            values = values.view(np.uint32)
        low, high = values.min(), values.max()
        tops = _TOPS[picture.mode[0]]
        top = next((top for top in tops if low >= 0 and high <= top), None)
        if top is None:
            allowed = ", ".join(f"{top:g}" for top in tops)
            raise ValueError(f"its values are {low:g} to {high:g}; allowed: 0 to {allowed}: convert it to 8 bits")
        grey = np.rint(values * (255 / top)).astype(np.uint8)
    if isinstance(transparent, int):
        grey[values == transparent] = 255
    return Image.fromarray(grey)
