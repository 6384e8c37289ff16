"""The cast and the cards as small pictures, drawn once each.

Every object has a dark rim inside a white rim, so a white star stands out in snow, and a blue one in space.
"""

import math
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from hourllava.world.drawing.glyphs import GLYPH_ROWS
from hourllava.world.vocabulary import COLOURS

OVERSAMPLING = 4
RIM_DARK, RIM_WHITE = 0.09, 0.20  # widths as shares of the object's radius
Points = list[tuple[float, float]]
Sprite = tuple[NDArray[np.uint16], NDArray[np.uint16]]


def _circle(radius: float, start: float = 0, end: float = 2 * math.pi, x: float = 0, steps: int = 40) -> Points:
    angles = [start + (end - start) * k / steps for k in range(steps + 1)]
    return [(x + radius * math.cos(a), radius * math.sin(a)) for a in angles]


def _star() -> Points:
    radii = [1.0 if k % 2 == 0 else 0.46 for k in range(10)]
    return [(r * math.sin(k * math.pi / 5), -r * math.cos(k * math.pi / 5)) for k, r in enumerate(radii)]


def _heart() -> Points:
    angles = [2 * math.pi * k / 60 for k in range(60)]
    return [
        (
            0.94 * math.sin(a) ** 3,
            -(13 * math.cos(a) - 5 * math.cos(2 * a) - 2 * math.cos(3 * a) - math.cos(4 * a)) / 16.5 - 0.06,
        )
        for a in angles
    ]


def _moon() -> Points:
    # The crescent between a circle and a smaller one shifted to the right; both meet at the tips.
    tip = math.acos(0.36)
    outer = _circle(0.98, tip, 2 * math.pi - tip)
    x, y = outer[0]
    shift = 0.58
    radius, inner = math.hypot(x - shift, y), math.atan2(y, x - shift)
    crescent = outer + _circle(radius, 2 * math.pi - inner, inner, x=shift)
    return [(x + 0.28, y) for x, y in crescent]


_A = 0.36  # half the width of the cross's arms
_OUTLINES: dict[str, Points] = {
    "ball": _circle(0.92),
    "square": [(-0.8, -0.8), (0.8, -0.8), (0.8, 0.8), (-0.8, 0.8)],
    "triangle": [(0, -0.95), (0.95, 0.75), (-0.95, 0.75)],
    "star": _star(),
    "heart": _heart(),
    "cross": [
        (-_A, -0.95), (_A, -0.95), (_A, -_A), (0.95, -_A), (0.95, _A), (_A, _A),
        (_A, 0.95), (-_A, 0.95), (-_A, _A), (-0.95, _A), (-0.95, -_A), (-_A, -_A),
    ],
    "moon": _moon(),
    "arrow": [(-0.95, -0.32), (0.1, -0.32), (0.1, -0.85), (0.98, 0), (0.1, 0.85), (0.1, 0.32), (-0.95, 0.32)],
}  # fmt: skip


def sprite(shape: str, colour: str, diameter_pixels: int, angle_degrees: int) -> Sprite:
    """An object to paste by out = a + (b * dst >> 8), a: colour times alpha [n, n, 3], b: 256 minus alpha [n, n, 1].

    Args:
        shape: one of SHAPES.
        colour: a key of COLOURS, or "#rrggbb".
        diameter_pixels: n, white rim included.
        angle_degrees: clockwise.
    """
    if colour in COLOURS:
        return _drawn_sprite(shape, COLOURS[colour], diameter_pixels, angle_degrees)
    # Other colours rarely repeat, so their sprites are not cached. A sprite is linear in its colour, so it is mixed
    # from the black and the white sprite: at most 2 levels off, in a twentieth of the time of drawing.
    black, keep = _drawn_sprite(shape, (0, 0, 0), diameter_pixels, angle_degrees)
    white, _ = _drawn_sprite(shape, (255, 255, 255), diameter_pixels, angle_degrees)
    rgb = np.array(list(bytes.fromhex(colour[1:])), dtype=np.uint16)
    return black + (white - black) * rgb // 255, keep


@lru_cache(maxsize=8192)
def _drawn_sprite(shape: str, rgb: tuple[int, int, int], diameter_pixels: int, angle_degrees: int) -> Sprite:
    side = diameter_pixels * OVERSAMPLING
    radius = side / (2 * (1 + RIM_WHITE))
    cos, sin = math.cos(math.radians(angle_degrees)), math.sin(math.radians(angle_degrees))

    def place(points: Points) -> Points:
        return [(side / 2 + radius * (x * cos - y * sin), side / 2 + radius * (x * sin + y * cos)) for x, y in points]

    dark = tuple(v // 4 for v in rgb)
    image = Image.new("RGBA", (side, side), (255, 255, 255, 0))
    draw = ImageDraw.Draw(image)
    outline = place(_OUTLINES[shape])
    ring = [*outline, *outline[:2]]
    for width, line_colour in ((RIM_WHITE, (255, 255, 255)), (RIM_DARK, dark)):
        draw.line(ring, fill=(*line_colour, 255), width=max(1, round(2 * width * radius)), joint="curve")
    draw.polygon(outline, fill=(*rgb, 255))
    if shape == "ball":  # a stripe makes its rotation visible
        stripe = tuple(v * 3 // 5 for v in rgb)
        draw.polygon(place([(-0.88, -0.2), (0.88, -0.2), (0.88, 0.2), (-0.88, 0.2)]), fill=(*stripe, 255))
    small = np.asarray(image.convert("RGBa").reduce(OVERSAMPLING)).astype(np.uint16)  # RGBa: premultiplied
    return small[..., :3], 256 - small[..., 3:] - (small[..., 3:] == 255)


@lru_cache(maxsize=512)
def card(glyph: str, colour: str, size_pixels: int) -> NDArray[np.uint8]:
    """A needle's card: the letter and a frame in its colour on near-black; uint8 [size, size, 3]."""
    side = size_pixels * OVERSAMPLING
    image = Image.new("RGB", (side, side), COLOURS[colour])
    draw = ImageDraw.Draw(image)
    edge = 0.075 * side
    draw.rectangle((edge, edge, side - edge, side - edge), fill=(24, 24, 30))
    cell = side * 0.68 / 7
    left, top = (side - 5 * cell) / 2, (side - 7 * cell) / 2
    for row, dots in enumerate(GLYPH_ROWS[glyph]):
        for column, dot in enumerate(dots):
            if dot == "#":
                x, y = left + column * cell, top + row * cell
                draw.rectangle((x, y, x + cell, y + cell), fill=COLOURS[colour])
    pixels = np.asarray(image.reduce(OVERSAMPLING))
    pixels.flags.writeable = False
    return pixels
