"""Reads MarathonWorld's questions back: from the words to the template and its slots.

Shares nothing with the generator but the file of phrasings.
"""

import functools
import json
import re
from importlib.resources import files

PHRASINGS: dict[str, dict[str, list[str]]] = json.loads(
    files("hourllava.world.questions").joinpath("phrasings.json").read_text(encoding="utf-8")
)
COLOURS = ["red", "orange", "yellow", "green", "cyan", "blue", "purple", "white"]
SHAPES = ["ball", "square", "triangle", "star", "heart", "cross", "moon", "arrow"]
OCCASIONS = ["rainstorm", "snowfall", "rainbow", "party", "concert", "race", "firework show", "balloon festival"]
SCENES = [
    "desert", "meadow", "forest", "city", "cave", "mountains", "bay", "galaxy", "living room", "volcano",
]  # fmt: skip
ROWS, COLUMNS = {"top": 0, "middle": 1, "bottom": 2}, {"left": 0, "centre": 1, "right": 2}
PAST = {
    "slid away": "slide", "left the picture": "leave", "jumped up and down": "jump", "swayed from side to side": "sway",
    "spun around": "spin", "grew": "grow", "shrank": "shrink", "blinked": "blink", "split in two": "split",
    "swapped places with": "swap", "circled": "orbit", "covered": "cover", "bumped into": "bump",
}  # fmt: skip
PLAIN = {verb: verb for verb in PAST.values()} | {"swap places": "swap", "circle": "orbit"}
MEET = {"swap places with": "swap", "circle": "orbit", "cover": "cover", "bump into": "bump"}
MEETINGS = ("swap", "orbit", "cover", "bump")

_OBJECT = f"(?:(?:{'|'.join(COLOURS)}) )?(?:{'|'.join(SHAPES)})"  # painted ones are named by their shape
_TITLE = f"the (?:{'|'.join(OCCASIONS)}) in the (?:{'|'.join(SCENES)})"
_BY_LETTER = [
    re.escape(p.lower()).replace(re.escape("{glyph}"), "[e-z2-9]")
    for both in PHRASINGS["event_by_letter"].values()
    for p in both
]
_SLOTS = {
    "object": _OBJECT,
    "an_object": f"an? {_OBJECT}",
    "glyph": "[e-z2-9]",
    "event": "|".join([*_BY_LETTER, _TITLE]),
    "thing": rf"the letter [e-z2-9]|{_TITLE}",
    "place": "|".join([f"{r} {c}" for r in ROWS for c in COLUMNS] + ["centre"]),
    "past": "|".join(PAST),
    "plain": "|".join(PLAIN),
    "meet": "|".join(MEET),
}


class Unanswerable(ValueError):
    """The log does not answer the question, or answers it in several ways; or its words are unknown."""


def require(condition: bool, about: object) -> None:
    """Raise `Unanswerable` unless the condition holds."""
    if not condition:
        raise Unanswerable(f"no single answer: {about}")


@functools.cache  # all patterns take seconds to compile, and a test reads some of them
def _pattern(phrasing: str) -> re.Pattern[str]:
    """The pattern of small letters: it compiles ten times as fast as one that ignores the case."""
    parts = re.split(r"\{(\w+)\}", phrasing)
    regex = "".join(
        re.escape(part) if k % 2 == 0 else f"(?P<{part}>{_SLOTS[part.rstrip('23')]})" for k, part in enumerate(parts)
    )
    return re.compile(regex)


_ENTRIES = [
    (template, split, phrasing.lower(), (phrasing.lower().partition("{")[0], phrasing.lower().rpartition("}")[2]))
    for template, both in PHRASINGS.items()
    if template != "event_by_letter"
    for split, phrasings in both.items()
    for phrasing in phrasings
]


def read(text: str) -> tuple[str, str, dict[str, str]]:
    """The template, split and slots of a question.

    Raises:
        Unanswerable: it does not match exactly one phrasing.
    """
    small = text.lower()
    found = [
        (template, split, {slot: text[slice(*match.span(slot))] for slot in match.groupdict()})
        for template, split, phrasing, (start, end) in _ENTRIES
        if small.startswith(start) and small.endswith(end) and (match := _pattern(phrasing).fullmatch(small))
    ]
    require(len(found) == 1, (text, [f[0] for f in found]))
    return found[0]
