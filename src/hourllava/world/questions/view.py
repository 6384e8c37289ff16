"""A script arranged for questions: titles of events, the cards of an event, actions that happen once."""

from collections import Counter
from dataclasses import dataclass
from functools import cached_property

from hourllava.world.generate import WHOLE_SECONDS_FROM
from hourllava.world.rng import Draws
from hourllava.world.script import Action, Event, Needle, Script, places_after
from hourllava.world.vocabulary import SOLO_VERBS

Span = tuple[float, float]


@dataclass(frozen=True)
class View:
    """The part of a script that builders of questions use."""

    script: Script

    @cached_property
    def events(self) -> tuple[Event, ...]:
        """The events; none in videos so short that samples at 1 FPS may miss one, which are asked about cards only."""
        return self.script.events if self.script.duration_seconds >= WHOLE_SECONDS_FROM else ()

    @cached_property
    def cards(self) -> tuple[Needle, ...]:
        """The cards in order of time."""
        return self.script.needles

    @cached_property
    def names(self) -> list[str]:
        """The names of all objects that are seen."""
        return [member.name for member in self.script.cast]

    @cached_property
    def scenes(self) -> list[str]:
        """The distinct scenes."""
        return sorted({event.scene for event in self.events})

    @cached_property
    def titles(self) -> list[str]:
        """The titles of all events in order of time."""
        return [event.title for event in self.events]

    @cached_property
    def solo_actions(self) -> list[tuple[Event, Action]]:
        """Actions without a partner."""
        return [(event, action) for event in self.events for action in event.actions if action.verb in SOLO_VERBS]

    @cached_property
    def unique_solo_actions(self) -> list[tuple[Event, Action]]:
        """Solo actions that their object does only once in the video."""
        counts = Counter((action.actor, action.verb) for _, action in self.solo_actions)
        return [(event, action) for event, action in self.solo_actions if counts[action.actor, action.verb] == 1]

    def cards_of(self, event: Event) -> list[Needle]:
        """The cards shown during an event."""
        return [card for card in self.cards if event.start_seconds <= card.start_seconds < event.end_seconds]

    def event_of(self, card: Needle) -> Event | None:
        """The event during which a card is shown."""
        return next((e for e in self.events if e.start_seconds <= card.start_seconds < e.end_seconds), None)

    def look(self, name: str) -> tuple[str, str]:
        """The (colour, shape) of an object."""
        member = next(member for member in self.script.cast if member.name == name)
        return member.colour, member.shape


def final_places(event: Event) -> dict[str, str]:
    """Where the objects rest when the event ends."""
    places = dict(event.places)
    for action in event.actions:
        places = places_after(places, action)
    return places


def only_once(event: Event, actor: str, verb: str) -> bool:
    """Whether `actor` does this exactly once in the event."""
    return sum(action.actor == actor and action.verb == verb for action in event.actions) == 1


def sole_doer(event: Event, action: Action) -> bool:
    """Whether nothing else in the event looks like this action; the hop of a bumped object looks like a jump."""
    alike = {"jump", "bump"} if action.verb == "jump" else {action.verb}
    return sum(other.verb in alike for other in event.actions) == 1


def span(thing: Event | Action | Needle) -> Span:
    """The start and end of an event, action or card, in seconds."""
    return thing.start_seconds, thing.end_seconds


def pick_event(view: View, draws: Draws) -> Event | None:
    """A random event; None if there are no events."""
    return draws.pick(view.events) if view.events else None
