"""Answers MarathonWorld's questions from their words and the log of what is on screen.

Shares nothing with the generator but the file of phrasings (to read questions) and the screen log: how a video looks,
not how a question was made. Every rule is written anew from the meaning of the question. The tests hold the generator
against it, and synthesis holds questions against it whose log was read from captions.
"""

import re

from hourllava.world.questions.reading import COLUMNS, MEET, PAST, PLAIN, ROWS, Unanswerable, read, require
from hourllava.world.script import Shown

_OF_OPTIONS = {"first_of_these", "last_of_these", "which_appears", "which_never_appears", "which_happened"}


class Solver:
    """Answers questions about one video.

    Args:
        log: what is on screen, from `screen_log`.
        total_seconds: length of the video.
    """

    def __init__(self, log: list[Shown], total_seconds: int):
        self._rules = _Rules(log, total_seconds)

    def solve(self, text: str, options: tuple[str, ...]) -> str:
        """The right answer: one of the options if there are any, otherwise the canonical open answer.

        Raises:
            Unanswerable: the log does not give one answer.
        """
        template, _, slots = read(text)
        rule = getattr(self._rules, template, None)
        require(rule is not None, template)
        assert rule is not None
        try:
            right = rule(options) if template in _OF_OPTIONS else [rule(**slots)]
        except (LookupError, ValueError) as error:
            raise Unanswerable(str(error)) from error
        if options:
            right = [option for option in options if option in right]
        require(len(right) == 1, (text, options, right))
        return str(right[0])


class _Rules:
    """A method for each template, named as it is; its arguments are the template's slots."""

    def __init__(self, log: list[Shown], total_seconds: int):
        self.total = total_seconds
        self.events = [line for line in log if line.kind == "event"]
        self.cards = [line for line in log if line.kind == "card"]
        self.actions = [line for line in log if line.kind == "action"]
        self.objects = [line for line in log if line.kind == "object"]

    # -- looking things up

    def _event(self, words: str) -> Shown:
        words = words[0].lower() + words[1:]
        named = [event for event in self.events if event.name == words]
        if not named:
            card = self._card(re.findall(r"\b[E-Z2-9]\b", words)[-1])
            named = [event for event in self.events if event.start_seconds <= card.start_seconds < event.end_seconds]
        require(len(named) == 1, words)
        return named[0]

    def _card(self, letter: str) -> Shown:
        (card,) = [card for card in self.cards if card.name == letter]
        return card

    def _thing(self, words: str) -> Shown:
        words = words[0].lower() + words[1:]
        return self._card(words[-1]) if words.startswith("the letter ") else self._event(words)

    def _during(self, event: Shown) -> list[Shown]:
        return [
            a for a in self.actions if event.start_seconds <= a.start_seconds and a.end_seconds <= event.end_seconds
        ]

    def _one(self, actions: list[Shown]) -> Shown:
        require(len(actions) == 1, actions)
        return actions[0]

    def _present(self, event: Shown) -> set[str]:
        return {o.name for o in self.objects if event.start_seconds <= o.start_seconds < event.end_seconds}

    def _at_start(self, event: Shown) -> dict[str, Shown]:
        return {o.name: o for o in self.objects if o.start_seconds == event.start_seconds}

    def _at_end(self, event: Shown) -> dict[str, Shown]:
        return {o.name: o for o in self.objects if o.end_seconds == event.end_seconds}

    def _object_in(self, place: str, event: Shown) -> Shown:
        return self._one([o for o in self._at_start(event).values() if o.place == place])

    def _quarter_of(self, thing: Shown) -> int:
        quarter = self.total / 4
        inside = [k for k in range(4) if k * quarter <= thing.start_seconds and thing.end_seconds <= (k + 1) * quarter]
        require(len(inside) == 1, thing.name)
        return inside[0]

    @staticmethod
    def _length(seconds: float) -> str:
        if seconds < 20:
            amount, unit = round(seconds), "second"
        elif seconds < 120:
            amount, unit = 5 * round(seconds / 5), "second"
        elif seconds < 7200:
            amount, unit = round(seconds / 60), "minute"
        else:
            amount, unit = round(seconds / 3600), "hour"
        return f"{amount} {unit}" + ("" if amount == 1 else "s")

    @staticmethod
    def _direction(place: str, other: str) -> str:
        def cell(name: str) -> tuple[int, int]:
            words = name.split()
            return (1, 1) if words == ["centre"] else (ROWS[words[0]], COLUMNS[words[1]])

        (row, column), (row2, column2) = cell(place), cell(other)
        words = ["above"] * (row < row2) + ["below"] * (row > row2) + ["left"] * (column < column2)
        return " ".join(words + ["right"] * (column > column2))

    # -- temporality

    def part_of_video(self, thing: str) -> str:
        names = ("the first quarter", "the second quarter", "the third quarter", "the last quarter")
        return names[self._quarter_of(self._thing(thing))]

    def event_duration(self, event: str) -> str:
        found = self._event(event)
        return self._length(found.end_seconds - found.start_seconds)

    def backwards(self) -> str:
        return max(self.cards, key=lambda card: card.start_seconds).name

    def next_letter(self, event: str) -> str:
        end = self._event(event).end_seconds
        return min((c for c in self.cards if c.start_seconds >= end), key=lambda card: card.start_seconds).name

    def letter_between(self, glyph: str, glyph2: str) -> str:
        low, high = self._card(glyph).start_seconds, self._card(glyph2).start_seconds
        return self._one([c for c in self.cards if low < c.start_seconds < high]).name

    def gap_letters(self, glyph: str, glyph2: str) -> str:
        return self._length(self._card(glyph2).start_seconds - self._card(glyph).start_seconds)

    def gap_events(self, event: str, event2: str) -> str:
        return self._length(self._event(event2).start_seconds - self._event(event).start_seconds)

    def first_of_two(self, thing: str, thing2: str) -> str:
        return min((thing, thing2), key=lambda name: self._thing(name).start_seconds).replace("The ", "the ")

    def first_of_these(self, options: tuple[str, ...]) -> list[str]:
        return [min(options, key=lambda name: self._thing(name).start_seconds)]

    def last_of_these(self, options: tuple[str, ...]) -> list[str]:
        return [max(options, key=lambda name: self._thing(name).start_seconds)]

    # -- spatiality

    def place_at_start(self, object: str, event: str) -> str:
        return str(self._at_start(self._event(event))[object].place)

    def relative_at_start(self, object: str, object2: str, event: str) -> str:
        there = self._at_start(self._event(event))
        return self._direction(str(there[object].place), str(there[object2].place))

    def relative_at_end(self, object: str, object2: str, event: str) -> str:
        there = self._at_end(self._event(event))
        return self._direction(str(there[object].place), str(there[object2].place))

    # -- objects

    def object_at_place(self, place: str, event: str) -> str:
        return self._object_in(place, self._event(event)).name

    def object_did(self, past: str, event: str) -> str:
        found = [a for a in self._during(self._event(event)) if a.verb == PAST[past]]
        if past == "jumped up and down":
            require(not [a for a in self._during(self._event(event)) if a.verb == "bump"], event)
        return self._one(found).name

    def letter_colour(self, glyph: str) -> str:
        return str(self._card(glyph).colour)

    def colour_at_place(self, place: str, event: str) -> str:
        return str(self._object_in(place, self._event(event)).colour)

    def shape_at_place(self, place: str, event: str) -> str:
        return str(self._object_in(place, self._event(event)).shape)

    def partner(self, object: str, meet: str, event: str) -> str:
        found = set()
        for action in self._during(self._event(event)):
            if action.verb == MEET[meet] and action.name == object:
                found.add(action.partner)
            if action.verb == MEET[meet] == "swap" and action.partner == object:
                found.add(action.name)
        (partner,) = found
        return str(partner)

    def interaction(self, object: str, object2: str, event: str) -> str:
        met = [a for a in self._during(self._event(event)) if {a.name, a.partner} == {object, object2}]
        verb = self._one(met).verb
        return next(past for past, name in PAST.items() if name == verb)

    def actor_by_letter(self, glyph: str, past: str) -> str:
        card = self._card(glyph)
        event = self._one([e for e in self.events if e.start_seconds <= card.start_seconds < e.end_seconds])
        return self.object_did(past, event.name)

    def shared_object(self, event: str, event2: str) -> str:
        (name,) = self._present(self._event(event)) & self._present(self._event(event2))
        return name

    def which_appears(self, options: tuple[str, ...]) -> list[str]:
        return [option for option in options if option in {o.name for o in self.objects}]

    def which_never_appears(self, options: tuple[str, ...]) -> list[str]:
        return [option for option in options if option not in {o.name for o in self.objects}]

    def object_appears(self, an_object: str) -> str:
        return "yes" if an_object.split(" ", 1)[1] in {o.name for o in self.objects} else "no"

    def return_place(self, object: str, event: str) -> str:
        trip = self._one([a for a in self._during(self._event(event)) if a.name == object and a.verb == "leave"])
        return str(
            self._one([o for o in self.objects if o.name == object and o.start_seconds == trip.end_seconds]).place
        )

    def hidden_object(self, object: str, event: str) -> str:
        covers = [a for a in self._during(self._event(event)) if a.name == object and a.verb == "cover"]
        return str(self._one(covers).partner)

    def next_event_of(self, object: str, event: str) -> str:
        end = self._event(event).end_seconds
        later = [e for e in self.events if e.start_seconds >= end and object in self._present(e)]
        require(object in self._present(self._event(event)), object)
        return min(later, key=lambda e: e.start_seconds).name

    # -- actions

    def what_did(self, object: str, event: str) -> str:
        action = self._one([a for a in self._during(self._event(event)) if object in (a.name, a.partner)])
        return next(past for past, name in PAST.items() if name == action.verb)

    def slide_direction(self, object: str, event: str) -> str:
        slides = [a for a in self._during(self._event(event)) if a.name == object and a.verb == "slide"]
        return str(self._one(slides).direction)

    def when_did(self, object: str, plain: str) -> str:
        action = self._one([a for a in self.actions if a.name == object and a.verb == PLAIN[plain]])
        width = 10 if self.total <= 300 else 60 if self.total <= 7200 else 600
        low = width * int(action.start_seconds / width)
        require(low < action.start_seconds < low + width, plain)

        def clock(s: int) -> str:
            return f"{s // 3600}:{s // 60 % 60:02}:{s % 60:02}"

        return f"between {clock(low)} and {clock(low + width)}"

    @staticmethod
    def _three(actions: list[Shown]) -> str:
        first = sorted(actions, key=lambda a: a.start_seconds)[:3]
        names = {verb: plain for plain, verb in PLAIN.items()} | {"swap": "swap places", "orbit": "circle"}
        require(len({a.verb for a in first}) == 3, "the first three actions")
        return ", ".join(names[str(a.verb)] for a in first)

    def action_order(self, event: str) -> str:
        return self._three(self._during(self._event(event)))

    def action_order_video(self) -> str:
        return self._three(self.actions)

    def why_hop(self, object: str, event: str) -> str:
        within = self._during(self._event(event))
        require(not [a for a in within if a.verb == "jump" and a.name == object], object)
        return self._one([a for a in within if a.verb == "bump" and a.partner == object]).name

    def next_actor(self, object: str, past: str, event: str) -> str:
        within = self._during(self._event(event))
        action = self._one([a for a in within if a.name == object and a.verb == PAST[past]])
        following = [a for a in within if a.start_seconds >= action.end_seconds]
        return min(following, key=lambda a: a.start_seconds).name

    # -- scenes and events

    def scene_of_letter(self, glyph: str) -> str:
        return self._scene(self._event(f"the card {glyph}"))

    def scene_of_action(self, object: str, past: str) -> str:
        action = self._one([a for a in self.actions if a.name == object and a.verb == PAST[past]])
        return self._scene(self._one([e for e in self.events if action in self._during(e)]))

    def scene_after(self, event: str) -> str:
        end = self._event(event).end_seconds
        return self._scene(self._one([e for e in self.events if e.start_seconds == end]))

    def scene_before(self, event: str) -> str:
        start = self._event(event).start_seconds
        return self._scene(self._one([e for e in self.events if e.end_seconds == start]))

    @staticmethod
    def _scene(event: Shown) -> str:
        return event.name.split(" in the ")[1]

    def event_order(self, event: str, event2: str, event3: str) -> str:
        starts = [self._event(e).start_seconds for e in (event, event2, event3)]
        return ", ".join(str(starts.index(s) + 1) for s in sorted(starts))

    def event_of_letter(self, glyph: str) -> str:
        return self._event(f"the card {glyph}").name

    def longest_event(self) -> str:
        by_length = sorted(self.events, key=lambda e: e.end_seconds - e.start_seconds)
        longest, second = (event.end_seconds - event.start_seconds for event in by_length[:-3:-1])
        require(longest > second, "two events last longest")
        return by_length[-1].name

    def which_happened(self, options: tuple[str, ...]) -> list[str]:
        return [option for option in options if option in {e.name for e in self.events}]

    def summary(self) -> str:
        ordered = sorted(self.events, key=lambda e: e.start_seconds)
        middle = self._one([e for e in ordered if e.start_seconds <= self.total / 2 < e.end_seconds])
        return (
            f"It starts with {ordered[0].name}, comes to {middle.name} at half time, and ends with {ordered[-1].name}."
        )
