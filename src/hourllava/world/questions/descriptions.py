"""Captions as answers: describe one event, or the whole video. They belong to no task and are not scored."""

from hourllava.world.captions import Captions
from hourllava.world.questions.draft import PHRASINGS
from hourllava.world.questions.stills import Exchange
from hourllava.world.questions.view import View
from hourllava.world.rng import Draws
from hourllava.world.script import Script
from hourllava.world.wording import sentence

MAX_EVENTS_DESCRIBED = 8  # in a description of a whole video; with more events it is mostly a list


def description_exchanges(script: Script, captions: Captions, count: int) -> list[Exchange]:
    """Up to `count` descriptions of different things: events, and the whole video if it has few events.

    Videos under 12 seconds have none, because their events are not asked about (`View.events`).
    """
    events = View(script).events
    descriptions = [("describe_event", event.title, one.caption) for event, one in zip(events, captions.events)]
    if 0 < len(events) <= MAX_EVENTS_DESCRIBED:
        descriptions.append(("describe_video", "", captions.overall))
    draws = Draws("descriptions", script.split, script.seed, script.duration_seconds)
    return [
        Exchange(template, sentence(draws.pick(PHRASINGS[template][script.split]).format(event=title)), answer)
        for template, title, answer in draws.sample(descriptions, min(count, len(descriptions)))
    ]
