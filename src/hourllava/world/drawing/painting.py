"""Painted pictures: objects in any colour, named by their shape alone, so that shapes are learnt whatever their colour.

A nano that saw 48 of the 64 (colour, shape) combinations read the colour of an unseen one right in 94 %, its shape in
17 to 36 % (chance is 12.5): it had learnt what shapes look like colour by colour. A painted picture shows shapes in
colours that are none of the eight, so it asks for the shape alone and shows no combination that is held out.
"""

import numpy as np

from hourllava.world.drawing.backdrops import backdrop
from hourllava.world.drawing.paints import draw_paint
from hourllava.world.questions.stills import Still, still_at
from hourllava.world.rng import Draws
from hourllava.world.script import CastMember, Event, Script
from hourllava.world.vocabulary import PLACES, SHAPES

_SIZE_PIXELS = 64  # of the backdrop that is compared: colours do not depend on the picture's size


def painted(script: Script, still: Still, draws: Draws) -> tuple[Script, Still]:
    """A script of one second, and what it shows: the still, with other shapes in other colours.

    Places and sizes stay. All shapes differ and are the objects' names; colours are written "#rrggbb".
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
    """Any colour of the RGB cube that is far from the eight and from every pixel of its ninth of the backdrop."""
    row, column = divmod(PLACES.index(still.places[name]), 3)
    strip = np.array_split(backdrop(still.scene, still.occasion, _SIZE_PIXELS), 3)[row]
    return draw_paint(draws, np.array_split(strip, 3, axis=1)[column])
