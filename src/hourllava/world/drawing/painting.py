"""Painted pictures: objects in arbitrary colours, named by shape alone, so that a model learns shapes in any colour.

A nano that was trained on 48 of the 64 (colour, shape) combinations named the colour of unseen combinations correctly
in 94 %, but the shape in only 17 to 36 % (chance is 12.5): it had learnt the shapes of each colour separately. Painted
pictures avoid the eight colours, so they ask for the shape alone and show no held-out combination.
"""

import numpy as np

from hourllava.world.drawing.backdrops import backdrop
from hourllava.world.drawing.paints import draw_paint
from hourllava.world.questions.stills import Still, still_at
from hourllava.world.rng import Draws
from hourllava.world.script import CastMember, Event, Script
from hourllava.world.vocabulary import PLACES, SHAPES

_SIZE_PIXELS = 64  # of the backdrop for comparison; so the colours do not depend on the picture's size


def painted(script: Script, still: Still, draws: Draws) -> tuple[Script, Still]:
    """A script of one second, and its still: the given still with other shapes in other colours.

    Places and sizes stay. All shapes differ and serve as the objects' names; colours are "#rrggbb".
    """
    names = dict(zip(still.places, draws.sample(SHAPES, len(still.places))))
    cast = tuple(
        CastMember(name=shape, colour=_drawn_colour(still, name, draws), shape=shape, size=still.sizes[name])
        for name, shape in names.items()
    )
    event = Event(
        occasion=still.occasion,
        scene=still.scene,
        start_seconds=0,
        end_seconds=1,
        places={names[name]: place for name, place in still.places.items()},
    )
    second = Script(seed=script.seed, split=script.split, duration_seconds=1, cast=cast, events=(event,), needles=())
    shown = still_at(second, 0)
    assert shown is not None
    return second, shown


def _drawn_colour(still: Still, name: str, draws: Draws) -> str:
    """A colour that is far from the eight and from every pixel of the backdrop in the object's ninth of the frame."""
    row, column = divmod(PLACES.index(still.places[name]), 3)
    strip = np.array_split(backdrop(still.scene, still.occasion, _SIZE_PIXELS), 3)[row]
    return draw_paint(draws, np.array_split(strip, 3, axis=1)[column])
