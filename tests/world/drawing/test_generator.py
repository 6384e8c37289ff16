"""The generator's name is a digest of what it makes, so a changed drawing needs a new name."""

import hashlib
import itertools

import numpy as np
import pytest

from hourllava.world.drawing import backdrops, motion, render, sprites
from hourllava.world.drawing.render import TRANSITION_SECONDS, Renderer
from hourllava.world.generate import DIFFICULTIES, generate_script
from hourllava.world.script import GENERATOR, Action
from hourllava.world.vocabulary import COLOURS, DIRECTIONS, GLYPHS, OCCASIONS, PLACES, SCENES, SHAPES, VERBS

SIZE_PIXELS = 64


def scripts():
    """Scripts of all difficulties and both splits, short and long, with cards at given times, and painted."""
    for seed, (difficulty, split) in enumerate(itertools.product(sorted(DIFFICULTIES), ("train", "test"))):
        yield generate_script(seed, 180 + 600 * seed, split=split, density=DIFFICULTIES[difficulty])
    yield generate_script(7, 9)
    yield generate_script(8, 300, needles=8, needle_starts_seconds=(40, 250))
    yield generate_script(9, 240, painted=True)


def poses():
    """The poses of every action in every direction."""
    for verb, direction in itertools.product(sorted(VERBS), DIRECTIONS):
        partner = "b" if VERBS[verb].with_partner else None
        action = Action(
            verb=verb, actor="a", partner=partner, direction=direction, end_place="centre", start_seconds=2,
            end_seconds=9,
        )  # fmt: skip
        for eighth in range(2 * 8, 9 * 8):
            for pose in motion.moving(action, {"a": PLACES[0], "b": PLACES[5]}, eighth / 8):
                numbers = (pose.x, pose.y, pose.scale, pose.angle_degrees)
                yield verb, direction, eighth, pose.name, *(f"{number:.9f}" for number in numbers)


def frames():
    """Frames: every second of three short videos, and the middle of each transition."""
    for seed, painted in ((1, False), (2, False), (3, True)):
        script = generate_script(seed, 90, painted=painted, density=DIFFICULTIES["hard"])
        renderer = Renderer(script, SIZE_PIXELS)
        changes = [event.start_seconds - TRANSITION_SECONDS / 2 for event in script.events[1:]]
        yield from (renderer.frame(time) for time in sorted([*range(90), *changes]))


def drawn_digest():
    digest = hashlib.sha256()
    for script in scripts():
        digest.update(script.model_dump_json().encode())
    for pose in poses():
        digest.update(repr(pose).encode())
    for scene, occasion in itertools.product(SCENES, OCCASIONS):
        digest.update(backdrops.backdrop(scene, occasion, SIZE_PIXELS).tobytes())
    for shape, colour, (diameter, angle) in itertools.product(SHAPES, [*COLOURS, "#7a5c33"], ((13, 0), (21, 45))):
        for layer in sprites.sprite(shape, colour, diameter, angle):
            digest.update(layer.tobytes())
    for glyph, colour in itertools.product(GLYPHS, COLOURS):
        digest.update(sprites.card(glyph, colour, SIZE_PIXELS).tobytes())
    for frame in frames():
        digest.update(np.ascontiguousarray(frame).tobytes())
    return digest.hexdigest()[:16]


def clear_caches():
    for module in (backdrops, sprites, motion):
        for value in vars(module).values():
            if hasattr(value, "cache_clear"):
                value.cache_clear()


def test_the_generator_is_named_by_what_it_makes():
    digest = drawn_digest()
    assert digest == GENERATOR, (
        "seeds give other scripts or frames than before (a changed drawing, or another Pillow); if you want that, set "
        f"GENERATOR in hourllava/world/script.py to {digest!r}: existing references are then refused"
    )


@pytest.mark.parametrize(
    ("module", "name", "value"),
    [
        (sprites, "RIM_DARK", 0.10),
        pytest.param(motion, "REACH", 0.17, marks=pytest.mark.slow),
        pytest.param(render, "DIAMETERS", {"small": 0.21, "large": 0.34}, marks=pytest.mark.slow),
        pytest.param(sprites, "OVERSAMPLING", 3, marks=pytest.mark.slow),
    ],
)
def test_a_small_change_of_the_drawing_gives_another_name(module, name, value, monkeypatch):
    monkeypatch.setattr(module, name, value)
    clear_caches()
    try:
        assert drawn_digest() != GENERATOR
    finally:
        monkeypatch.undo()
        clear_caches()
