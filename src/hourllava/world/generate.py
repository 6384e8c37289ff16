"""From a seed to a script.

A video has `duration / mean_event_seconds` events, at least 3 and at most 72. So titles stay unique, and a question can
always name the moment it means. Videos beyond that have longer, calmer events instead of more events.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

from hourllava.errors import ConfigError
from hourllava.world.drawing.paints import draw_paint
from hourllava.world.rng import Draws
from hourllava.world.script import Action, CastMember, Event, Needle, Script, check_script, places_after
from hourllava.world.vocabulary import (
    COLOURS,
    DIRECTIONS,
    GLYPHS,
    OCCASIONS,
    PLACES,
    SCENES,
    SHAPES,
    SIZES,
    SPLITS,
    TRANSITIONS,
    VERBS,
    Split,
    split_pairs,
)

MAX_SECONDS = 24 * 3600
MIN_EVENTS, MAX_EVENTS = 3, 72
MAX_CAST = 12  # of the test split's 16 combinations; at least 4 stay unseen, for questions about absent objects
MAX_PAINTED_CAST = 5  # of the eight shapes; three stay unseen
MAX_ACTIONS_PER_EVENT = 6
WHOLE_SECONDS_FROM = 12  # shorter videos have event boundaries at quarter seconds
STEPS = {"left": (0, -1), "right": (0, 1), "up": (-1, 0), "down": (1, 0)}  # (rows, columns)


@dataclass(frozen=True)
class Density:
    """How much happens in a video."""

    objects_per_event: int = 3  # 2 to 5; an event may have one more or one fewer
    mean_event_seconds: int = 60  # 10 to 3600
    actions_per_minute: int = 3  # 0 to 6; at most 6 actions per event

    def __post_init__(self) -> None:
        for name, low, high in (
            ("objects_per_event", 2, 5),
            ("mean_event_seconds", 10, 3600),
            ("actions_per_minute", 0, 6),
        ):
            value = getattr(self, name)
            if not low <= value <= high:
                raise ConfigError(f"{name} is {value}; use {low} to {high}")


DIFFICULTIES = {
    "easy": Density(objects_per_event=2, actions_per_minute=2),
    "normal": Density(),
    "hard": Density(objects_per_event=4, mean_event_seconds=50, actions_per_minute=5),
    "dense": Density(mean_event_seconds=20, actions_per_minute=6),  # three times as many events
}


def count_events(duration_seconds: int, density: Density) -> int:
    """The number of events in a video of this length."""
    return max(MIN_EVENTS, min(MAX_EVENTS, round(duration_seconds / density.mean_event_seconds)))


def max_needles(duration_seconds: int, density: Density) -> int:
    """The largest number of cards: each has its own letter, lasts a second, and spares each event's first second."""
    return max(0, min(len(GLYPHS), duration_seconds - count_events(duration_seconds, density)))


def check_settings(duration_seconds: int, split: str, density: Density, needles: int | None) -> None:
    """Raise ConfigError for settings that no video can have."""
    if not 1 <= duration_seconds <= MAX_SECONDS:
        raise ConfigError(f"a video of {duration_seconds} seconds was asked for; use 1 to {MAX_SECONDS} (24 hours)")
    if split not in SPLITS:
        raise ConfigError(f"split is {split!r}; use one of: {', '.join(SPLITS)}")
    limit = max_needles(duration_seconds, density)
    if needles is not None and not 0 <= needles <= limit:
        raise ConfigError(
            f"{needles} needles were asked for; a video of {duration_seconds} seconds takes 0 to {limit}"
            " (each has its own letter, lasts a second, and spares the first second of each event)"
        )


def generate_script(
    seed: int,
    duration_seconds: int,
    *,
    split: Split = "train",
    density: Density = DIFFICULTIES["normal"],
    needles: int | None = None,
    needle_starts_seconds: tuple[int, ...] = (),
    painted: bool = False,
) -> Script:
    """Write the script of one video.

    Args:
        seed: any whole number; the same seed and settings give the same script everywhere.
        duration_seconds: 1 to 86,400.
        split: which (colour, shape) pairs may occur; one seed gives different scripts in the two splits.
        density: how much happens; see `DIFFICULTIES` for presets.
        needles: number of cards; None: one per event, at least 4, as far as they fit.
        needle_starts_seconds: where the first cards must start, for the needle benchmark; the others avoid them.
        painted: whether objects have arbitrary colours instead of the eight, and are named by shape alone.

    Raises:
        ConfigError: the settings contradict each other or the limits.
    """
    check_settings(duration_seconds, split, density, needles)
    key = (seed, split, duration_seconds)
    spans = event_spans(Draws("spans", *key), duration_seconds, count_events(duration_seconds, density))
    if needles is None:
        needles = min(max(4, len(spans)), max_needles(duration_seconds, density))
    cards = _needles(Draws("needles", *key), duration_seconds, spans, needles, needle_starts_seconds)
    cast_size = min(MAX_CAST, len(spans) + density.objects_per_event)
    cast_draws = Draws("cast", *key)
    cast = (
        _painted_cast(cast_draws, min(MAX_PAINTED_CAST, cast_size)) if painted else _cast(cast_draws, split, cast_size)
    )
    titles = _titles(Draws("titles", *key), len(spans))
    has_actions = duration_seconds >= WHOLE_SECONDS_FROM
    events = _events(Draws("events", *key), spans, titles, cast, cards, density, has_actions=has_actions)
    seen = {name for event in events for name in event.places}
    script = Script(
        seed=seed,
        split=split,
        duration_seconds=duration_seconds,
        cast=tuple(member for member in cast if member.name in seen),
        events=tuple(events),
        needles=tuple(cards),
    )
    check_script(script)
    return script


def _events(
    draws: Draws, spans: list[tuple[float, float]], titles: list[tuple[str, str]], cast: list[CastMember],
    cards: list[Needle], density: Density, *, has_actions: bool,
) -> list[Event]:  # fmt: skip
    """The events in order: who is where, what they do, and how each event comes on."""
    verbs = _VerbBag(draws)
    sizes = {member.name: member.size for member in cast}
    events: list[Event] = []
    for (start, end), (occasion, scene) in zip(spans, titles):
        count = max(2, min(5, density.objects_per_event + draws.between(-1, 1)))
        names = [member.name for member in draws.sample(cast, count)]
        places = dict(zip(names, draws.sample(PLACES, count)))
        slots = _action_slots(draws, start, end, cards, density) if has_actions else []
        events.append(
            Event(
                occasion=occasion,
                scene=scene,
                start_seconds=start,
                end_seconds=end,
                places=places,
                actions=tuple(_actions(draws, verbs, slots, places, sizes)),
                transition=draws.pick(TRANSITIONS) if events else "cut",  # type: ignore[arg-type]
            )
        )
    return events


def event_spans(draws: Draws, duration_seconds: int, count: int) -> list[tuple[float, float]]:
    """Cut a video into events, (start, end) in seconds; the longest is at most three times the shortest."""
    per_second = 1 if duration_seconds >= WHOLE_SECONDS_FROM else 4
    grain = 5 if duration_seconds >= 120 else 1  # lengths in multiples of five seconds have short, exact answers
    total = duration_seconds * per_second
    weights = [draws.between(50, 150) for _ in range(count)]
    cuts = [0]
    for k in range(1, count):
        wanted = total * sum(weights[:k]) // sum(weights) // grain * grain
        cuts.append(max(cuts[-1] + grain, min(wanted, total - (count - k) * grain)))
    cuts.append(total)
    return [(a / per_second, b / per_second) for a, b in pairwise(cuts)]


def _needles(
    draws: Draws, duration_seconds: int, spans: list[tuple[float, float]], count: int, pinned: tuple[int, ...]
) -> list[Needle]:
    first_seconds = {int(start) for start, _ in spans} if duration_seconds >= WHOLE_SECONDS_FROM else {0}
    free = set(range(duration_seconds)) - first_seconds
    longest = 3 if len(free) >= 4 * count else 1
    taken: list[tuple[int, int]] = []
    for k in range(count):
        if k < len(pinned):
            length = 1
            start = min((s for s in free), key=lambda s: abs(s - pinned[k]))
        else:
            length = draws.between(1, longest)
            for _ in range(50):
                start = draws.below(duration_seconds)
                if free.issuperset(range(start - 1, start + length + 1)):  # a free second on both sides
                    break
            else:
                length, start = 1, draws.pick(sorted(free))
        free -= set(range(start, start + length))
        taken.append((start, start + length))
    glyphs = draws.sample(GLYPHS, count)
    colours = [draws.pick(tuple(COLOURS)) for _ in range(count)]
    return [
        Needle(glyph=glyph, colour=colour, start_seconds=start, end_seconds=end)
        for (start, end), glyph, colour in sorted(zip(taken, glyphs, colours))
    ]


def _cast(draws: Draws, split: Split, count: int) -> list[CastMember]:
    return [
        CastMember(name=f"{colour} {shape}", colour=colour, shape=shape, size=draws.pick(SIZES))
        for colour, shape in draws.sample(split_pairs(split), count)
    ]


def _painted_cast(draws: Draws, count: int) -> list[CastMember]:
    return [
        CastMember(name=shape, colour=draw_paint(draws), shape=shape, size=draws.pick(SIZES))
        for shape in draws.sample(SHAPES, count)
    ]


def _titles(draws: Draws, count: int) -> list[tuple[str, str]]:
    """Distinct (occasion, scene) pairs; neighbours share neither occasion nor scene."""
    while True:
        pool = draws.shuffled([(occasion, scene) for occasion in OCCASIONS for scene in SCENES])
        titles: list[tuple[str, str]] = []
        while len(titles) < count:
            fits = [t for t in pool if not titles or (t[0] != titles[-1][0] and t[1] != titles[-1][1])]
            if not fits:
                break  # nothing left that fits: shuffle again
            titles.append(fits[0])
            pool.remove(fits[0])
        else:
            return titles


class _VerbBag:
    """Gives every verb once, in random order, before any verb repeats; so short videos have variety, too."""

    def __init__(self, draws: Draws):
        self._draws = draws
        self._bag: list[str] = []

    def take(self, refused: set[str]) -> str:
        while not (fits := [verb for verb in self._bag if verb not in refused]):
            self._bag += self._draws.shuffled(tuple(VERBS))
        self._bag.remove(fits[0])
        return fits[0]


def _action_slots(
    draws: Draws, start: float, end: float, cards: list[Needle], density: Density
) -> list[tuple[float, float]]:
    """Spans of 6 to 8 seconds, two seconds apart; they avoid the cards and the event's first two seconds."""
    count = min(MAX_ACTIONS_PER_EVENT, round((end - start) * density.actions_per_minute / 60))
    slots: list[tuple[float, float]] = []
    for _ in range(30 * count):
        length = draws.between(6, 8)
        room = int(end - start) - 3 - length
        if len(slots) == count or room < 0:
            break
        begin = start + 2 + draws.below(room + 1)
        near = [(a - 2, b + 2) for a, b in slots] + [(card.start_seconds, card.end_seconds) for card in cards]
        if all(begin + length <= a or begin >= b for a, b in near):
            slots.append((begin, begin + length))
    return sorted(slots)


def _actions(
    draws: Draws, verbs: _VerbBag, slots: list[tuple[float, float]], places: dict[str, str], sizes: Mapping[str, str]
) -> list[Action]:
    actions = []
    for start, end in slots:
        refused: set[str] = set()
        action = None
        while action is None:
            verb = verbs.take(refused)
            action = _action(draws, verb, start, end, places, sizes)
            refused.add(verb)
        places = places_after(places, action)
        actions.append(action)
    return actions


def _action(
    draws: Draws, verb: str, start: float, end: float, places: dict[str, str], sizes: Mapping[str, str]
) -> Action | None:
    """One action with this verb, or None if the objects' places do not allow it."""
    actor, partner = draws.sample(list(places), 2)
    if not VERBS[verb].with_partner:
        direction = end_place = None
        if verb == "slide":
            ways = slide_ways(places, actor)
            if not ways:
                return None
            direction = draws.pick(tuple(ways))
            end_place = draws.pick(ways[direction])
        elif verb == "leave":
            direction = draws.pick(DIRECTIONS)
            end_place = draws.pick([place for place in PLACES if place not in places.values()])
        return Action(
            verb=verb, actor=actor, direction=direction, end_place=end_place, start_seconds=start, end_seconds=end
        )
    if verb == "cover" and sizes[actor] == "small" and sizes[partner] == "large":
        actor, partner = partner, actor  # a small object cannot hide a large one
    return Action(verb=verb, actor=actor, partner=partner, start_seconds=start, end_seconds=end)


def slide_ways(places: dict[str, str], actor: str) -> dict[str, list[str]]:
    """Direction -> the free places that `actor` can slide to without passing another object."""
    row, column = divmod(PLACES.index(places[actor]), 3)
    ways: dict[str, list[str]] = {}
    for direction, (rows, columns) in STEPS.items():
        for distance in (1, 2):
            r, c = row + rows * distance, column + columns * distance
            if not (0 <= r < 3 and 0 <= c < 3) or PLACES[3 * r + c] in places.values():
                break
            ways.setdefault(direction, []).append(PLACES[3 * r + c])
    return ways
