"""Captions in VideoMarathon's form: clips in six aspects, titled events, and the whole video."""

from pydantic import BaseModel, ConfigDict

from hourllava.clock import format_clock
from hourllava.world.drawing.motion import place_centre
from hourllava.world.rng import Draws
from hourllava.world.script import Action, Event, Needle, Script, places_after
from hourllava.world.vocabulary import VERBS
from hourllava.world.wording import listed, sentence, spoken_duration, summary_sentence, with_article

CLIP_SECONDS = 30


class _Typed(BaseModel):
    model_config = ConfigDict(frozen=True)
    start_seconds: float
    end_seconds: float


class ClipCaption(_Typed):
    """A clip of at most 30 seconds, described in VideoMarathon's six aspects."""

    temporality: str
    spatiality: str
    object: str
    action: str
    scene: str
    summary: str


class EventCaption(_Typed):
    """An event with its title and boundaries."""

    title: str
    caption: str


class Captions(BaseModel):
    """All captions of one video."""

    clips: tuple[ClipCaption, ...]
    events: tuple[EventCaption, ...]
    overall: str


def generate_captions(script: Script) -> Captions:
    """Describe a script; the same script gives the same captions."""
    draws = Draws("captions", script.split, script.seed, script.duration_seconds)
    starts = range(0, script.duration_seconds, CLIP_SECONDS)
    return Captions(
        clips=tuple(
            _clip(script, start, min(start + CLIP_SECONDS, script.duration_seconds), draws) for start in starts
        ),
        events=tuple(_event(script, event, draws) for event in script.events),
        overall=_overall(script, draws),
    )


def action_sentence(action: Action, draws: Draws) -> str:
    """One action as a clause without a full stop: "the red star slid to the left"."""
    actor = f"the {action.actor}"
    if action.partner is not None:
        return f"{actor} {VERBS[action.verb].past} the {action.partner}"
    way = {"left": "to the left", "right": "to the right", "up": "upwards", "down": "downwards"}
    edge = {"left": "left", "right": "right", "up": "upper", "down": "lower"}
    choices = {
        "slide": [f"slid {way.get(str(action.direction))}", f"moved {way.get(str(action.direction))}"],
        "leave": [f"left over the {edge.get(str(action.direction))} edge and came back",
                  f"went out at the {edge.get(str(action.direction))} edge and returned"],
        "jump": ["jumped up and down", "bounced several times"],
        "sway": ["swayed from side to side", "rocked left and right"],
        "spin": ["spun around", "turned on the spot"],
        "grow": ["grew and shrank back", "swelled for a while"],
        "shrink": ["shrank and grew back", "became tiny for a while"],
        "blink": ["blinked on and off", "kept vanishing and reappearing"],
        "split": ["split in two and joined again", "came apart into two and became one again"],
    }  # fmt: skip
    return f"{actor} {draws.pick(choices[action.verb])}"


def _overlaps(thing: Event | Action | Needle, start: float, end: float) -> bool:
    return thing.start_seconds < end and thing.end_seconds > start


def _places_at(event: Event, time_seconds: float) -> dict[str, str]:
    places = dict(event.places)
    for action in event.actions:
        if action.end_seconds <= time_seconds:
            places = places_after(places, action)
    return places


def _clip(script: Script, start: float, end: float, draws: Draws) -> ClipCaption:
    events = [event for event in script.events if _overlaps(event, start, end)]
    cards = [card for card in script.needles if _overlaps(card, start, end)]
    actions = [action for event in events for action in event.actions if _overlaps(action, start, end)]
    looks = {member.name: member for member in script.cast}
    names = sorted({name for event in events for name in event.places})
    titles = [event.title for event in events]
    changes = [f"at {format_clock(event.start_seconds)} it changes to {event.title}" for event in events[1:]]
    flashes = [
        f"at {format_clock(card.start_seconds)} a card with {with_article(card.colour)} {card.glyph} is shown"
        for card in cards
    ]
    stays = draws.pick(("nothing changes but what the objects do", "the setting stays the same throughout"))
    timeline = changes + flashes or [stays]
    doings = [action_sentence(action, draws) for action in actions]
    return ClipCaption(
        start_seconds=start,
        end_seconds=end,
        temporality=f"{draws.pick(('The clip opens with', 'It begins in'))} {titles[0]}; {', then '.join(timeline)}.",
        spatiality=" ".join(_layout(event, max(start, event.start_seconds), draws) for event in events),
        object=f"{draws.pick(('Visible:', 'Objects in view:', 'One sees'))} "
        + listed([f"a {looks[name].size} {name}" for name in names])
        + ".",
        action=sentence("; then ".join(doings)) + "." if doings else "No object does anything; all of them rest.",
        scene=f"{draws.pick(('The scene is', 'It takes place in'))} {listed([f'the {e.scene}' for e in events])}"
        f", with {listed([f'a {event.occasion}' for event in events])}.",
        summary=sentence(
            f"{listed(titles)}, where {draws.pick(('the main thing is that', 'we see that'))} "
            f"{doings[0] if doings else listed([f'the {name}' for name in names]) + ' stay where they are'}."
        ),
    )


def _layout(event: Event, time_seconds: float, draws: Draws) -> str:
    places = _places_at(event, time_seconds)
    ordered = sorted(places, key=lambda name: place_centre(places[name])[::-1])
    where = listed([f"the {name} {draws.pick(('in', 'at'))} the {places[name]}" for name in ordered])
    return f"In {event.title} there {'is' if len(ordered) == 1 else 'are'} {where}."


def _event(script: Script, event: Event, draws: Draws) -> EventCaption:
    parts = [
        f"{draws.pick(('This is', 'We watch', 'The video shows'))} {event.title}, "
        f"which lasts {spoken_duration(event.end_seconds - event.start_seconds)}.",
        _layout(event, event.start_seconds, draws),
    ]
    lead_ins = ("", "then ", "after that ", "next ", "later ")
    for k, action in enumerate(event.actions):
        lead_in = "first " if k == 0 and len(event.actions) > 1 else draws.pick(lead_ins[1:]) if k else ""
        parts.append(sentence(f"{lead_in}{action_sentence(action, draws)}."))
    if not event.actions:
        parts.append(draws.pick(("Nothing moves.", "The objects rest all the while.")))
    for card in script.needles:
        if event.start_seconds <= card.start_seconds < event.end_seconds:
            parts.append(f"For a moment a card shows the letter {card.glyph} in {card.colour}.")
    return EventCaption(
        start_seconds=event.start_seconds,
        end_seconds=event.end_seconds,
        title=sentence(event.title.removeprefix("the ")),
        caption=" ".join(parts),
    )


def _overall(script: Script, draws: Draws) -> str:
    half = script.duration_seconds / 2
    middle = next(event for event in script.events if event.end_seconds > half)
    cards = [f"{card.glyph} in {card.colour}" for card in script.needles]
    parts = [
        summary_sentence(script.events[0].title, middle.title, script.events[-1].title),
        f"{draws.pick(('In all there are', 'The video has'))} {len(script.events)} events in "
        f"{spoken_duration(script.duration_seconds)}: {listed([event.title for event in script.events])}.",
        f"{draws.pick(('The cast:', 'Those who appear are'))} {listed([f'the {m.name}' for m in script.cast])}.",
    ]
    if cards:
        parts.append(f"{draws.pick(('The cards show', 'Briefly one sees the letters'))} {listed(cards)}.")
    return " ".join(parts)
