"""The colours, shapes, places, scenes, actions and letters of MarathonWorld, with the words for them.

All can be distinguished in 64-pixel frames sampled once a second: saturated colours on muted backgrounds, shapes with
visible rotation, nine places, actions whose phase shows at whole seconds.
"""

from dataclasses import dataclass
from typing import Literal

from hourllava.world.drawing.glyphs import GLYPH_ROWS

Split = Literal["train", "test"]
SPLITS: tuple[Split, ...] = ("train", "test")

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (226, 26, 34),
    "orange": (255, 132, 0),
    "yellow": (255, 226, 16),
    "green": (18, 158, 52),
    "cyan": (16, 214, 232),
    "blue": (28, 66, 232),
    "purple": (150, 36, 200),
    "white": (255, 255, 255),
}
SHAPES = ("ball", "square", "triangle", "star", "heart", "cross", "moon", "arrow")
SIZES: tuple[Literal["small", "large"], ...] = ("small", "large")
PLACES = (
    "top left",
    "top centre",
    "top right",
    "middle left",
    "centre",
    "middle right",
    "bottom left",
    "bottom centre",
    "bottom right",
)
SCENES = (
    "desert",
    "meadow",
    "forest",
    "city",
    "cave",
    "mountains",
    "bay",
    "galaxy",
    "living room",
    "volcano",
)
OCCASIONS = (
    "rainstorm",
    "snowfall",
    "rainbow",
    "party",
    "concert",
    "race",
    "firework show",
    "balloon festival",
)
GLYPHS = tuple(GLYPH_ROWS)
DIRECTIONS = ("left", "right", "up", "down")
TRANSITIONS = ("cut", "fade", "wipe")


@dataclass(frozen=True)
class Verb:
    """The words for one kind of action; `past` follows the actor, `plain` names it in a list."""

    plain: str  # "spin"
    past: str  # "spun around"
    with_partner: bool = False
    directed: bool = False


VERBS: dict[str, Verb] = {
    "slide": Verb("slide", "slid away", directed=True),
    "leave": Verb("leave", "left the picture", directed=True),
    "jump": Verb("jump", "jumped up and down"),
    "sway": Verb("sway", "swayed from side to side"),
    "spin": Verb("spin", "spun around"),
    "grow": Verb("grow", "grew"),
    "shrink": Verb("shrink", "shrank"),
    "blink": Verb("blink", "blinked"),
    "split": Verb("split", "split in two"),
    "swap": Verb("swap places", "swapped places with", with_partner=True),
    "orbit": Verb("circle", "circled", with_partner=True),
    "cover": Verb("cover", "covered", with_partner=True),
    "bump": Verb("bump", "bumped into", with_partner=True),
}
SOLO_VERBS = tuple(name for name, verb in VERBS.items() if not verb.with_partner)
PARTNER_VERBS = tuple(name for name, verb in VERBS.items() if verb.with_partner)


def split_pairs(split: Split) -> list[tuple[str, str]]:
    """The (colour, shape) pairs of a split: 48 in train, the other 16 in test.

    Both splits contain every colour and every shape (six times in train, twice in test), so only the combinations of
    the test split are new.
    """
    pairs = [(colour, shape) for colour in range(len(COLOURS)) for shape in range(len(SHAPES))]
    names = list(COLOURS)
    return [(names[c], SHAPES[s]) for c, s in pairs if ((c - 3 * s) % 4 == 0) == (split == "test")]
