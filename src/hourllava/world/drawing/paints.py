"""Paints: colours far from the world's eight. An object in such a colour is named by its shape alone."""

import numpy as np
from numpy.typing import ArrayLike

from hourllava.world.rng import Draws
from hourllava.world.vocabulary import COLOURS

MIN_DISTANCE = 64  # Euclidean, in 8-bit RGB: from the eight colours and from the background


def draw_paint(draws: Draws, behind_N3: ArrayLike = ()) -> str:
    """A colour "#rrggbb", uniform over all that are far from the eight and from the pixels `behind_N3`."""
    behind = np.asarray(behind_N3, int).reshape(-1, 3)
    others = np.concatenate([behind, list(COLOURS.values())])
    while True:  # 52 % of all colours are far from the eight; with a backdrop, at least a third remain
        colour = [draws.below(256) for _ in range(3)]
        if ((others - colour) ** 2).sum(-1).min() >= MIN_DISTANCE**2:
            return "#{:02x}{:02x}{:02x}".format(*colour)
