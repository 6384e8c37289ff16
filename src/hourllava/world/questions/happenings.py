"""Actions, scenes and events: recognition, localisation, sequence, reasoning, transitions, key events, summaries."""

from itertools import permutations

from hourllava.world.questions.draft import Draft, Format, four_then_one, three_wrong
from hourllava.world.questions.view import View, only_once, span
from hourllava.world.rng import Draws
from hourllava.world.script import Action, Event
from hourllava.world.vocabulary import DIRECTIONS, OCCASIONS, SCENES, SOLO_VERBS, VERBS
from hourllava.world.wording import bucket, bucket_seconds, summary_sentence


def what_did(view: View, draws: Draws, answer_format: Format) -> Draft | None:
    """What an object did in an event in which it took part in a single action."""
    facts = [
        (VERBS[action.verb].past, (event, action))
        for event, action in view.solo_actions
        if sum(action.actor in (other.actor, other.partner) for other in event.actions) == 1
    ]
    chosen = four_then_one(draws, facts)
    if chosen is None:
        return None
    answer, (event, action), others = chosen
    wrong = three_wrong(draws, answer, others, [VERBS[verb].past for verb in SOLO_VERBS])
    return Draft("what_did", {"object": action.actor, "event": event.title}, answer, wrong, (span(action),))


def slide_direction(view: View, draws: Draws, answer_format: Format) -> Draft | None:
    """In which direction an object slid."""
    facts = [(e, a) for e, a in view.solo_actions if a.verb == "slide" and only_once(e, a.actor, "slide")]
    if not facts:
        return None
    event, action = draws.pick(facts)
    assert action.direction is not None
    wrong = three_wrong(draws, action.direction, DIRECTIONS)
    slots = {"object": action.actor, "event": event.title}
    return Draft("slide_direction", slots, action.direction, wrong, (span(action),))


def when_did(view: View, draws: Draws, answer_format: Format) -> Draft | None:
    """The interval in which a unique action begins."""
    total = view.script.duration_seconds
    width = bucket_seconds(total)
    facts = [(bucket(a.start_seconds, total), a) for _, a in view.unique_solo_actions if a.start_seconds % width]
    chosen = four_then_one(draws, facts)
    if chosen is None or total < 4 * width:
        return None
    answer, action, others = chosen
    wrong = three_wrong(draws, answer, others, [bucket(start, total) for start in range(0, total, width)])
    slots = {"object": action.actor, "plain": VERBS[action.verb].plain}
    return Draft("when_did", slots, answer, wrong, (span(action),))


def action_order(view: View, draws: Draws, answer_format: Format) -> Draft | None:
    """The first three actions of an event, or of the video."""
    facts: list[tuple[str, dict[str, str], tuple[Action, ...]]] = [
        ("action_order", {"event": event.title}, event.actions[:3]) for event in view.events
    ]
    facts.append(("action_order_video", {}, tuple(a for event in view.events for a in event.actions)[:3]))
    facts = [fact for fact in facts if len({action.verb for action in fact[2]}) == 3]
    if not facts:
        return None
    template, slots, actions = draws.pick(facts)
    orders = [", ".join(VERBS[a.verb].plain for a in some) for some in permutations(actions)]
    wrong = three_wrong(draws, orders[0], orders)
    return Draft(template, slots, orders[0], wrong, tuple(span(action) for action in actions))


def why_hop(view: View, draws: Draws, answer_format: Format) -> Draft | None:
    """Cause and effect: an object hops because another bumped into it."""
    facts = [
        (e, a) for e in view.events for a in e.actions
        if a.verb == "bump" and sum(b.verb == "bump" and b.partner == a.partner for b in e.actions) == 1
        and not any(b.verb == "jump" and b.actor == a.partner for b in e.actions)
    ]  # fmt: skip
    if not facts:
        return None
    event, action = draws.pick(facts)
    assert action.partner is not None
    others = [name for name in view.names if name != action.partner]
    wrong = three_wrong(draws, action.actor, set(event.places) - {action.partner}, others)
    return Draft("why_hop", {"object": action.partner, "event": event.title}, action.actor, wrong, (span(action),))


def next_actor(view: View, draws: Draws, answer_format: Format) -> Draft | None:
    """Which other object acts next in the event."""
    facts = [
        (event, action, following)
        for event in view.events
        for action, following in zip(event.actions, event.actions[1:])
        if action.verb in SOLO_VERBS and only_once(event, action.actor, action.verb) and following.actor != action.actor
    ]
    if not facts:
        return None
    event, action, following = draws.pick(facts)
    others = [name for name in view.names if name != action.actor]
    wrong = three_wrong(draws, following.actor, set(event.places) - {action.actor}, others)
    slots = {"object": action.actor, "past": VERBS[action.verb].past, "event": event.title}
    return Draft("next_actor", slots, following.actor, wrong, (span(action), span(following)))


def scene_of_letter(view: View, draws: Draws, answer_format: Format) -> Draft | None:
    """The scene during which a card is shown."""
    facts = [(card, event) for card in view.cards if (event := view.event_of(card))]
    if not facts:
        return None
    card, event = draws.pick(facts)
    wrong = three_wrong(draws, event.scene, view.scenes, SCENES)
    return Draft("scene_of_letter", {"glyph": card.glyph}, event.scene, wrong, (span(card),))


def scene_of_action(view: View, draws: Draws, answer_format: Format) -> Draft | None:
    """The scene in which a unique action happens."""
    if not view.unique_solo_actions:
        return None
    event, action = draws.pick(view.unique_solo_actions)
    wrong = three_wrong(draws, event.scene, view.scenes, SCENES)
    slots = {"object": action.actor, "past": VERBS[action.verb].past}
    return Draft("scene_of_action", slots, event.scene, wrong, (span(action),))


def scene_change(view: View, draws: Draws, answer_format: Format) -> Draft | None:
    """The scene directly after or before an event; the event's own scene is no option."""
    if len(view.events) < 2:
        return None
    k = draws.below(len(view.events) - 1)
    before, after = view.events[k : k + 2]
    template, named, asked = draws.pick((("scene_after", before, after), ("scene_before", after, before)))
    others = {named.scene}
    wrong = three_wrong(draws, asked.scene, set(view.scenes) - others, set(SCENES) - others)
    return Draft(template, {"event": named.title}, asked.scene, wrong, (span(named), span(asked)))


def event_order(view: View, draws: Draws, answer_format: Format) -> Draft | None:
    """The order of three numbered events."""
    if len(view.events) < 3:
        return None
    events = draws.sample(view.events, 3)
    right = sorted(range(3), key=lambda k: events[k].start_seconds)
    orders = [", ".join(str(k + 1) for k in some) for some in permutations(range(3))]
    answer = ", ".join(str(k + 1) for k in right)
    slots = dict(zip(("event", "event2", "event3"), (event.title for event in events)))
    evidence = tuple(span(events[k]) for k in right)
    return Draft("event_order", slots, answer, three_wrong(draws, answer, orders), evidence)


def event_of_letter(view: View, draws: Draws, answer_format: Format) -> Draft | None:
    """The event during which a card is shown."""
    facts = [(card, event) for card in view.cards if (event := view.event_of(card))]
    if not facts or len(view.events) < 4:
        return None
    card, event = draws.pick(facts)
    wrong = three_wrong(draws, event.title, view.titles)
    return Draft("event_of_letter", {"glyph": card.glyph}, event.title, wrong, (span(card), span(event)))


def longest_event(view: View, draws: Draws, answer_format: Format) -> Draft | None:
    """The longest event, if it is at least 15 % longer than all others."""
    if len(view.events) < (3 if answer_format == "open" else 4):
        return None
    second, longest = sorted(view.events, key=_length)[-2:]
    if _length(longest) < 1.15 * _length(second):
        return None
    wrong = three_wrong(draws, longest.title, view.titles)
    return Draft("longest_event", {}, longest.title, wrong, (span(longest),))


def _length(event: Event) -> float:
    return event.end_seconds - event.start_seconds


def which_happened(view: View, draws: Draws, answer_format: Format) -> Draft | None:
    """Which event happened: the options combine two occasions with two scenes, and one of these events exists."""
    if answer_format == "open":
        return None
    for _ in range(20 if len(view.events) > 2 else 0):
        event, other, third = draws.sample(view.events, 3)
        pairs = [(o, s) for o in (event.occasion, other.occasion) for s in (event.scene, third.scene)]
        titles = [f"the {occasion} in the {scene}" for occasion, scene in pairs]
        if len(set(titles)) == 4 and sum(title in view.titles for title in titles) == 1:
            return Draft("which_happened", {}, event.title, tuple(titles[1:]), (span(event),))
    return None


def summary(view: View, draws: Draws, answer_format: Format) -> Draft | None:
    """The first, the middle and the last event in one sentence.

    Wrong options replace one or both of two parts, so each right part that can be replaced and each wrong part occurs
    in exactly two options.
    """
    if not view.events:
        return None
    half = view.script.duration_seconds / 2
    middle = next(event for event in view.events if event.end_seconds > half)
    right = [view.events[0], middle, view.events[-1]]
    outside = [event.title for event in view.events if event not in right]
    titles = [event.title for event in right]
    if len(set(titles)) < 3:
        return None
    while len(outside) < 2:  # a video with three or four events: invent more of the same kind
        title = f"the {draws.pick(OCCASIONS)} in the {draws.pick(SCENES)}"
        outside += [title] if title not in view.titles + outside else []
    fixed = draws.below(3)
    i, j = [k for k in range(3) if k != fixed]
    swaps = dict(zip((i, j), draws.sample(outside, 2)))
    sentences = []
    for changed in ((), (i,), (j,), (i, j)):
        parts = [swaps[k] if k in changed else titles[k] for k in range(3)]
        sentences.append(summary_sentence(*parts))
    return Draft("summary", {}, sentences[0], tuple(sentences[1:]), tuple(span(event) for event in right))
