"""Describes seconds of a script that were seen, in six aspects.

The wordings are few and fixed, so that `retelling` can read them back. Times are those that the frames were told to
have: a captioner cannot know better.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TypeVar

from hourllava.synthesis.shapes import ClipCaption
from hourllava.synthesis.times import clock
from hourllava.world.script import Action, Event, Needle, Script, places_after
from hourllava.world.vocabulary import VERBS
from hourllava.world.wording import listed, sentence, with_article

WAYS = {"left": "to the left", "right": "to the right", "up": "upwards", "down": "downwards"}
EDGES = {"left": "left", "right": "right", "up": "upper", "down": "lower"}
RESTING = "No object does anything; all of them rest."
_LEAST_FRAMES = 2  # that must show an action

Thing = TypeVar("Thing", Event, Needle)


@dataclass(frozen=True)
class _Moment:
    """One frame: the second of the script, and the time that it was told to have."""

    second: int
    told: float


def action_words(action: Action) -> str:
    """What an object does, as a clause: "the red star slid to the left, into the top left"."""
    actor = f"the {action.actor}"
    if action.partner is not None:
        return f"{actor} {VERBS[action.verb].past} the {action.partner}"
    if action.verb == "slide":
        return f"{actor} slid {WAYS[str(action.direction)]}, into the {action.end_place}"
    if action.verb == "leave":
        return f"{actor} left over the {EDGES[str(action.direction)]} edge and came back into the {action.end_place}"
    return f"{actor} {VERBS[action.verb].past}"


def layout_words(title: str, places: dict[str, str]) -> str:
    """Where the objects are: "In the party in the cave there are the red star in the top left and ..."."""
    where = listed([f"the {name} in the {place}" for name, place in sorted(places.items())])
    return f"In {title} there {'is' if len(places) == 1 else 'are'} {where}."


def card_words(card: Needle) -> str:
    """A card: "a card with an orange K"."""
    return f"a card with {with_article(card.colour)} {card.glyph}"


def describe(script: Script, seconds: Sequence[int], told_seconds: Sequence[float], step_seconds: float) -> ClipCaption:
    """Describe what frames show.

    Args:
        script: that they show.
        seconds: of the script, one a frame, in the order of the frames.
        told_seconds: the time of each frame.
        step_seconds: from one frame to the next: a thing is seen until the next frame.
    """
    moments = [_Moment(second, told) for second, told in zip(seconds, told_seconds)]
    events = _runs([(_event_at(script, moment.second), moment) for moment in moments])
    cards = _runs([(card, m) for m in moments if (card := _card_at(script, m.second))])
    titles = [event.title for event, _ in events]
    names = sorted({name for event, _ in events for name in event.places})
    looks = {member.name: member for member in script.cast}
    doings = _doings(events, step_seconds)
    timeline = [(run[0].told, f"it changes to {event.title}") for event, run in events[1:]]
    for card, run in cards:
        until = clock(run[-1].told + step_seconds)
        timeline.append((run[0].told, f"{card_words(card)} is shown until {until}"))
    told = [f"at {clock(when)} {what}" for when, what in sorted(timeline)]
    return ClipCaption(
        temporality=f"It begins in {titles[0]}; {', then '.join(told) or 'the setting stays the same throughout'}.",
        spatiality=" ".join(layout_words(event.title, _places_at(event, run[0].second)) for event, run in events),
        object=f"Visible: {listed([f'a {looks[name].size} {name}' for name in names])}." if names else "Nothing.",
        action=" ".join(f"In {title}: {'; '.join(clauses)}." for title, clauses in doings) or RESTING,
        scene=f"It takes place in {listed([f'the {event.scene}' for event, _ in events])}, "
        f"with {listed([f'a {event.occasion}' for event, _ in events])}.",
        summary=sentence(f"{listed(titles)}, with {listed([f'the {name}' for name in names])}."),
    )


def _doings(events: Sequence[tuple[Event, list[_Moment]]], step_seconds: float) -> list[tuple[str, list[str]]]:
    """For each event, what happens from when to when."""
    found = []
    for event, run in events:
        clauses = []
        for action in event.actions:
            shown = [m for m in run if action.start_seconds <= m.second < action.end_seconds]
            if len(shown) >= _LEAST_FRAMES:
                until = clock(shown[-1].told + step_seconds)
                clauses.append(f"from {clock(shown[0].told)} to {until} {action_words(action)}")
        if clauses:
            found.append((event.title, clauses))
    return found


def _runs(pairs: Sequence[tuple[Thing, _Moment]]) -> list[tuple[Thing, list[_Moment]]]:
    """Neighbouring frames with the same thing, together."""
    return [(thing, [moment for _, moment in run]) for thing, run in groupby(pairs, key=lambda pair: pair[0])]


def _event_at(script: Script, second: float) -> Event:
    return next(event for event in script.events if event.end_seconds > second)


def _card_at(script: Script, second: float) -> Needle | None:
    return next((card for card in script.needles if card.start_seconds <= second < card.end_seconds), None)


def _places_at(event: Event, second: float) -> dict[str, str]:
    places = dict(event.places)
    for action in event.actions:
        if action.end_seconds <= second:
            places = places_after(places, action)
    return places
