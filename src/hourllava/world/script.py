"""The script of a MarathonWorld video: everything that is on screen, and when.

`generate_script` writes it from a seed; renderer, captions and questions read nothing else. All times are whole seconds
(quarter seconds in videos under 12 seconds, so that three events fit). So a sample at 1 FPS never falls into a
transition, and at least one sample shows each card (needle).
"""

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict

from hourllava.world.vocabulary import COLOURS, PLACES, VERBS, Split

SCRIPT_VERSION: Literal[1] = 1
GENERATOR = "1df69a0549099c0e"
"""Names the version of the generator: a digest of scripts, and of frames that together use every drawing.

A test recomputes it, so a changed drawing needs a new name; comments and speed do not. References (`*.world.json`)
hold a seed instead of pictures and therefore name the generator: with a changed drawing each becomes another video, and
existing memories, features and answers would belong to the old one.
"""


def _check_generator(name: str) -> str:
    if name != GENERATOR:
        raise ValueError(f"made by generator {name:.40}, this one is {GENERATOR}")
    return name


Generator = Annotated[str, AfterValidator(_check_generator)]
"""A field of settings: it makes settings of another generator different settings."""


class _Typed(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class CastMember(_Typed):
    """An object of the video; its name ("red star", "star" if it is painted) is unique in the video."""

    name: str
    colour: str  # a key of COLOURS, or "#rrggbb" if it is painted
    shape: str
    size: Literal["small", "large"]


class Action(_Typed):
    """One thing that an object does. Actions do not overlap each other or a card."""

    verb: str  # a key of VERBS
    actor: str
    partner: str | None = None  # the other object of swap, orbit, cover, bump
    direction: str | None = None  # of a slide; or the edge over which an object leaves and returns
    end_place: str | None = None  # of slide and leave; other verbs end where they began (swap: exchanged)
    start_seconds: float
    end_seconds: float


class Event(_Typed):
    """A titled part of the video: one occasion in one scene, with the same objects from start to end."""

    occasion: str
    scene: str
    start_seconds: float
    end_seconds: float
    places: dict[str, str]  # object name -> place when the event starts
    actions: tuple[Action, ...] = ()
    transition: Literal["cut", "fade", "wipe"] = "cut"  # into this event, during the 0.75 s before it starts

    @property
    def title(self) -> str:
        """The event's title, unique in its video: "the party in the cave"."""
        return f"the {self.occasion} in the {self.scene}"


class Needle(_Typed):
    """A card that covers the whole picture for 1 to 3 seconds; its letter is unique in the video."""

    glyph: str
    colour: str
    start_seconds: float
    end_seconds: float


class Script(_Typed):
    """A whole video. The same seed and settings give the same bytes of `model_dump_json` on every machine."""

    version: Literal[1] = SCRIPT_VERSION
    seed: int
    split: Split
    duration_seconds: int
    cast: tuple[CastMember, ...]
    events: tuple[Event, ...]
    needles: tuple[Needle, ...]

    @property
    def is_painted(self) -> bool:
        """Whether objects have arbitrary colours, which have no name."""
        return any(member.colour not in COLOURS for member in self.cast)


class Shown(_Typed):
    """One line of the screen log: something on screen from start to end."""

    kind: Literal["event", "object", "action", "card"]
    start_seconds: float
    end_seconds: float
    name: str  # the event's title, the object, the actor, or the card's letter
    place: str | None = None  # object: its place at rest
    colour: str | None = None  # object, card
    shape: str | None = None  # object
    verb: str | None = None  # action
    partner: str | None = None  # action
    direction: str | None = None  # action


def places_after(places: dict[str, str], action: Action) -> dict[str, str]:
    """Where the objects rest after `action`; the argument is not changed."""
    after = dict(places)
    if action.end_place is not None:
        after[action.actor] = action.end_place
    elif action.verb == "swap":
        assert action.partner is not None
        after[action.actor], after[action.partner] = places[action.partner], places[action.actor]
    return after


def screen_log(script: Script) -> list[Shown]:
    """The video as a list of all that is on screen, in order of time.

    An object has a line for each place where it rests, and none while it travels (slide, leave, swap).
    """
    looks = {member.name: member for member in script.cast}
    log = []
    for event in script.events:
        log.append(
            Shown(kind="event", start_seconds=event.start_seconds, end_seconds=event.end_seconds, name=event.title)
        )
        places, since = dict(event.places), dict.fromkeys(event.places, event.start_seconds)

        def rested(name: str, until: float, places: dict[str, str] = places, since: dict[str, float] = since) -> Shown:
            look = looks[name]
            return Shown(
                kind="object",
                start_seconds=since[name],
                end_seconds=until,
                name=name,
                place=places[name],
                colour=look.colour,
                shape=look.shape,
            )

        for action in event.actions:
            log.append(
                Shown(
                    kind="action",
                    start_seconds=action.start_seconds,
                    end_seconds=action.end_seconds,
                    name=action.actor,
                    verb=action.verb,
                    partner=action.partner,
                    direction=action.direction,
                )
            )
            after = places_after(places, action)
            for name in [name for name in places if after[name] != places[name]]:
                log.append(rested(name, action.start_seconds))
                since[name] = action.end_seconds
            places.update(after)
        log.extend(rested(name, event.end_seconds) for name in places)
    log.extend(
        Shown(
            kind="card",
            start_seconds=needle.start_seconds,
            end_seconds=needle.end_seconds,
            name=needle.glyph,
            colour=needle.colour,
        )
        for needle in script.needles
    )
    return sorted(log, key=lambda shown: (shown.start_seconds, shown.end_seconds, shown.kind, shown.name))


def check_script(script: Script) -> None:
    """Assert what the questions rely on; a failure is a bug of the generator, not a user's mistake."""
    assert script.events[0].start_seconds == 0
    assert script.events[-1].end_seconds == script.duration_seconds
    names = {member.name for member in script.cast}
    for before, after in zip(script.events, script.events[1:]):
        assert before.end_seconds == after.start_seconds > before.start_seconds
        assert before.scene != after.scene
    for event in script.events:
        assert set(event.places) <= names
        clock, places = event.start_seconds, dict(event.places)
        for action in event.actions:
            assert clock <= action.start_seconds < action.end_seconds <= event.end_seconds
            assert (action.partner is not None) == VERBS[action.verb].with_partner
            assert all(n.end_seconds <= action.start_seconds or n.start_seconds >= action.end_seconds
                       for n in script.needles)  # fmt: skip
            clock, places = action.end_seconds, places_after(places, action)
            assert len(set(places.values())) == len(places)
            assert set(places.values()) <= set(PLACES)
    assert len({needle.glyph for needle in script.needles}) == len(script.needles)
    for needle, following in zip(script.needles, script.needles[1:]):
        assert needle.end_seconds <= following.start_seconds
