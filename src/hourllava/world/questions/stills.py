"""Questions about one frame or several frames, in the words of the questions about videos.

A `Still` describes a frame in which nothing moves; every answer follows from it.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from itertools import permutations
from typing import Literal

from hourllava.world.questions.draft import NUM_OPTIONS, three_wrong
from hourllava.world.questions.objects import RELATIONS, relation
from hourllava.world.questions.temporality import QUARTERS
from hourllava.world.rng import Draws
from hourllava.world.script import Needle, Script, places_after
from hourllava.world.vocabulary import (
    COLOURS,
    DIRECTIONS,
    GLYPHS,
    OCCASIONS,
    PLACES,
    SCENES,
    SHAPES,
    SOLO_VERBS,
    VERBS,
    Split,
    split_pairs,
)
from hourllava.world.wording import bucket, listed, sentence, spoken_duration, with_article

PICTURE_PHRASINGS: dict[str, dict[str, list[str]]] = json.loads(
    files("hourllava.world.questions").joinpath("picture_phrasings.json").read_text(encoding="utf-8")
)


@dataclass(frozen=True)
class Exchange:
    """A question with its answer.

    Attributes:
        template: the kind of question.
        question, answer: texts.
        options: empty, or for multiple choice the options, one of which is `answer`.
    """

    template: str
    question: str
    answer: str
    options: tuple[str, ...] = ()


@dataclass(frozen=True)
class Still:
    """A frame in which nothing moves: a card, or an event with objects at rest.

    Attributes:
        time_seconds: the time of the frame.
        card: the card that covers the picture, if there is one.
        occasion, scene: those of the event, also behind a card.
        places: object -> place; empty behind a card. In a painted picture an object is named by its shape alone.
        sizes: object -> size, of the same objects.
    """

    time_seconds: int
    card: Needle | None
    occasion: str
    scene: str
    places: Mapping[str, str]
    sizes: Mapping[str, Literal["small", "large"]]

    @property
    def title(self) -> str:
        """The event's title."""
        return f"the {self.occasion} in the {self.scene}"

    @property
    def description(self) -> str:
        """Everything in the frame, objects in raster order; each frame has exactly one description."""
        if self.card is not None:
            return f"A card shows the letter {self.card.glyph} in {self.card.colour}."
        ordered = sorted(self.places, key=lambda name: PLACES.index(self.places[name]))
        where = [f"a {self.sizes[name]} {name} in the {self.places[name]}" for name in ordered]
        return f"{sentence(self.title)}: {listed(where)}."


def still_at(script: Script, time_seconds: int) -> Still | None:
    """The still at a whole second; None while something moves."""
    event = next(event for event in reversed(script.events) if event.start_seconds <= time_seconds)
    card = next((n for n in script.needles if n.start_seconds <= time_seconds < n.end_seconds), None)
    places: dict[str, str] = {}
    if card is None:
        if any(action.start_seconds <= time_seconds < action.end_seconds for action in event.actions):
            return None
        places = dict(event.places)
        for action in event.actions:
            if action.end_seconds <= time_seconds:
                places = places_after(places, action)
    sizes = {member.name: member.size for member in script.cast if member.name in places}
    return Still(time_seconds, card, event.occasion, event.scene, places, sizes)


@dataclass(frozen=True)
class _Fact:
    """A question without its words. `pool` holds possible wrong options; it is empty if the question is always open."""

    template: str
    slots: dict[str, str]
    answer: str
    pool: tuple[str, ...] = ()


def describe_exchange(still: Still, split: Split, draws: Draws) -> Exchange:
    """The description of a frame as an answer."""
    return _worded(_describe(still, split, draws), split, draws)


def still_exchange(still: Still, split: Split, draws: Draws) -> Exchange:
    """One question about a frame."""
    builders = (_describe, _is_card) + ((_letter, _letter_colour) if still.card else _ABOUT_OBJECTS)
    return _worded(draws.pick(builders)(still, split, draws), split, draws)


def stills_exchange(stills: Sequence[Still], split: Split, draws: Draws) -> Exchange:
    """One question about several frames of one video; images are numbered in the given order."""
    while True:
        fact = draws.pick((_which_image, _which_image_place, _in_image, _num_cards, _what_moved, _same_event))(
            stills, split, draws
        )
        if isinstance(fact, Exchange):
            return fact
        if fact is not None:
            return _worded(fact, split, draws)


def option_exchange(split: Split, draws: Draws) -> Exchange:
    """Find a given text among the options: the first skill that multiple choice needs."""
    options = tuple(draws.sample(_alike(split, draws), NUM_OPTIONS))
    answer = draws.pick(options)
    question = draws.pick(PICTURE_PHRASINGS["which_option"][split]).format(text=answer)
    return Exchange("which_option", question, answer, options)


def copy_exchange(text: str, split: Split, draws: Draws) -> Exchange:
    """Repeat a text."""
    return Exchange("copy", draws.pick(PICTURE_PHRASINGS["copy"][split]).format(text=text), text)


def text_exchange(text: str, exchange: Exchange, split: Split, draws: Draws) -> Exchange:
    """A question that is answered by a given text."""
    asked = draws.pick(PICTURE_PHRASINGS["about_text"][split]).format(text=text, question=exchange.question)
    return replace(exchange, question=asked)


def _worded(fact: _Fact, split: Split, draws: Draws) -> Exchange:
    """Put a fact into words; if there are enough wrong options, every second question is multiple choice."""
    question = draws.pick(PICTURE_PHRASINGS[fact.template][split]).format(**fact.slots)
    wrong = three_wrong(draws, fact.answer, fact.pool)
    if len(wrong) < NUM_OPTIONS - 1 or draws.below(2):
        return Exchange(fact.template, question, fact.answer)
    return Exchange(fact.template, question, fact.answer, tuple(draws.shuffled((fact.answer, *wrong))))


def _alike(split: Split, draws: Draws) -> Sequence[str]:
    """At least four texts of one kind; all kinds of answers to questions about videos occur."""
    kind = draws.below(len(_KINDS) + 4)
    if kind < len(_KINDS):
        return _KINDS[kind]
    if kind == len(_KINDS):
        return _names(split)
    if kind == len(_KINDS) + 1:
        return sorted({spoken_duration(draws.between(1, 3600) / draws.between(1, 60)) for _ in range(16)})
    if kind == len(_KINDS) + 2:
        total_seconds = draws.between(60, 3600)
        return sorted({bucket(seconds, total_seconds) for seconds in range(0, total_seconds, 10)})
    verbs = [VERBS[verb].plain for verb in draws.sample(SOLO_VERBS, 3)]
    return [", ".join(some) for some in permutations(draws.pick((("1", "2", "3"), tuple(verbs))))]


def _titles() -> tuple[str, ...]:
    return tuple(f"the {occasion} in the {scene}" for occasion in OCCASIONS for scene in SCENES)


def _names(split: Split) -> tuple[str, ...]:
    return tuple(" ".join(pair) for pair in split_pairs(split))


def _names_like(name: str, split: Split) -> tuple[str, ...]:
    """All names of the same form: shapes for painted objects, otherwise colours with shapes."""
    return SHAPES if name in SHAPES else _names(split)


_KINDS: tuple[tuple[str, ...], ...] = (
    PLACES, tuple(COLOURS), SHAPES, SCENES, GLYPHS, RELATIONS, DIRECTIONS, QUARTERS, _titles(),
    tuple(f"the letter {glyph}" for glyph in GLYPHS), tuple(VERBS[verb].past for verb in SOLO_VERBS),
)  # fmt: skip


def _describe(still: Still, split: Split, draws: Draws) -> _Fact:
    return _Fact("describe", {}, still.description)


def _is_card(still: Still, split: Split, draws: Draws) -> _Fact:
    return _Fact("is_card", {}, "yes" if still.card else "no")


def _letter(still: Still, split: Split, draws: Draws) -> _Fact:
    assert still.card is not None
    return _Fact("letter", {}, still.card.glyph, GLYPHS)


def _letter_colour(still: Still, split: Split, draws: Draws) -> _Fact:
    assert still.card is not None
    return _Fact("letter_colour", {"glyph": still.card.glyph}, still.card.colour, tuple(COLOURS))


def _event(still: Still, split: Split, draws: Draws) -> _Fact:
    return _Fact("event", {}, still.title, _titles())


def _scene(still: Still, split: Split, draws: Draws) -> _Fact:
    return _Fact("scene", {}, still.scene, SCENES)


def _place(still: Still, split: Split, draws: Draws) -> _Fact:
    name, place = draws.pick(list(still.places.items()))
    return _Fact("place", {"object": name}, place, PLACES)


def _object_at_place(still: Still, split: Split, draws: Draws) -> _Fact:
    name, place = draws.pick(list(still.places.items()))
    return _Fact("object_at_place", {"place": place}, name, _names_like(name, split))


def _attribute_at_place(still: Still, split: Split, draws: Draws) -> _Fact:
    name, place = draws.pick(list(still.places.items()))
    *colour, shape = name.split(" ")
    if colour and draws.below(2) == 0:
        return _Fact("colour_at_place", {"place": place}, colour[0], tuple(COLOURS))
    return _Fact("shape_at_place", {"place": place}, shape, SHAPES)


def _relative(still: Still, split: Split, draws: Draws) -> _Fact:
    name, other = draws.sample(list(still.places), 2)
    answer = relation(still.places[name], still.places[other])
    return _Fact("relative", {"object": name, "object2": other}, answer, RELATIONS)


def _size(still: Still, split: Split, draws: Draws) -> _Fact:
    name = draws.pick(list(still.places))
    return _Fact("size", {"object": name}, still.sizes[name])


def _count(still: Still, split: Split, draws: Draws) -> _Fact:
    return _Fact("count", {}, str(len(still.places)), ("1", "2", "3", "4", "5", "6"))


def _is_there(still: Still, split: Split, draws: Draws) -> _Fact:
    names = list(still.places)
    if draws.below(2):
        return _Fact("is_there", {"an_object": with_article(draws.pick(names))}, "yes")
    absent = [name for name in _names_like(names[0], split) if name not in names]
    return _Fact("is_there", {"an_object": with_article(draws.pick(absent))}, "no")


_StillFact = Callable[[Still, Split, Draws], _Fact]
_ABOUT_OBJECTS: tuple[_StillFact, ...] = (
    _event, _scene, _place, _object_at_place, _attribute_at_place, _relative, _size, _count, _is_there,
)  # fmt: skip


def _image(number: int, stills: Sequence[Still]) -> tuple[str, tuple[str, ...]]:
    """The name of an image as the answer, and the names of all images as options."""
    return f"image {number}", tuple(f"image {k}" for k in range(1, len(stills) + 1))


def _which_image(stills: Sequence[Still], split: Split, draws: Draws) -> _Fact | None:
    still = draws.pick(stills)
    if still.card is not None:
        thing = f"the letter {still.card.glyph}"
        shows = [bool(other.card and other.card.glyph == still.card.glyph) for other in stills]
    elif draws.below(2):
        thing, shows = still.title, [other.card is None and other.title == still.title for other in stills]
    else:
        name = draws.pick(list(still.places))
        thing, shows = f"the {name}", [name in other.places for other in stills]
    if sum(shows) != 1:
        return None
    answer, pool = _image(1 + shows.index(True), stills)
    return _Fact("which_image", {"thing": thing}, answer, pool)


def _which_image_place(stills: Sequence[Still], split: Split, draws: Draws) -> _Fact | None:
    still = draws.pick(stills)
    if still.card is not None:
        return None
    name, place = draws.pick(list(still.places.items()))
    shows = [other.places.get(name) == place for other in stills]
    if sum(shows) != 1:
        return None
    answer, pool = _image(1 + shows.index(True), stills)
    return _Fact("which_image_place", {"object": name, "place": place}, answer, pool)


def _in_image(stills: Sequence[Still], split: Split, draws: Draws) -> Exchange:
    k = draws.below(len(stills))
    exchange = still_exchange(stills[k], split, draws)
    asked = draws.pick(PICTURE_PHRASINGS["in_image"][split]).format(number=k + 1, question=exchange.question)
    return replace(exchange, question=asked)


def _num_cards(stills: Sequence[Still], split: Split, draws: Draws) -> _Fact:
    count = sum(still.card is not None for still in stills)
    return _Fact("num_cards", {}, str(count), tuple(str(k) for k in range(len(stills) + 1)))


def _what_moved(stills: Sequence[Still], split: Split, draws: Draws) -> _Fact | None:
    first, last = stills[0], stills[-1]
    if first.card or last.card or first.title != last.title:
        return None
    moved = [name for name in first.places if first.places[name] != last.places[name]]
    return _Fact("what_moved", {}, moved[0], tuple(first.places)) if len(moved) == 1 else None


def _same_event(stills: Sequence[Still], split: Split, draws: Draws) -> _Fact | None:
    i, j = sorted(draws.sample(range(len(stills)), 2))
    if stills[i].card or stills[j].card:
        return None
    answer = "yes" if stills[i].title == stills[j].title else "no"
    return _Fact("same_event", {"number": str(i + 1), "number2": str(j + 1)}, answer)
