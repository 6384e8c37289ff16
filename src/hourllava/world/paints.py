"""Colours that are none of the world's eight: an object painted in one is named by its shape alone."""

from collections.abc import Sequence

import numpy as np

from hourllava.world.rng import Draws
from hourllava.world.vocabulary import COLOURS

MIN_DISTANCE = 64  # Euclidean, of 8-bit RGB: of a paint from the eight colours, and from what it must stand out from


def draw_paint(draws: Draws, behind_N3: Sequence[Sequence[int]] = ()) -> str:
    """ "#rrggbb", as likely any colour of the RGB cube that is far from the eight and from what lies behind."""
    others = np.array([*COLOURS.values(), *behind_N3])
    while True:  # of all colours 52 % will do; where a backdrop leaves least, a third
        colour = [draws.below(256) for _ in range(3)]
        if ((others - colour) ** 2).sum(-1).min() >= MIN_DISTANCE**2:
            return "#{:02x}{:02x}{:02x}".format(*colour)
