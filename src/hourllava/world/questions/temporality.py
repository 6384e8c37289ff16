"""Questions about time: temporal perception, duration, reasoning, gaps and order."""

from typing import TypeVar

from hourllava.world.generate import event_spans
from hourllava.world.questions.draft import NUM_OPTIONS, Draft, Format, three_wrong
from hourllava.world.questions.view import Span, View, pick_event, span
from hourllava.world.rng import Draws
from hourllava.world.vocabulary import GLYPHS
from hourllava.world.wording import duration_step, is_safely_rounded, spoken_duration

T = TypeVar("T")
QUARTERS = ("the first quarter", "the second quarter", "the third quarter", "the last quarter")
_PAIRS = 30  # gaps drawn from the video
_MIN_RATIO = 1.2  # between two lengths of time among the options


def _things(view: View) -> list[tuple[str, Span]]:
    """Cards, then events, as (noun phrase, span)."""
    cards = [(f"the letter {card.glyph}", span(card)) for card in view.cards]
    return cards + [(event.title, span(event)) for event in view.events]


def part_of_video(view: View, draws: Draws, answer_format: Format) -> Draft | None:
    """Which quarter contains a card or event; the quarter is drawn first, so all quarters are equally likely."""
    total = view.script.duration_seconds
    facts: dict[str, list[tuple[str, Span]]] = {}
    for name, (start, end) in _things(view):
        k = int(4 * start // total)
        if 4 * end <= total * (k + 1):
            facts.setdefault(QUARTERS[k], []).append((name, (start, end)))
    if not facts:
        return None
    answer = draws.pick(sorted(facts))
    name, where = draws.pick(facts[answer])
    return Draft("part_of_video", {"thing": name}, answer, three_wrong(draws, answer, QUARTERS), (where,))


def event_duration(view: View, draws: Draws, answer_format: Format) -> Draft | None:
    """How long an event lasts."""
    count = len(view.events)
    if not count:
        return None
    facts = [(event.end_seconds - event.start_seconds, event) for event in view.events]
    others = [event_spans(draws, view.script.duration_seconds, count) for _ in range(3)]
    chosen = _four_lengths(draws, facts, [end - start for spans in others for start, end in spans])
    if chosen is None:
        return None
    seconds, event, wrong = chosen
    slots = {"event": event.title}
    return Draft("event_duration", slots, spoken_duration(seconds), wrong, (span(event),))


def _four_lengths(
    draws: Draws, facts: list[tuple[float, T]], others: list[float]
) -> tuple[float, T, tuple[str, ...]] | None:
    """Four lengths of time that differ by at least a fifth and a rounding step; the answer is one of this video's.

    `others` are lengths from invented videos of the same kind. All options are drawn from the mixture of both. If
    `others` only filled gaps, they would be the extreme options, and guessing the middle would pay.
    """
    urn: list[tuple[float, T | None]] = [*facts, *((seconds, None) for seconds in others)]
    chosen: list[tuple[float, T | None]] = []
    for seconds, fact in draws.shuffled(urn):
        if (
            len(chosen) < NUM_OPTIONS
            and seconds >= 1
            and is_safely_rounded(seconds)
            and all(_far_apart(seconds, other) for other, _ in chosen)
        ):
            chosen.append((seconds, fact))
    ours = [(seconds, fact) for seconds, fact in chosen if fact is not None]
    if len(chosen) < NUM_OPTIONS or not ours:
        return None
    seconds, fact = draws.pick(ours)
    return seconds, fact, tuple(spoken_duration(other) for other, _ in chosen if other != seconds)


def _far_apart(a: float, b: float) -> bool:
    return (
        max(a, b) >= _MIN_RATIO * min(a, b)
        and abs(a - b) >= duration_step(max(a, b))
        and spoken_duration(a) != spoken_duration(b)
    )


def backwards(view: View, draws: Draws, answer_format: Format) -> Draft | None:
    """Which letter comes first if the video is played backwards."""
    if len(view.cards) < 2:
        return None
    glyphs = [card.glyph for card in view.cards]
    last = view.cards[-1]
    return Draft("backwards", {}, last.glyph, three_wrong(draws, last.glyph, glyphs, GLYPHS), (span(last),))


def next_letter(view: View, draws: Draws, answer_format: Format) -> Draft | None:
    """The first letter after the end of an event."""
    event = pick_event(view, draws)
    later = [card for card in view.cards if event and card.start_seconds >= event.end_seconds]
    if not event or not later:
        return None
    glyphs = [card.glyph for card in view.cards]
    wrong = three_wrong(draws, later[0].glyph, glyphs, GLYPHS)
    return Draft("next_letter", {"event": event.title}, later[0].glyph, wrong, (span(event), span(later[0])))


def letter_between(view: View, draws: Draws, answer_format: Format) -> Draft | None:
    """The one letter between two others."""
    if len(view.cards) < 3:
        return None
    k = draws.below(len(view.cards) - 2)
    before, card, after = view.cards[k : k + 3]
    outer = {before.glyph, after.glyph}
    wrong = three_wrong(draws, card.glyph, {c.glyph for c in view.cards} - outer, set(GLYPHS) - outer)
    slots = {"glyph": before.glyph, "glyph2": after.glyph}
    return Draft("letter_between", slots, card.glyph, wrong, (span(before), span(card), span(after)))


def gap(view: View, draws: Draws, answer_format: Format) -> Draft | None:
    """The time from the start of one card or event to the start of a later one of the same kind."""
    total = view.script.duration_seconds
    template = draws.pick(("gap_letters", "gap_events"))
    if template == "gap_letters":
        names, spans = [card.glyph for card in view.cards], [span(card) for card in view.cards]
        others = sorted(draws.sample(range(total), len(names)))
    else:
        names, spans = view.titles, [span(event) for event in view.events]
        others = [int(start) for start, _ in event_spans(draws, total, len(names))] if names else []
    if len(names) < 2:
        return None
    pairs = [sorted(draws.sample(range(len(names)), 2)) for _ in range(_PAIRS)]
    made_up = [sorted(draws.sample(range(len(names)), 2)) for _ in range(_PAIRS)]
    facts = [(spans[b][0] - spans[a][0], (a, b)) for a, b in pairs]
    chosen = _four_lengths(draws, facts, [float(others[b] - others[a]) for a, b in made_up])
    if chosen is None:
        return None
    seconds, (a, b), wrong = chosen
    first, second = ("glyph", "glyph2") if template == "gap_letters" else ("event", "event2")
    slots = {first: names[a], second: names[b]}
    return Draft(template, slots, spoken_duration(seconds), wrong, (spans[a], spans[b]))


def order(view: View, draws: Draws, answer_format: Format) -> Draft | None:
    """Which of two (open) or four (choice) things comes first or last; all are cards, or all are events."""
    cards, events = _things(view)[: len(view.cards)], _things(view)[len(view.cards) :]
    kinds = [kind for kind in (cards, events) if len(kind) >= (2 if answer_format == "open" else 4)]
    if not kinds:
        return None
    things = draws.sample(draws.pick(kinds), 2 if answer_format == "open" else 4)
    by_time = sorted(things, key=lambda thing: thing[1])
    evidence = tuple(where for _, where in by_time)
    if answer_format == "open":
        slots = {"thing": things[0][0], "thing2": things[1][0]}
        return Draft("first_of_two", slots, by_time[0][0], (), evidence)
    template, right = draws.pick((("first_of_these", by_time[0]), ("last_of_these", by_time[-1])))
    wrong = three_wrong(draws, right[0], [name for name, _ in things])
    return Draft(template, {}, right[0], wrong, evidence)
