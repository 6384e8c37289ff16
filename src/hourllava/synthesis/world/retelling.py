"""Reads captions of `describing` back: what is told of events, objects, actions and cards, as a script.

Nothing is known here but the texts. A text in other words tells nothing.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hourllava.synthesis.times import clock, read_time
from hourllava.synthesis.world.describing import EDGES, WAYS, action_words, card_words, layout_words
from hourllava.world.script import Action, CastMember, Event, Needle, Script, places_after
from hourllava.world.vocabulary import COLOURS, OCCASIONS, PLACES, SCENES, SHAPES, VERBS
from hourllava.world.wording import spoken_duration

_TIME = r"(\d+:\d\d:\d\d(?:\.\d)?)"
_TITLE = rf"the (?:{'|'.join(OCCASIONS)}) in the (?:{'|'.join(SCENES)})"
_NAME = rf"(?:(?:{'|'.join(COLOURS)}) )?(?:{'|'.join(SHAPES)})"
_PLACE = "|".join(sorted(PLACES, key=len, reverse=True))
_CHANGE = re.compile(rf"at {_TIME} it changes to ({_TITLE})")
_BEGIN = re.compile(rf"It begins in ({_TITLE});")
_CARD = re.compile(rf"(?:at|From) {_TIME} a card with an? (\w+) (\w) is shown until {_TIME}")
_LAYOUT = re.compile(rf"In ({_TITLE}) there (?:is|are) ([^.]*)\.")
_STANDS = re.compile(rf"the ({_NAME}) in the ({_PLACE})")
_DOINGS = re.compile(rf"In ({_TITLE}): ([^.]*(?:\.\d[^.]*)*)\.")
_DOING = re.compile(rf"[Ff]rom {_TIME} to {_TIME} the ({_NAME}) ([^.;]*)")
_SLIDE = re.compile(rf"slid ({'|'.join(WAYS.values())}), into the ({_PLACE})")
_LEAVE = re.compile(rf"left over the ({'|'.join(EDGES.values())}) edge and came back into the ({_PLACE})")
_LONGEST_ACTION_SECONDS = 12.0


def told_titles(temporality: str) -> list[tuple[float | None, str]]:
    """(time, title) of the events that a clip's temporality names; None for the one in which it begins."""
    begin = _BEGIN.search(temporality)
    changes: list[tuple[float | None, str]] = [(read_time(when), title) for when, title in _CHANGE.findall(temporality)]
    return ([(None, begin[1])] if begin else []) + changes


def told_cards(text: str) -> list[Needle]:
    """The cards that a text names."""
    return [
        Needle(glyph=glyph, colour=colour, start_seconds=read_time(start), end_seconds=read_time(end))
        for start, colour, glyph, end in _CARD.findall(text)
    ]


def told_places(text: str, title: str) -> dict[str, str] | None:
    """Where the objects of an event are, by the first layout in a text; None if there is none."""
    for found, where in _LAYOUT.findall(text):
        if found == title:
            return dict(_STANDS.findall(where))
    return None


def told_actions(text: str, title: str) -> list[Action]:
    """What is done in an event, by a clip's actions."""
    clauses = "; ".join(doings for found, doings in _DOINGS.findall(text) if found == title)
    return read_actions(clauses)


def read_actions(text: str) -> list[Action]:
    """The actions of clauses "from 0:00:12 to 0:00:19 the red star spun around", one after the other."""
    actions = []
    for start, end, actor, words in _DOING.findall(text):
        action = _action(actor, words.strip())
        if action is not None:
            actions.append(action.model_copy(update={"start_seconds": read_time(start), "end_seconds": read_time(end)}))
    return actions


def _action(actor: str, words: str) -> Action | None:
    common: dict[str, Any] = {"actor": actor, "start_seconds": 0, "end_seconds": 0}
    ways = {way: name for name, way in WAYS.items()} | {edge: name for name, edge in EDGES.items()}
    for verb, pattern in (("slide", _SLIDE), ("leave", _LEAVE)):
        if match := pattern.fullmatch(words):
            return Action(verb=verb, direction=ways[match[1]], end_place=match[2], **common)
    for verb, about in VERBS.items():
        if about.with_partner and (match := re.fullmatch(rf"{about.past} the ({_NAME})", words)):
            return Action(verb=verb, partner=match[1], **common)
        if not about.with_partner and not about.directed and words == about.past:
            return Action(verb=verb, **common)
    return None


def joined_actions(actions: Sequence[Action]) -> tuple[Action, ...]:
    """Actions in order; what two overlapping or neighbouring clips tell of one action becomes one."""
    joined: list[Action] = []
    for action in sorted(actions, key=lambda action: (action.start_seconds, action.end_seconds)):
        last = joined[-1] if joined else None
        if (
            last is not None
            and action_words(last) == action_words(action)
            and action.start_seconds <= last.end_seconds
            and action.end_seconds - last.start_seconds <= _LONGEST_ACTION_SECONDS
        ):
            joined[-1] = last.model_copy(update={"end_seconds": max(last.end_seconds, action.end_seconds)})
        else:
            joined.append(action)
    return tuple(joined)


def joined_cards(cards: Sequence[Needle]) -> list[Needle]:
    """Cards in order; what two clips tell of one letter becomes one card, since a letter is shown once."""
    joined: dict[str, Needle] = {}
    for card in cards:
        known = joined.get(card.glyph, card)
        start, end = min(known.start_seconds, card.start_seconds), max(known.end_seconds, card.end_seconds)
        joined[card.glyph] = known.model_copy(update={"start_seconds": start, "end_seconds": end})
    return sorted(joined.values(), key=lambda card: card.start_seconds)


@dataclass(frozen=True)
class ToldEvent:
    """An event as it is told.

    Attributes:
        title, start_seconds, end_seconds: as given.
        places: object -> place at the start; empty if it is not told.
        actions, cards: with their times.
    """

    title: str
    start_seconds: float
    end_seconds: float
    places: dict[str, str]
    actions: tuple[Action, ...] = ()
    cards: tuple[Needle, ...] = ()

    def words(self) -> str:
        """The event as a caption, which `read_event` reads back."""
        parts = [f"This is {self.title}, which lasts {spoken_duration(self.end_seconds - self.start_seconds)}."]
        if self.places:
            parts.append(layout_words(self.title, self.places))
        for action in self.actions:
            span = f"From {clock(action.start_seconds)} to {clock(action.end_seconds)}"
            parts.append(f"{span} {action_words(action)}.")
        if not self.actions:
            parts.append("The objects rest all the while.")
        for card in self.cards:
            until = clock(card.end_seconds)
            parts.append(f"From {clock(card.start_seconds)} {card_words(card)} is shown until {until}.")
        return " ".join(parts)


def told_event(title: str, start: float, end: float, parts: Sequence[dict[str, Any]]) -> ToldEvent:
    """An event from the captions of the clips that it touches.

    Args:
        title, start, end: of the event; the title as captions have it.
        parts: data of the clips, in order.
    """
    places = next((found for part in parts if (found := told_places(part.get("spatiality", ""), title))), None)
    actions = [action for part in parts for action in told_actions(part.get("action", ""), title)]
    cards = [card for part in parts for card in told_cards(part.get("temporality", ""))]
    within = [card for card in joined_cards(cards) if start <= card.start_seconds < end]
    return ToldEvent(title, start, end, places or {}, joined_actions(actions), tuple(within))


def read_event(line: dict[str, Any]) -> ToldEvent:
    """An event from a line of a prompt's events."""
    title, text = small(line["title"]), line.get("caption", "")
    actions = tuple(read_actions(text))
    return ToldEvent(
        title,
        read_time(line["from"]),
        read_time(line["to"]),
        told_places(text, title) or {},
        actions,
        tuple(told_cards(text)),
    )


def small(title: str) -> str:
    """A title as it stands within a sentence."""
    return title[:1].lower() + title[1:]


def told_script(events: Sequence[ToldEvent], duration_seconds: float, seed: int) -> Script:
    """The script that events tell; times that nobody told are missing, and so are objects that nobody named.

    Args:
        events: in order.
        duration_seconds: of the video.
        seed: of draws about it.
    """
    names = sorted({name for event in events for name in _names(event)})
    written = []
    for event in events:
        occasion, _, scene = event.title.removeprefix("the ").partition(" in the ")
        places, usable = dict(event.places), []
        for action in event.actions:
            if action.actor in places and (action.partner is None or action.partner in places):
                places = places_after(places, action)
                usable.append(action)
        written.append(
            Event(
                occasion=occasion,
                scene=scene,
                start_seconds=event.start_seconds,
                end_seconds=event.end_seconds,
                places=event.places,
                actions=tuple(usable),
            )
        )
    return Script(
        seed=seed,
        split="train",
        duration_seconds=max(1, round(duration_seconds)),
        cast=tuple(
            CastMember(name=name, colour=name.rpartition(" ")[0] or "#000000", shape=name.split()[-1], size="small")
            for name in names
        ),
        events=tuple(written),
        needles=tuple(sorted((c for event in events for c in event.cards), key=lambda card: card.start_seconds)),
    )


def _names(event: ToldEvent) -> set[str]:
    return {*event.places, *(name for a in event.actions for name in (a.actor, a.partner) if name)}
