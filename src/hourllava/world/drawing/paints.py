"""Colours that are none of the world's eight: an object painted in one is named by its shape alone."""

import numpy as np
from numpy.typing import ArrayLike

from hourllava.world.rng import Draws
from hourllava.world.vocabulary import COLOURS

MIN_DISTANCE = 64  # Euclidean, of 8-bit RGB: of a paint from the eight colours, and from what it must stand out from


def draw_paint(draws: Draws, behind_N3: ArrayLike = ()) -> str:
    """ "#rrggbb", as likely any colour of the RGB cube that is far from the eight and from what lies behind."""
    behind = np.asarray(behind_N3, int).reshape(-1, 3)
    others = np.concatenate([behind, list(COLOURS.values())])
    while True:  # of all colours 52 % will do; where a backdrop leaves least, a third
        colour = [draws.below(256) for _ in range(3)]
        if ((others - colour) ** 2).sum(-1).min() >= MIN_DISTANCE**2:
            return "#{:02x}{:02x}{:02x}".format(*colour)
