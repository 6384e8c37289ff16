"""Answers questions about stills from the screen log; shares no code with `hourllava.world.questions.stills`."""

import re

import numpy as np

from hourllava.world import screen_log
from hourllava.world.questions.stills import PICTURE_PHRASINGS
from hourllava.world.vocabulary import COLOURS, GLYPHS, OCCASIONS, PLACES, SCENES, SHAPES

ROWS, COLUMNS = ("above", "", "below"), ("left", "", "right")

OBJECT = f"(?:(?:{'|'.join(COLOURS)}) )?(?:{'|'.join(SHAPES)})"  # painted ones have no colour
THING = f"the (?:{OBJECT}|letter (?:{'|'.join(GLYPHS)})|(?:{'|'.join(OCCASIONS)}) in the (?:{'|'.join(SCENES)}))"
SLOTS = {
    "object": OBJECT, "an_object": f"an? {OBJECT}", "place": "|".join(PLACES), "glyph": "|".join(GLYPHS),
    "number": "[1-5]", "thing": THING, "question": ".+", "text": "(?s:.+)",
}  # fmt: skip


def patterns(split):
    """Yield (template, pattern with named slots) of every phrasing."""
    for template, phrasings in PICTURE_PHRASINGS.items():
        for phrasing in phrasings[split]:
            parts = re.split(r"\{(\w+)\}", phrasing)
            yield (
                template,
                re.compile(
                    "".join(
                        re.escape(part) if k % 2 == 0 else f"(?P<{part}>{SLOTS[part.rstrip('2')]})"
                        for k, part in enumerate(parts)
                    )
                ),
            )


PATTERNS = {split: list(patterns(split)) for split in ("train", "test")}


class Seen:
    """The screen log at one second."""

    def __init__(self, script, second):
        log = [shown for shown in screen_log(script) if shown.start_seconds <= second < shown.end_seconds]
        self.card = next((shown for shown in log if shown.kind == "card"), None)
        self.title = next(shown.name for shown in log if shown.kind == "event")
        self.moves = any(shown.kind == "action" for shown in log)
        self.objects = {} if self.card else {shown.name: shown for shown in log if shown.kind == "object"}

    def at(self, place):
        return next(shown for shown in self.objects.values() if shown.place == place)

    def answer(self, template, slots, script):
        sizes = {member.name: member.size for member in script.cast}
        match template:
            case "is_card":
                return "yes" if self.card else "no"
            case "letter":
                return self.card.name
            case "letter_colour":
                assert slots["glyph"] == self.card.name
                return self.card.colour
            case "event":
                return self.title
            case "scene":
                return self.title.split(" in the ")[1]
            case "place":
                return self.objects[slots["object"]].place
            case "object_at_place":
                return self.at(slots["place"]).name
            case "colour_at_place":
                return self.at(slots["place"]).colour
            case "shape_at_place":
                return self.at(slots["place"]).shape
            case "size":
                return sizes[slots["object"]]
            case "count":
                return str(len(self.objects))
            case "is_there":
                return "yes" if re.sub("^an? ", "", slots["an_object"]) in self.objects else "no"
            case "relative":
                (r, c), (r2, c2) = (
                    divmod(PLACES.index(self.objects[slots[name]].place), 3) for name in ("object", "object2")
                )
                return f"{ROWS[int(np.sign(r - r2)) + 1]} {COLUMNS[int(np.sign(c - c2)) + 1]}".strip()
            case "describe":
                if self.card:
                    return f"A card shows the letter {self.card.name} in {self.card.colour}."
                shown = sorted(self.objects.values(), key=lambda shown: PLACES.index(shown.place))
                parts = [f"a {sizes[one.name]} {one.name} in the {one.place}" for one in shown]
                return f"{self.title[0].upper()}{self.title[1:]}: {', '.join(parts[:-1])} and {parts[-1]}."


def solve(seen, question, split, script):
    """The answers under all readings of a question; there must be exactly one."""
    answers = set()
    for template, pattern in PATTERNS[split]:
        match = pattern.fullmatch(question)
        if not match or template in ("about_text", "which_option", "copy"):
            continue
        slots = match.groupdict()
        several = len(seen) > 1
        answers.add(
            solve_several(seen, template, slots, split, script) if several else seen[0].answer(template, slots, script)
        )
    return answers - {None}


def solve_several(seen, template, slots, split, script):
    match template:
        case "in_image":
            (answer,) = solve([seen[int(slots["number"]) - 1]], slots["question"], split, script)
            return answer
        case "num_cards":
            return str(sum(one.card is not None for one in seen))
        case "same_event":
            a, b = (seen[int(slots[name]) - 1] for name in ("number", "number2"))
            return "yes" if a.title == b.title else "no"
        case "what_moved":
            (name,) = [n for n in seen[0].objects if seen[0].objects[n].place != seen[-1].objects[n].place]
            return name
        case "which_image_place":
            has = [one.objects[slots["object"]].place == slots["place"] if slots["object"] in one.objects else False
                   for one in seen]  # fmt: skip
        case "which_image":
            thing = slots["thing"].removeprefix("the ")
            letter = thing.removeprefix("letter ")
            has = [
                one.card.name == letter if one.card else thing in (*one.objects, one.title.removeprefix("the "))
                for one in seen
            ]
        case _:
            return None
    assert sum(has) == 1
    return f"image {has.index(True) + 1}"
