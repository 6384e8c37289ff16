"""A decoded frame to the upright 8-bit RGB picture that a viewer sees, optionally resized as PIL does.

swscale converts full and limited range and the BT.601, 709 and 2020 matrices. PQ and HLG are tone mapped here, because
swscale took 1.2 s for a frame of 64x48 (docs/experiments.md#2026-11-22-hdr-and-10-bit-through-swscale-negative).
Transparent pixels are shown over black, as in players.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, Literal

import numpy as np
from av.video.frame import VideoFrame
from av.video.reformatter import Interpolation, VideoReformatter
from numpy.typing import NDArray
from PIL import Image

from hourllava.errors import VideoError
from hourllava.video.layout import NO_CROP, Crop

PictureArray = NDArray[np.uint8]
Orientation = tuple[bool, bool, bool]  # swap the axes, then mirror left-right, then mirror top-bottom

UPRIGHT: Orientation = (False, False, False)
# 8192 x 8192, twice 8K video. A file of 20 kB can claim any size; with this limit a still takes at most 1 GB.
MAX_PICTURE_PIXELS = 1 << 26
STRIP_PIXELS = 1 << 21  # converted at once if the conversion takes many bytes a pixel
BT709, UNSPECIFIED_MATRIX, PQ, HLG, BT2020_PRIMARIES = 1, 2, 16, 18, 9  # ITU-T H.273
HD_HEIGHT_PIXELS = 720  # players take untagged video of this height or more for BT.709, smaller video for BT.601
PEAK_NITS, WHITE_NITS = 1000.0, 203.0  # the assumed mastering peak; the level of diffuse white in ITU-R BT.2408
BT2020_TO_BT709 = np.array(
    [[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]], np.float32
)


def check_size(width_pixels: int, height_pixels: int, location: str) -> None:
    """Refuse pictures whose decoding would take too much memory.

    Raises:
        VideoError: more than `MAX_PICTURE_PIXELS` pixels.
    """
    if width_pixels * height_pixels > MAX_PICTURE_PIXELS:
        raise VideoError(
            f"{location} has pictures of {width_pixels} x {height_pixels} pixels, at most {MAX_PICTURE_PIXELS:,} in all"
            " are allowed: scale it down"
        )


def resized(picture: Image.Image, size_pixels: tuple[int, int]) -> PictureArray:
    """An RGB picture as uint8 [H, W, 3] of this (height, width)."""
    size = size_pixels[::-1]
    return np.array(picture if picture.size == size else picture.resize(size, Image.Resampling.BICUBIC))


def transfer_name(transfer: int) -> Literal["sdr", "pq", "hlg"]:
    """Kind of transfer characteristic by its H.273 number."""
    return "pq" if transfer == PQ else "hlg" if transfer == HLG else "sdr"


def orientation(frame: VideoFrame) -> tuple[Orientation, int]:
    """How to turn a frame upright, and the clockwise angle (0, 90, 180, 270) of that turn.

    The display matrix [a b u; c d v; x y w] sends the coded (x, y) to (a x + c y, b x + d y).
    """
    data: Any = frame.side_data.get("DISPLAYMATRIX")
    if data is None:
        return UPRIGHT, 0
    a, b, _, c, d = (int(value) for value in np.frombuffer(bytes(data), np.int32)[:5])
    if abs(a) >= abs(b):
        turn: Orientation = (False, a < 0, d < 0)
        return turn, 180 if a < 0 and d < 0 else 0
    return (True, c < 0, b < 0), 90 if b > 0 else 270


class Painter:
    """Renders frames of one stream at one size.

    Args:
        width_pixels: Width of the rendered pictures.
        height_pixels: Height of the rendered pictures.
        crop: Sides to cut off the coded picture.
    """

    def __init__(self, width_pixels: int, height_pixels: int, crop: Crop = NO_CROP):
        self._size = (height_pixels, width_pixels)
        self._crop = crop
        self._reformatter = VideoReformatter()  # kept: it holds swscale's tables

    def paint(self, frame: VideoFrame) -> PictureArray:
        """Upright RGB picture, uint8 [height, width, 3], resized exactly as `PIL.Image.resize(..., BICUBIC)`."""
        (swap, mirror_x, mirror_y), _ = orientation(frame)
        picture = self._cropped(self._rgb(frame))
        if swap:
            picture = picture.transpose(1, 0, 2)
        if mirror_x:
            picture = picture[:, ::-1]
        if mirror_y:
            picture = picture[::-1]
        picture = np.ascontiguousarray(picture)
        return picture if picture.shape[:2] == self._size else resized(Image.fromarray(picture), self._size)

    def _cropped(self, picture: PictureArray) -> PictureArray:
        height, width = picture.shape[:2]
        crop = self._crop
        inside = picture[crop.top : height - crop.bottom, crop.left : width - crop.right]
        return inside if inside.size else picture  # a later picture may be smaller than the crop

    def _rgb(self, frame: VideoFrame) -> PictureArray:
        if frame.colorspace not in (0, 1, 4, 5, 6, 7, 8, 9, 10):  # unspecified, or refused by swscale
            frame.colorspace = BT709 if frame.height >= HD_HEIGHT_PIXELS else 5
        if transfer_name(frame.color_trc) != "sdr":
            wide = self._convert(frame, "rgb48le")
            trc, primaries = frame.color_trc, frame.color_primaries
            return _in_strips(lambda strip: tone_map(strip, trc, primaries), wide)
        if any(component.is_alpha for component in frame.format.components) or frame.format.name == "pal8":
            return _in_strips(_over_black, self._convert(frame, "rgba"))
        picture: PictureArray = self._convert(frame, "rgb24")
        return picture

    def _convert(self, frame: VideoFrame, pixel_format: str) -> Any:
        # threads=1: a process has one core; swscale would start a pool for every frame size.
        # FULL_CHR_H_INT: without it 10-bit video is 1.6 of 255 too dark; 8-bit 4:2:0 is the same with and without.
        flags = Interpolation.BILINEAR | Interpolation.FULL_CHR_H_INT
        return self._reformatter.reformat(frame, format=pixel_format, interpolation=flags, threads=1).to_ndarray()


def _in_strips(convert: Callable[[Any], PictureArray], picture: Any) -> PictureArray:
    """Convert a picture [H, W, C] to RGB, some rows at a time to save memory."""
    height, width = picture.shape[:2]
    rows = max(1, STRIP_PIXELS // width)
    if height <= rows:
        return convert(picture)
    rgb = np.empty((height, width, 3), np.uint8)
    for top in range(0, height, rows):
        rgb[top : top + rows] = convert(picture[top : top + rows])
    return rgb


def _over_black(rgba: PictureArray) -> PictureArray:
    wide = rgba.astype(np.uint16)
    opaque: PictureArray = ((wide[..., :3] * wide[..., 3:] + 127) // 255).astype(np.uint8)
    return opaque


def tone_map(rgb: NDArray[np.uint16], transfer: int, primaries: int) -> PictureArray:
    """PQ or HLG coded RGB, uint16 [H, W, 3], to SDR RGB, uint8: Reinhard's curve with a white point of 1000 nits."""
    linear = _to_linear(transfer)[rgb]
    if primaries == BT2020_PRIMARIES:
        linear = np.maximum(linear @ BT2020_TO_BT709.T, 0)
    peak = linear.max(axis=-1, keepdims=True)  # one factor for all three colours keeps the hue
    scale = (1 + peak / (PEAK_NITS / WHITE_NITS) ** 2) / (1 + peak)
    level = np.clip(linear * scale, 0, 1)
    picture: PictureArray = _to_srgb()[(level * 4095 + 0.5).astype(np.uint16)]
    return picture


@cache
def _to_linear(transfer: int) -> NDArray[np.float32]:
    """Light of each 16-bit code, 1 = diffuse white (SMPTE ST 2084; BT.2100 HLG on a 1000-nit display)."""
    code = np.linspace(0, 1, 65536)
    if transfer == PQ:
        power = code ** (1 / 78.84375)
        nits = 10000 * (np.maximum(power - 0.8359375, 0) / (18.8515625 - 18.6875 * power)) ** (1 / 0.1593017578125)
    else:
        scene = np.where(code <= 0.5, code**2 / 3, (np.exp((code - 0.55991073) / 0.17883277) + 0.28466892) / 12)
        nits = PEAK_NITS * scene**1.2
    return (nits / WHITE_NITS).astype(np.float32)


@cache
def _to_srgb() -> PictureArray:
    """sRGB code of each of 4096 levels of light."""
    light = np.linspace(0, 1, 4096)
    code = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    return (code * 255 + 0.5).astype(np.uint8)
