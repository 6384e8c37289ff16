"""Spatiality and objects: places, relations, attributes, interaction, reasoning, existence and permanence."""

from hourllava.world.questions.draft import Draft, Format, three_wrong
from hourllava.world.questions.view import View, final_places, only_once, pick_event, sole_doer, span
from hourllava.world.rng import Draws
from hourllava.world.script import Event, Needle
from hourllava.world.vocabulary import COLOURS, PARTNER_VERBS, PLACES, SHAPES, SOLO_VERBS, VERBS, split_pairs
from hourllava.world.wording import with_article

_SIDES = {-1: "left", 0: "", 1: "right"}
_HEIGHTS = {-1: "above", 0: "", 1: "below"}
RELATIONS = tuple(f"{h} {s}".strip() for h in _HEIGHTS.values() for s in _SIDES.values() if h or s)


def relation(place: str, other: str) -> str:
    """Where `place` lies as seen from `other`: "left", "above right", ..."""
    (row, column), (row2, column2) = divmod(PLACES.index(place), 3), divmod(PLACES.index(other), 3)
    height = _HEIGHTS[(row > row2) - (row < row2)]
    side = _SIDES[(column > column2) - (column < column2)]
    return f"{height} {side}".strip()


def place_at_start(view: View, draws: Draws, answer_format: Format) -> Draft | None:
    """Where an object is when an event begins."""
    event = pick_event(view, draws)
    if not event:
        return None
    name = draws.pick(list(event.places))
    answer = event.places[name]
    slots = {"object": name, "event": event.title}
    return Draft("place_at_start", slots, answer, three_wrong(draws, answer, PLACES), (_opening(event),))


def relative(view: View, draws: Draws, answer_format: Format) -> Draft | None:
    """The direction from one object to another, at the start or the end of an event."""
    event = pick_event(view, draws)
    if not event:
        return None
    name, other = draws.sample(list(event.places), 2)
    template, places = draws.pick((("relative_at_start", event.places), ("relative_at_end", final_places(event))))
    answer = relation(places[name], places[other])
    where = _opening(event) if template == "relative_at_start" else span(event)
    slots = {"object": name, "object2": other, "event": event.title}
    return Draft(template, slots, answer, three_wrong(draws, answer, RELATIONS), (where,))


def _opening(event: Event) -> tuple[float, float]:
    return event.start_seconds, min(event.start_seconds + 2, event.end_seconds)


def _other_objects(view: View, draws: Draws, answer: str, event: Event, mentioned: set[str]) -> tuple[str, ...]:
    """Three other objects: from the same event first, then from the video; none is mentioned in the question."""
    allowed = [name for name in view.names if name not in mentioned]
    return three_wrong(draws, answer, set(event.places) - mentioned, allowed)


def object_at_place(view: View, draws: Draws, answer_format: Format) -> Draft | None:
    """Which object is in a place when an event begins."""
    event = pick_event(view, draws)
    if not event:
        return None
    name, place = draws.pick(list(event.places.items()))
    slots = {"place": place, "event": event.title}
    return Draft("object_at_place", slots, name, _other_objects(view, draws, name, event, set()), (_opening(event),))


def object_did(view: View, draws: Draws, answer_format: Format) -> Draft | None:
    """Which object did something that no other object of the event did."""
    facts = [(e, a) for e, a in view.solo_actions if sole_doer(e, a)]
    if not facts:
        return None
    event, action = draws.pick(facts)
    slots = {"past": VERBS[action.verb].past, "event": event.title}
    wrong = _other_objects(view, draws, action.actor, event, set())
    return Draft("object_did", slots, action.actor, wrong, (span(action),))


def letter_colour(view: View, draws: Draws, answer_format: Format) -> Draft | None:
    """The colour of a random card."""
    return colour_of(view, draws, draws.pick(view.cards)) if view.cards else None


def colour_of(view: View, draws: Draws, card: Needle) -> Draft:
    """The colour of this card; wrong options come from the other cards first."""
    wrong = three_wrong(draws, card.colour, {c.colour for c in view.cards}, COLOURS)
    return Draft("letter_colour", {"glyph": card.glyph}, card.colour, wrong, (span(card),))


def attribute_at_place(view: View, draws: Draws, answer_format: Format) -> Draft | None:
    """The colour or shape of the object in a place when an event begins."""
    event = pick_event(view, draws)
    if not event:
        return None
    name, place = draws.pick(list(event.places.items()))
    k = draws.below(2)
    if view.script.is_painted:
        k = 1  # the colour has no name
    template, vocabulary = (("colour_at_place", tuple(COLOURS)), ("shape_at_place", SHAPES))[k]
    answer = view.look(name)[k]
    wrong = three_wrong(draws, answer, {view.look(other)[k] for other in event.places}, vocabulary)
    return Draft(template, {"place": place, "event": event.title}, answer, wrong, (_opening(event),))


def partner(view: View, draws: Draws, answer_format: Format) -> Draft | None:
    """With which object an object interacted."""
    facts = [
        (e, a) for e in view.events for a in e.actions if a.partner is not None and only_once(e, a.actor, a.verb)
        and not any(b.verb == "swap" == a.verb and b.partner == a.actor for b in e.actions)
    ]  # fmt: skip
    if not facts:
        return None
    event, action = draws.pick(facts)
    assert action.partner is not None
    meet = VERBS[action.verb].plain + {"swap": " with", "bump": " into"}.get(action.verb, "")
    slots = {"object": action.actor, "meet": meet, "event": event.title}
    wrong = _other_objects(view, draws, action.partner, event, {action.actor})
    return Draft("partner", slots, action.partner, wrong, (span(action),))


def interaction(view: View, draws: Draws, answer_format: Format) -> Draft | None:
    """What one object did to another, if the two interacted only once."""
    facts = []
    for event in view.events:
        pairs = [frozenset((a.actor, a.partner)) for a in event.actions if a.partner]
        facts += [(event, a) for a in event.actions if a.partner and pairs.count(frozenset((a.actor, a.partner))) == 1]
    if not facts:
        return None
    event, action = draws.pick(facts)
    assert action.partner is not None
    names = [VERBS[verb].past for verb in PARTNER_VERBS]
    answer = VERBS[action.verb].past
    slots = {"object": action.actor, "object2": action.partner, "event": event.title}
    return Draft("interaction", slots, answer, three_wrong(draws, answer, names), (span(action),))


def actor_by_letter(view: View, draws: Draws, answer_format: Format) -> Draft | None:
    """Two steps: from a letter to its event, and from the event to the object that did something there."""
    facts = [
        (card, event, action)
        for card in view.cards
        if (event := view.event_of(card))
        for action in event.actions
        if action.verb in SOLO_VERBS and sole_doer(event, action)
    ]
    if not facts:
        return None
    card, event, action = draws.pick(facts)
    slots = {"glyph": card.glyph, "past": VERBS[action.verb].past}
    wrong = _other_objects(view, draws, action.actor, event, set())
    return Draft("actor_by_letter", slots, action.actor, wrong, (span(card), span(action)))


def shared_object(view: View, draws: Draws, answer_format: Format) -> Draft | None:
    """The one object that two events have in common."""
    for _ in range(10 if len(view.events) > 1 else 0):
        first, second = draws.sample(view.events, 2)
        common = set(first.places) & set(second.places)
        if len(common) == 1:
            (answer,) = common
            either = set(first.places) ^ set(second.places)
            slots = {"event": first.title, "event2": second.title}
            wrong = three_wrong(draws, answer, either, view.names)
            return Draft("shared_object", slots, answer, wrong, (span(first), span(second)))
    return None


def existence(view: View, draws: Draws, answer_format: Format) -> Draft | None:
    """Whether an object ever appears (open), or which of four appears or never appears (choice)."""
    if not view.events:
        return None
    known = SHAPES if view.script.is_painted else [" ".join(pair) for pair in split_pairs(view.script.split)]
    absent = [name for name in known if name not in view.names]
    seen = draws.pick(view.names)
    if answer_format == "open":
        name, answer = draws.pick(((seen, "yes"), (draws.pick(absent), "no")))
        return Draft("object_appears", {"an_object": with_article(name)}, answer, (), _appearances(view, name))
    if draws.below(2):
        return Draft("which_appears", {}, seen, three_wrong(draws, seen, absent), _appearances(view, seen))
    answer = draws.pick(absent)
    return Draft("which_never_appears", {}, answer, three_wrong(draws, answer, view.names), _appearances(view, answer))


def _appearances(view: View, name: str) -> tuple[tuple[float, float], ...]:
    """The spans of the events with the object; the whole video if it never appears."""
    found = tuple(span(event) for event in view.events if name in event.places)
    return found or ((0, view.script.duration_seconds),)


def return_place(view: View, draws: Draws, answer_format: Format) -> Draft | None:
    """Where an object is after it has left the picture and returned."""
    facts = [(e, a) for e, a in view.solo_actions if a.verb == "leave" and only_once(e, a.actor, "leave")]
    if not facts:
        return None
    event, action = draws.pick(facts)
    assert action.end_place is not None
    wrong = three_wrong(draws, action.end_place, PLACES)
    slots = {"object": action.actor, "event": event.title}
    return Draft("return_place", slots, action.end_place, wrong, (span(action),))


def hidden_object(view: View, draws: Draws, answer_format: Format) -> Draft | None:
    """Which object was behind the one that covered it."""
    facts = [
        (e, a) for e in view.events for a in e.actions if a.verb == "cover" and only_once(e, a.actor, "cover")
    ]  # fmt: skip
    if not facts:
        return None
    event, action = draws.pick(facts)
    assert action.partner is not None
    wrong = _other_objects(view, draws, action.partner, event, {action.actor})
    return Draft(
        "hidden_object", {"object": action.actor, "event": event.title}, action.partner, wrong, (span(action),)
    )


def next_event_of(view: View, draws: Draws, answer_format: Format) -> Draft | None:
    """In which event an object appears again; the options share no word with the event that the question names."""
    for _ in range(10 if len(view.events) > 4 else 0):
        k = draws.below(len(view.events) - 1)
        event, later = view.events[k], view.events[k + 1 :]
        name = draws.pick(list(event.places))
        unlike = [e for e in view.events if e.scene != event.scene and e.occasion != event.occasion]
        following = next((e for e in later if name in e.places), None)
        if following in unlike and len(unlike) >= 4:
            assert following is not None
            wrong = three_wrong(draws, following.title, [e.title for e in unlike])
            slots = {"object": name, "event": event.title}
            return Draft("next_event_of", slots, following.title, wrong, (span(event), span(following)))
    return None
