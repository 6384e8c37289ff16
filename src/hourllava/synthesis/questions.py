"""Stage `questions`: for each topic and format, the writer asks, and says what one must see to answer."""

import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from hourllava.data.records.taxonomy import TASKS, TOPICS, find_task
from hourllava.synthesis.captions import Captioned
from hourllava.synthesis.clips import PlannedVideo
from hourllava.synthesis.events import EventSpan, Writer
from hourllava.synthesis.models.request import Request
from hourllava.synthesis.prompting import data_block, read_package_text
from hourllava.synthesis.rows import ItemFault, digest
from hourllava.synthesis.settings import Format
from hourllava.synthesis.shapes import ChoiceQuestion, ChoiceQuestions, OpenQuestion, OpenQuestions
from hourllava.synthesis.stage import Item
from hourllava.synthesis.times import Span, clock, read_range

STAGE = "questions"
SUMMARY_TASK = "Overall Summarization"
"""It needs no request: its answer is the summary of the video."""
MAX_PARTS = 400  # of a video in one request; longer videos are asked about part by part
_NAMED = re.compile(r"(event|part|clip)\s*#?(\d+)", re.IGNORECASE)
_WHOLE = re.compile(r"(the )?(whole|entire) video", re.IGNORECASE)


@cache
def task_sheet() -> dict[str, Any]:
    """Topics with their aspects, and tasks with their definitions and examples; `prompts/tasks.json`."""
    found: dict[str, Any] = json.loads(read_package_text("tasks.json"))
    return found


@dataclass(frozen=True)
class Told:
    """All that is known of a video when questions are written.

    Attributes:
        planned, captions, events, summary: of the earlier stages.
    """

    planned: PlannedVideo
    captions: Sequence[Captioned]
    events: Sequence[EventSpan]
    summary: str


@dataclass(frozen=True)
class Asked:
    """What one item asks for.

    Attributes:
        topic, format: of the questions.
        tasks: of the topic.
        told: of the video.
        captions: of the clips that the request has.
        events: (number, event) that the request has.
    """

    topic: str
    format: Format
    tasks: tuple[str, ...]
    told: Told
    captions: Sequence[Captioned]
    events: Sequence[tuple[int, EventSpan]]


class QuestionStage:
    """Makes the questions of videos.

    Args:
        writer: of the run.
    """

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        self._wanted = writer.settings.questions
        self._temperature = writer.settings.sampling.question_temperature
        self._makers = {
            form: writer.maker(STAGE, f"{form}_questions", self._temperature, per_task=self._wanted.per_task)
            for form in self._wanted.formats
        }

    def items(self, told: Told) -> Iterator[Item]:
        """An item for each topic, format and, in videos of hours, each part; none for a video without events."""
        if not told.events:
            return
        for asked, part in self._asked(told):
            request = self._request(asked, asked.tasks)
            key = digest(self._makers[asked.format], request.system, request.text)
            name = f"{told.planned.video.id} {asked.topic} {asked.format}{part}"
            yield Item(name, key, self._makers[asked.format], asked)

    def _asked(self, told: Told) -> Iterator[tuple[Asked, str]]:
        windows = [told.captions[k : k + MAX_PARTS] for k in range(0, len(told.captions), MAX_PARTS)]
        for number, window in enumerate(windows):
            start, end = window[0].clip.start_seconds, window[-1].clip.end_seconds
            events = [
                (k + 1, event)
                for k, event in enumerate(told.events)
                if event.start_seconds < end and event.end_seconds > start
            ]
            part = f" part {number}" if len(windows) > 1 else ""
            for topic in TOPICS:
                tasks = tuple(
                    task
                    for task in self._wanted.tasks
                    if TASKS[task].topic == topic and "definition" in task_sheet()[topic]["tasks"][task]
                    and task != SUMMARY_TASK
                )  # fmt: skip
                for form in self._wanted.formats if tasks and events else ():
                    yield Asked(topic, form, tasks, told, window, events), part

    def _request(self, asked: Asked, tasks: Sequence[str]) -> Request:
        sheet = task_sheet()[asked.topic]
        lines = []
        for task in tasks:
            question, answer = sheet["tasks"][task]["example"]
            lines.append(f"- {task}: {sheet['tasks'][task]['definition']}. Example: {question} - {answer}")
        kind = f"{asked.format}_questions"
        return self._writer.request(
            kind,
            OpenQuestions if asked.format == "open" else ChoiceQuestions,
            self._temperature,
            duration=clock(asked.told.planned.duration_seconds),
            events=data_block("events", [event.line(number) for number, event in asked.events]),
            summary=data_block("summary", [asked.told.summary]),
            clips=data_block("parts", [captioned.line(sheet["aspects"]) for captioned in asked.captions]),
            tasks="\n".join(lines),
            per_task=str(self._wanted.per_task),
        )

    async def work(self, item: Item) -> dict[str, Any]:
        """The questions of an item. If the topic as a whole fails, each of its tasks is asked for alone."""
        asked: Asked = item.input
        try:
            questions = await self._ask(item, asked, asked.tasks)
            failed: list[str] = []
        except ItemFault as fault:
            if fault.is_transport or fault.kind in ("refusal", "content filter") or len(asked.tasks) == 1:
                raise
            questions, failed = [], []
            for task in asked.tasks:
                try:
                    questions += await self._ask(item, asked, (task,))
                except ItemFault:
                    failed.append(task)
            if len(failed) == len(asked.tasks):
                raise
        kept, left_out = self._sorted_out(questions, asked.tasks)
        return {"questions": kept, "failed_tasks": failed, "left_out": left_out}

    async def _ask(self, item: Item, asked: Asked, tasks: Sequence[str]) -> list[OpenQuestion | ChoiceQuestion]:
        request = self._request(asked, tasks)
        if asked.format == "open":
            return list((await self._writer.asker.ask(request, item.id, OpenQuestions)).questions)
        return list((await self._writer.asker.ask(request, item.id, ChoiceQuestions)).questions)

    def _sorted_out(
        self, questions: Sequence[OpenQuestion | ChoiceQuestion], tasks: Sequence[str]
    ) -> tuple[list[dict[str, Any]], dict[str, int]]:
        """The questions of the wanted tasks, as many as were wanted; and how many others came, by reason."""
        counts: Counter[str] = Counter()
        left_out: Counter[str] = Counter()
        kept = []
        for question in questions:
            task = find_task(question.task)
            if task is None or task.name not in tasks:
                left_out["another task"] += 1
            elif counts[task.name] == self._wanted.per_task:
                left_out["more than asked for"] += 1
            else:
                counts[task.name] += 1
                kept.append(question.model_dump() | {"task": task.name})
        return kept, dict(left_out)


def evidence_spans(names: Sequence[str], told: Told) -> tuple[Span, ...] | None:
    """Spans of the evidence that a writer names; None if a name is none of the video's, or none is given.

    Args:
        names: "event 3", "part 12", "0:12:04-0:12:10", "the whole video".
        told: of the video.
    """
    duration = told.planned.duration_seconds
    spans: list[Span] = []
    for name in names:
        if _WHOLE.fullmatch(name.strip()):
            spans.append((0.0, duration))
        elif match := _NAMED.fullmatch(name.strip()):
            number = int(match[2]) - 1
            things: Sequence[Any] = told.events if match[1].lower() == "event" else told.planned.clips
            if not 0 <= number < len(things):
                return None
            spans.append((things[number].start_seconds, things[number].end_seconds))
        else:
            span = read_range(name)
            # A clock has no fractions, so a moment may be named by one second twice.
            if span is None or span[0] >= duration or span[1] > duration + 1:
                return None
            spans.append((span[0], min(duration, max(span[1], span[0] + 1))))
    return joined_spans(spans) or None


def joined_spans(spans: Sequence[Span]) -> tuple[Span, ...]:
    """Spans in order of time; those that touch are one."""
    joined: list[Span] = []
    for start, end in sorted(spans):
        if joined and start <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(end, joined[-1][1]))
        else:
            joined.append((start, end))
    return tuple(joined)
