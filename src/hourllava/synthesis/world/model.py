"""A model that answers from MarathonWorld's truth, for videos that were made here."""

import asyncio
import json
import math
import re
from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from hourllava.choices import LETTERS
from hourllava.data.records.taxonomy import TASKS
from hourllava.errors import ConfigError, VideoError
from hourllava.synthesis.models.request import Reply, Request
from hourllava.synthesis.prompting import read_block
from hourllava.synthesis.rows import ItemFault, digest
from hourllava.synthesis.shapes import (
    EventCaption,
    EventList,
    EventTime,
    Letter,
    Summary,
    Verdict,
)
from hourllava.synthesis.times import Span, clock, read_time
from hourllava.synthesis.world.describing import describe
from hourllava.synthesis.world.retelling import ToldEvent, read_event, small, told_event, told_script, told_titles
from hourllava.synthesis.world.seeing import Eye
from hourllava.world.questions import BUILDERS, Question, generate_questions
from hourllava.world.questions.draft import Format
from hourllava.world.questions.reading import Unanswerable
from hourllava.world.questions.solver import Solver
from hourllava.world.reference import REFERENCE_SUFFIX, load_reference
from hourllava.world.script import Script, screen_log
from hourllava.world.wording import listed, sentence, summary_sentence

LETTERS_PER_TOKEN = 4
PIXELS_PER_TOKEN = 28 * 28
_NEED_PLACES = ("spatiality", "object", "action")
_SPAN = re.compile(r"from (\d+:\d\d:\d\d(?:\.\d)?) to (\d+:\d\d:\d\d(?:\.\d)?)")
_LASTS = re.compile(r"The video lasts (\d+:\d\d:\d\d(?:\.\d)?)")
_TASK = re.compile(r"^- ([A-Z][A-Za-z ]+): ", re.MULTILINE)
_PER_TASK = re.compile(r"Write (\d+) questions for each task")


def scripts_of(videos: Iterable[Path]) -> list[Script]:
    """The scripts of MarathonWorld's videos: of a reference its own, of a video file the one that lies beside it.

    Raises:
        ConfigError: a video is not MarathonWorld's.
    """
    found = []
    for video in videos:
        beside = video.with_suffix(".json")
        try:
            if video.name.endswith(REFERENCE_SUFFIX):
                found.append(load_reference(video).script())
            else:
                found.append(Script.model_validate_json(beside.read_bytes()))
        except (OSError, ValidationError, VideoError) as error:
            raise ConfigError(
                f"{video} has no script of MarathonWorld beside it, and `world` knows only its videos; name a model, "
                "such as Qwen/Qwen2.5-VL-7B-Instruct@http://localhost:8000/v1"
            ) from error
    return found


class WorldModel:
    """Captioner, writer and verifier for MarathonWorld.

    Args:
        scripts: of the videos.
    """

    def __init__(self, scripts: Sequence[Script]) -> None:
        self._eye = Eye(scripts)

    @property
    def name(self) -> str:
        """What the model is."""
        return "world"

    @property
    def concurrency(self) -> int:
        """It computes in one thread; a second request waits ready."""
        return 2

    async def call(self, request: Request) -> Reply:
        """Answer from the pictures and texts of the request."""
        return await asyncio.to_thread(self.answer, request)

    async def close(self) -> None:
        """Nothing is open."""

    def answer(self, request: Request) -> Reply:
        """The reply to a request.

        Raises:
            ItemFault: the frames are of no video that it knows, or the request has no data.
        """
        answers = {
            "clip_caption": self._caption,
            "events": _events,
            "event_caption": _event_caption,
            "summary": _summary,
            "open_questions": lambda asked: _questions(asked, "open"),
            "choice_questions": lambda asked: _questions(asked, "choice"),
            "verify_choice": _verify_choice,
            "verify_open": _verify_open,
            "guess": _guess,
        }
        found = answers[request.kind](request)
        text = found.model_dump_json() if isinstance(found, BaseModel) else json.dumps(found)
        prompt = count_tokens(request.system) + count_tokens(request.text)
        prompt += sum(picture_tokens(p.width_pixels, p.height_pixels) for p in request.pictures)
        return Reply(text, prompt_tokens=prompt, completion_tokens=count_tokens(text), server="here")

    def _caption(self, request: Request) -> BaseModel:
        seen = self._eye.see(request.pictures)
        if seen is None:
            raise ItemFault("unknown video", "the frames show no video of MarathonWorld that is known here")
        told = [picture.seconds for picture in request.pictures]
        step = min((after - before for before, after in pairwise(told)), default=1.0)
        return describe(*seen, told, step)


def count_tokens(text: str) -> int:
    """About as many tokens as a text has."""
    return math.ceil(len(text) / LETTERS_PER_TOKEN)


def picture_tokens(width_pixels: int, height_pixels: int) -> int:
    """About as many tokens as a picture has for Qwen's models."""
    return math.ceil(width_pixels * height_pixels / PIXELS_PER_TOKEN)


def _duration(request: Request) -> float:
    match = _LASTS.search(request.text)
    if match is None:
        raise ItemFault("no data", "the request does not say how long the video lasts")
    return read_time(match[1])


def _told_events(request: Request) -> list[ToldEvent]:
    return [read_event(line) for line in read_block("events", request.text)]


def _events(request: Request) -> EventList:
    parts = read_block("parts", request.text)
    match = _SPAN.search(request.text)
    start, end = (read_time(match[1]), read_time(match[2])) if match else (0.0, _duration(request))
    starts: dict[str, float] = {}
    for part in parts:
        for when, title in told_titles(part.get("temporality", "")):
            seconds = max(start, read_time(part["from"]) if when is None else when)
            starts.setdefault(title, seconds)
    in_order = sorted(starts.items(), key=lambda pair: pair[1])
    ends = [when for _, when in in_order[1:]] + [end]
    return EventList(
        events=[
            EventTime(title=sentence(title), start=clock(when), end=clock(until))
            for (title, when), until in zip(in_order, ends)
            if until > when
        ]
    )


def _event_caption(request: Request) -> EventCaption:
    (event,) = read_block("event", request.text)
    parts = read_block("parts", request.text)
    told = told_event(small(event["title"]), read_time(event["from"]), read_time(event["to"]), parts)
    return EventCaption(caption=told.words())


def _summary(request: Request) -> Summary:
    events = _told_events(request)
    half = _duration(request) / 2
    middle = next((event for event in events if event.end_seconds > half), events[-1])
    names = sorted({name for event in events for name in event.places})
    parts = [
        summary_sentence(events[0].title, middle.title, events[-1].title),
        f"In all there are {len(events)} events: {listed([event.title for event in events])}.",
    ]
    if names:
        parts.append(f"Those who appear are {listed([f'the {name}' for name in names])}.")
    return Summary(summary=" ".join(parts))


def _questions(request: Request, form: Format) -> dict[str, Any]:
    events, duration = _told_events(request), _duration(request)
    # Only the data decide: what a retry adds to the text, or which tasks are asked for together, changes nothing.
    script = told_script(events, duration, int(digest(read_block("events", request.text))[:12], 16))
    tasks = tuple(task for task in _TASK.findall(request.text) if task in BUILDERS)
    wanted = _PER_TASK.search(request.text)
    if not all(len(event.places) > 1 for event in events):
        # Somebody's caption is missing: questions about places and objects might be wrong.
        tasks = tuple(task for task in tasks if TASKS[task].topic not in _NEED_PLACES)
    asked = generate_questions(script, per_task=int(wanted[1]) if wanted else 1, tasks=tasks, formats=(form,))
    return {"questions": [_as_written(question, events, duration) for question in asked]}


def _as_written(question: Question, events: Sequence[ToldEvent], duration: float) -> dict[str, Any]:
    written: dict[str, Any] = {"task": question.task, "question": question.question, "answer": question.answer}
    if question.options:
        written["wrong_options"] = [option for option in question.options if option != question.answer]
    return written | {"evidence": [_named(span, events, duration) for span in question.evidence]}


def _named(span: Span, events: Sequence[ToldEvent], duration: float) -> str:
    for number, event in enumerate(events, 1):
        if span == (event.start_seconds, event.end_seconds):
            return f"event {number}"
    if span[0] == 0 and span[1] >= int(duration):
        return "the whole video"
    return f"{clock(span[0])}-{clock(span[1])}"


def _solved(request: Request, question: str, options: Sequence[str]) -> str | None:
    """What follows from the events of a request; None if nothing does."""
    events, duration = _told_events(request), _duration(request)
    script = told_script(events, duration, 0)
    try:
        return Solver(screen_log(script), script.duration_seconds).solve(question, tuple(options))
    except Unanswerable:
        return None


def _verify_choice(request: Request) -> Letter:
    (asked,) = read_block("question", request.text)
    options = [line["option"] for line in read_block("options", request.text)]
    none, several = len(options) - 2, len(options) - 1
    real = options[:none]
    answer = _solved(request, asked["question"], real)
    if answer is None:
        answer = _solved(request, asked["question"], [])
    matches = [k for k, option in enumerate(real) if option == answer]
    return Letter(letter=LETTERS[none if not matches else several if len(matches) > 1 else matches[0]])


def _verify_open(request: Request) -> Verdict:
    (asked,) = read_block("question", request.text)
    answer = _solved(request, asked["question"], [])
    if answer is None:
        return Verdict(answer="not told", verdict="not told")
    is_same = answer.strip().casefold() == asked["proposed_answer"].strip().casefold()
    return Verdict(answer=answer, verdict="same" if is_same else "different")


def _guess(request: Request) -> Letter:
    options = read_block("options", request.text)
    return Letter(letter=LETTERS[int(digest(read_block("question", request.text), options)[:8], 16) % len(options)])
