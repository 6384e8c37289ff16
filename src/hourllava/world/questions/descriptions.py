"""Captions as answers: one event told, or the whole video. No question of the 22 tasks, and not scored."""

from hourllava.world.captions import Captions
from hourllava.world.questions.draft import PHRASINGS
from hourllava.world.questions.stills import Exchange
from hourllava.world.questions.view import View
from hourllava.world.rng import Draws
from hourllava.world.script import Script
from hourllava.world.wording import sentence

MOST_EVENTS = 8  # of a video that is told as a whole; longer answers are mostly a list


def description_exchanges(script: Script, captions: Captions, count: int) -> list[Exchange]:
    """Up to `count` descriptions of different things: events, and the video itself if its events are few.

    None for videos under 12 seconds, whose events are not asked about (`View.events`).
    """
    events = View(script).events
    told = [("describe_event", event.title, one.caption) for event, one in zip(events, captions.events)]
    if 0 < len(events) <= MOST_EVENTS:
        told.append(("describe_video", "", captions.overall))
    draws = Draws("descriptions", script.split, script.seed, script.duration_seconds)
    return [
        Exchange(template, sentence(draws.pick(PHRASINGS[template][script.split]).format(event=title)), answer)
        for template, title, answer in draws.sample(told, min(count, len(told)))
    ]
