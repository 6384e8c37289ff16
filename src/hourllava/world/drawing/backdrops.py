"""The ten scenes and eight occasions, drawn with muted colours so that the cast stands out.

Each (scene, occasion, size) is drawn once, at three times the size, and averaged down.
"""

import math
from collections.abc import Callable
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from hourllava.world.rng import Draws

Colour = tuple[int, ...]
OVERSAMPLING = 3


class Canvas:
    """A drawing surface whose coordinates are shares of the frame."""

    def __init__(self, size_pixels: int, fill: Colour):
        self.side = size_pixels * OVERSAMPLING
        self.image = Image.new("RGB", (self.side, self.side), fill)
        self._draw = ImageDraw.Draw(self.image, "RGBA")

    def polygon(self, points: list[tuple[float, float]], fill: Colour) -> None:
        """A filled polygon."""
        self._draw.polygon([(x * self.side, y * self.side) for x, y in points], fill=fill)

    def box(self, x0: float, y0: float, x1: float, y1: float, fill: Colour) -> None:
        """A filled rectangle."""
        s = self.side
        self._draw.rectangle((x0 * s, y0 * s, x1 * s, y1 * s), fill=fill)

    def oval(self, x: float, y: float, rx: float, ry: float, fill: Colour) -> None:
        """A filled ellipse by centre and radii."""
        s = self.side
        self._draw.ellipse(((x - rx) * s, (y - ry) * s, (x + rx) * s, (y + ry) * s), fill=fill)

    def line(self, points: list[tuple[float, float]], fill: Colour, width: float) -> None:
        """A line through points."""
        scaled = [(x * self.side, y * self.side) for x, y in points]
        self._draw.line(scaled, fill=fill, width=max(1, round(width * self.side)), joint="curve")

    def arc(self, x: float, y: float, radius: float, fill: Colour, width: float) -> None:
        """The upper half of a circle."""
        s = self.side
        box = ((x - radius) * s, (y - radius) * s, (x + radius) * s, (y + radius) * s)
        self._draw.arc(box, 180, 360, fill=fill, width=max(1, round(width * s)))

    def gradient(self, top: Colour, bottom: Colour, y0: float, y1: float) -> None:
        """Bands that blend from one colour to another."""
        steps = 24
        for k in range(steps):
            share = k / (steps - 1)
            colour = tuple(round(a + (b - a) * share) for a, b in zip(top, bottom))
            self.box(0, y0 + (y1 - y0) * k / steps, 1, y0 + (y1 - y0) * (k + 1) / steps, colour)


def _desert(c: Canvas) -> None:
    c.gradient((238, 205, 160), (250, 230, 195), 0, 1)
    c.oval(0.8, 0.2, 0.11, 0.11, (255, 243, 205))
    c.oval(0.25, 0.95, 0.6, 0.42, (216, 172, 116))
    c.oval(0.9, 1.02, 0.55, 0.4, (200, 152, 98))
    c.box(0, 0.9, 1, 1, (186, 138, 88))
    for x, y in ((0.12, 0.62), (0.68, 0.72)):
        c.box(x - 0.02, y - 0.2, x + 0.02, y, (92, 122, 88))
        c.box(x - 0.07, y - 0.13, x + 0.07, y - 0.1, (92, 122, 88))
        c.box(x - 0.07, y - 0.18, x - 0.04, y - 0.1, (92, 122, 88))
        c.box(x + 0.04, y - 0.2, x + 0.07, y - 0.1, (92, 122, 88))


def _meadow(c: Canvas) -> None:
    c.gradient((176, 208, 226), (220, 234, 238), 0, 1)
    for x, y in ((0.2, 0.18), (0.7, 0.12)):
        for dx in (-0.07, 0, 0.07):
            c.oval(x + dx, y, 0.07, 0.05, (240, 244, 246))
    c.oval(0.15, 1.0, 0.7, 0.5, (164, 190, 138))
    c.oval(0.9, 1.05, 0.7, 0.5, (140, 172, 116))
    draws = Draws("flowers")
    for _ in range(40):
        x, y = draws.between(2, 98) / 100, draws.between(72, 98) / 100
        c.oval(x, y, 0.008, 0.008, draws.pick([(236, 228, 206), (214, 190, 200)]))


def _forest(c: Canvas) -> None:
    c.gradient((126, 148, 134), (96, 120, 104), 0, 1)
    c.box(0, 0.78, 1, 1, (78, 76, 58))
    for x, base, height, green in (
        (0.05, 0.8, 0.6, 74), (0.3, 0.78, 0.68, 86), (0.55, 0.8, 0.58, 74), (0.78, 0.79, 0.7, 84), (0.98, 0.8, 0.6, 72),
    ):  # fmt: skip
        c.box(x - 0.02, base - 0.08, x + 0.02, base + 0.06, (72, 58, 46))
        for k in range(3):
            y, w = base - 0.05 - height * k * 0.26, 0.15 - 0.035 * k
            c.polygon([(x - w, y), (x + w, y), (x, y - height * 0.42)], (green - 24, green, green - 10))


def _city(c: Canvas) -> None:
    c.gradient((60, 62, 92), (128, 112, 132), 0, 1)
    c.oval(0.85, 0.14, 0.07, 0.07, (226, 222, 200))
    draws = Draws("windows")
    for x, width, top in ((0, 0.2, 0.42), (0.2, 0.16, 0.25), (0.38, 0.2, 0.5), (0.6, 0.15, 0.3), (0.77, 0.23, 0.46)):
        c.box(x, top, x + width - 0.015, 1, (44, 46, 66))
        for row in range(int((0.96 - top) / 0.08)):
            for column in range(int(width / 0.055)):
                if draws.below(3):
                    wx, wy = x + 0.015 + column * 0.055, top + 0.03 + row * 0.08
                    c.box(wx, wy, wx + 0.025, wy + 0.04, (206, 186, 128))


def _cave(c: Canvas) -> None:
    c.gradient((112, 88, 76), (84, 64, 56), 0, 1)
    c.oval(0.5, 0.5, 0.44, 0.4, (138, 112, 96))
    for k, length in enumerate((0.3, 0.16, 0.24, 0.12, 0.2, 0.14, 0.34)):
        x = k / 6
        c.polygon([(x - 0.1, 0), (x + 0.1, 0), (x, length)], (58, 44, 40))
    for k, length in enumerate((0.22, 0.12, 0.08, 0.1, 0.14, 0.24)):
        x = k / 5
        c.polygon([(x - 0.13, 1), (x + 0.13, 1), (x, 1 - length)], (66, 50, 44))


def _mountains(c: Canvas) -> None:
    c.gradient((170, 190, 208), (224, 230, 236), 0, 1)
    for x, peak, width in ((0.2, 0.2, 0.36), (0.82, 0.14, 0.4), (0.52, 0.34, 0.34)):
        c.polygon([(x - width, 0.8), (x + width, 0.8), (x, peak)], (126, 136, 152))
        cut = (0.8 - peak) * 0.32
        slope = width / (0.8 - peak)
        c.polygon(
            [(x, peak), (x + cut * slope, peak + cut), (x + cut * slope * 0.3, peak + cut * 0.8),
             (x - cut * slope * 0.2, peak + cut * 1.1), (x - cut * slope, peak + cut)], (244, 247, 250),
        )  # fmt: skip
    c.box(0, 0.78, 1, 1, (214, 222, 230))


def _bay(c: Canvas) -> None:
    c.gradient((190, 212, 222), (226, 234, 232), 0, 0.4)
    c.gradient((104, 152, 170), (58, 104, 128), 0.4, 1)
    for row in range(6):
        y = 0.46 + row * 0.1
        for k in range(6):
            x = k / 5 + (row % 2) * 0.1
            c.line([(x - 0.06, y), (x - 0.03, y - 0.018), (x, y), (x + 0.03, y - 0.018), (x + 0.06, y)],
                   (150, 188, 200), 0.009)  # fmt: skip
    c.polygon([(0.62, 0.38), (0.84, 0.38), (0.79, 0.44), (0.67, 0.44)], (116, 88, 72))
    c.polygon([(0.73, 0.36), (0.73, 0.16), (0.83, 0.34)], (238, 234, 224))


def _galaxy(c: Canvas) -> None:
    c.gradient((18, 16, 34), (34, 26, 54), 0, 1)
    draws = Draws("stars")
    for _ in range(70):
        x, y, r = draws.below(1000) / 1000, draws.below(1000) / 1000, draws.between(2, 6) / 1000
        c.oval(x, y, r, r, (200, 200, 214))
    c.oval(0.72, 0.3, 0.17, 0.17, (134, 112, 128))
    c.oval(0.68, 0.26, 0.1, 0.09, (152, 130, 142))
    c.line([(0.46, 0.4), (0.72, 0.32), (0.98, 0.18)], (176, 164, 150), 0.018)
    c.oval(0.14, 0.8, 0.08, 0.08, (96, 112, 122))


def _living_room(c: Canvas) -> None:
    c.box(0, 0, 1, 0.74, (222, 206, 192))
    c.box(0, 0.74, 1, 1, (156, 124, 98))
    c.box(0, 0.72, 1, 0.75, (240, 232, 222))
    c.box(0.08, 0.1, 0.4, 0.44, (246, 242, 236))
    for x in (0.1, 0.25):
        for y in (0.12, 0.28):
            c.box(x, y, x + 0.13, y + 0.14, (176, 202, 214))
    c.box(0.48, 0.56, 0.94, 0.74, (124, 112, 132))
    c.box(0.45, 0.64, 0.97, 0.84, (142, 130, 150))
    c.box(0.62, 0.14, 0.86, 0.36, (120, 98, 80))
    c.box(0.64, 0.16, 0.84, 0.34, (190, 186, 160))
    c.line([(0.1, 0.84), (0.1, 0.56)], (96, 82, 72), 0.02)
    c.polygon([(0.02, 0.58), (0.18, 0.58), (0.14, 0.46), (0.06, 0.46)], (232, 214, 170))


def _volcano(c: Canvas) -> None:
    c.gradient((92, 66, 70), (178, 126, 108), 0, 1)
    for x, y, r in ((0.5, 0.1, 0.15), (0.36, 0.05, 0.12), (0.66, 0.05, 0.13)):
        c.oval(x, y, r, r * 0.7, (108, 92, 92))
    c.polygon([(0.04, 0.95), (0.4, 0.26), (0.6, 0.26), (0.96, 0.95)], (74, 58, 56))
    c.polygon([(0.41, 0.25), (0.59, 0.25), (0.56, 0.36), (0.63, 0.6), (0.55, 0.9), (0.48, 0.62), (0.5, 0.4),
               (0.44, 0.34)], (196, 98, 62))  # fmt: skip
    c.box(0, 0.9, 1, 1, (58, 46, 46))


def _rainstorm(c: Canvas) -> None:
    c.box(0, 0, 1, 1, (70, 84, 104, 96))
    for k in range(7):
        c.oval(k / 6, 0.0, 0.13, 0.1, (84, 92, 106))
    for row in range(7):
        for k in range(9):
            x, y = k / 8 + (row % 2) * 0.06, 0.14 + row * 0.13
            c.line([(x, y), (x - 0.03, y + 0.075)], (176, 204, 232), 0.01)


def _snowfall(c: Canvas) -> None:
    c.box(0, 0, 1, 1, (205, 215, 230, 70))
    for row in range(9):
        for k in range(8):
            x, y = k / 7 + (row % 2) * 0.07, 0.05 + row * 0.115
            c.oval(x, y, 0.022, 0.022, (150, 165, 190))
            c.oval(x, y, 0.018, 0.018, (250, 252, 255))


def _rainbow(c: Canvas) -> None:
    bands = ((214, 110, 110), (226, 164, 106), (230, 214, 128), (128, 184, 138), (118, 150, 206), (160, 126, 186))
    for k, band in enumerate(bands):
        c.arc(0.5, 0.86, 0.62 - k * 0.032, band, 0.034)


def _party(c: Canvas) -> None:
    pastels = ((206, 120, 132), (226, 190, 120), (130, 174, 150), (128, 148, 190))
    for y, sag in ((0.0, 0.1), (0.86, 0.08)):
        heights = [y + sag * 4 * (x / 8) * (1 - x / 8) for x in range(9)]
        c.line([(x / 8, h) for x, h in enumerate(heights)], (250, 248, 240), 0.012)
        for k in range(8):
            (a, b), x = heights[k : k + 2], k / 8
            c.polygon([(x + 0.01, a), (x + 0.115, b), (x + 0.0625, (a + b) / 2 + 0.12)], pastels[k % 4])


def _concert(c: Canvas) -> None:
    c.box(0, 0, 1, 1, (30, 22, 46, 90))
    for x, colour in ((0.08, (250, 236, 170)), (0.5, (214, 190, 240)), (0.92, (250, 236, 170))):
        lean = (0.5 - x) * 0.7
        c.polygon([(x - 0.02, 0), (x + 0.02, 0), (x + lean + 0.17, 0.92), (x + lean - 0.17, 0.92)], (*colour, 92))
    c.box(0, 0.91, 1, 1, (70, 52, 58))
    for k in range(10):
        c.oval(0.05 + k * 0.1, 0.955, 0.022, 0.022, (240, 226, 170))


def _race(c: Canvas) -> None:
    cell = 1 / 16
    for y in (0.0, 1 - 2 * cell):
        for row in range(2):
            for k in range(16):
                shade = 240 if (row + k) % 2 else 30
                c.box(k * cell, y + row * cell, (k + 1) * cell, y + (row + 1) * cell, (shade, shade, shade))


def _firework_show(c: Canvas) -> None:
    c.box(0, 0, 1, 1, (16, 14, 40, 120))
    for x, y, radius, colour in (
        (0.33, 0.34, 0.21, (250, 206, 150)),
        (0.7, 0.3, 0.2, (180, 220, 240)),
        (0.34, 0.74, 0.17, (236, 176, 206)),
        (0.69, 0.7, 0.2, (206, 232, 170)),
    ):
        for k in range(12):
            dx, dy = math.cos(k * math.pi / 6), math.sin(k * math.pi / 6)
            c.line([(x + dx * radius * 0.3, y + dy * radius * 0.3), (x + dx * radius, y + dy * radius)], colour, 0.014)
            c.oval(x + dx * radius, y + dy * radius, 0.014, 0.014, colour)


def _balloon_festival(c: Canvas) -> None:
    for x, y, colour in (
        (0.33, 0.12, (196, 130, 134)),
        (0.68, 0.2, (206, 180, 126)),
        (0.06, 0.34, (132, 166, 152)),
        (0.95, 0.36, (140, 150, 186)),
        (0.33, 0.62, (176, 142, 178)),
        (0.67, 0.68, (196, 150, 120)),
    ):
        pale = tuple(min(255, v + 46) for v in colour)
        c.polygon([(x - 0.07, y + 0.03), (x + 0.07, y + 0.03), (x + 0.025, y + 0.13), (x - 0.025, y + 0.13)], colour)
        c.oval(x, y, 0.085, 0.085, colour)
        c.oval(x, y, 0.03, 0.085, pale)
        c.box(x - 0.025, y + 0.145, x + 0.025, y + 0.185, (116, 88, 66))


_SCENES: dict[str, Callable[[Canvas], None]] = {
    "desert": _desert,
    "meadow": _meadow,
    "forest": _forest,
    "city": _city,
    "cave": _cave,
    "mountains": _mountains,
    "bay": _bay,
    "galaxy": _galaxy,
    "living room": _living_room,
    "volcano": _volcano,
}
_OCCASIONS: dict[str, Callable[[Canvas], None]] = {
    "rainstorm": _rainstorm,
    "snowfall": _snowfall,
    "rainbow": _rainbow,
    "party": _party,
    "concert": _concert,
    "race": _race,
    "firework show": _firework_show,
    "balloon festival": _balloon_festival,
}


@lru_cache(maxsize=256)
def backdrop(scene: str, occasion: str, size_pixels: int) -> NDArray[np.uint8]:
    """The empty stage of an event: uint8 [size, size, 3], read-only."""
    canvas = Canvas(size_pixels, (0, 0, 0))
    _SCENES[scene](canvas)
    _OCCASIONS[occasion](canvas)
    pixels = np.asarray(canvas.image.reduce(OVERSAMPLING))
    pixels.flags.writeable = False
    return pixels
