"""Questions on their way to the engine and back: who asks how many, what goes wrong, and when nobody waits any more."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Coroutine, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import anyio
from fastapi import Request
from starlette.requests import ClientDisconnect

from hourllava.errors import HourLlavaError
from hourllava.inference.questions.answers import Answer, Choice
from hourllava.inference.questions.evidence import Span
from hourllava.serving.context import Context
from hourllava.serving.errors import api_error, cancelled, failed, invalid, queue_full, shutting_down
from hourllava.serving.protocol import AskEvent, Question, Video, WatchFailure, WatchView
from hourllava.serving.records import MemoryRecord

T = TypeVar("T")

_CLOSE_SECONDS = 5.0
_RETRY_SECONDS = 5.0


@dataclass(frozen=True)
class Asked:
    """A question and the memory it is about; None: the language model alone is asked."""

    owner: str
    memory: MemoryRecord | None
    question: Question


def check_question(context: Context, text: str, history: list[tuple[str, str]], param: str) -> None:
    """Check lengths.

    Raises:
        ApiError: there is no question, or it is too long.
    """
    limits = context.settings
    if not text.strip():
        raise invalid("the last message asks nothing; give it a text", param)
    longest = max(len(text), *(len(each) for turn in history for each in turn), 0)
    if longest > limits.max_question_characters:
        raise invalid(f"a text has {longest:,} letters; the limit is {limits.max_question_characters:,}", param)
    if len(history) > limits.max_turns:
        raise invalid(f"the conversation has {len(history)} turns; the limit is {limits.max_turns}", param)


@contextlib.contextmanager
def question_place(context: Context, owner: str) -> Iterator[None]:
    """A place for a question of this client.

    Raises:
        ApiError: it has too many questions open.
    """
    limit = context.settings.max_client_questions
    if context.questions.get(owner, 0) >= limit:
        raise queue_full(f"{limit} of your questions are open, and that is the limit", _RETRY_SECONDS)
    if context.closing.is_draining:
        raise shutting_down()
    context.questions[owner] = context.questions.get(owner, 0) + 1
    try:
        yield
    finally:
        context.questions[owner] -= 1
        if not context.questions[owner]:
            del context.questions[owner]


def video_of(context: Context, memory: MemoryRecord | None) -> Video | None:
    """The video of a memory."""
    return None if memory is None else context.watching.video(memory)


@contextlib.contextmanager
def errors_of(context: Context, memory: MemoryRecord | None) -> Iterator[None]:
    """Errors of an engine as those of the API, without the paths of the server."""
    try:
        yield
    except HourLlavaError as error:
        raise api_error(error, video_of(context, memory), is_draining=context.closing.is_draining) from error


async def ask(context: Context, asked: Asked) -> AsyncGenerator[AskEvent, None]:
    """Answer a question: the engine's events, counted and checked.

    Raises:
        ApiError: whatever goes wrong.
    """
    with question_place(context, asked.owner), errors_of(context, asked.memory):
        async with contextlib.aclosing(context.engine.ask(video_of(context, asked.memory), asked.question)) as events:
            async for event in events:
                if isinstance(event, WatchView):
                    _check_view(context, event)
                elif isinstance(event, Answer):
                    if event.finish_reason == "cancelled":
                        raise shutting_down() if context.closing.is_draining else cancelled()
                    context.metrics.answered(event)
                yield event


def _check_view(context: Context, view: WatchView) -> None:
    context.watching.check_frames(view)
    if view.state == "failed":
        failure = view.failure or WatchFailure("memory_failed", "the video could not be watched")
        raise failed(failure.code, failure.message)
    if view.state == "cancelled":
        raise shutting_down() if context.closing.is_draining else cancelled()


async def choose(context: Context, asked: Asked, options: Sequence[str]) -> Choice:
    """Choose one of several answers to a question.

    Raises:
        ApiError: there are too many options, one is empty or too long, or whatever else goes wrong.
    """
    limit = context.settings.max_options
    if len(options) > limit:
        raise invalid(f"{len(options)} options are given; the limit is {limit}", "options")
    check_question(context, asked.question.text, [], "question")
    for number, option in enumerate(options):
        check_question(context, option, [], f"options.{number}")
    with question_place(context, asked.owner), errors_of(context, asked.memory):
        return await context.engine.choose(video_of(context, asked.memory), asked.question, options)


async def find(context: Context, owner: str, memory: MemoryRecord, text: str, param: str) -> list[Span]:
    """The moments that a text is about, strongest first.

    Args:
        context: of the server.
        owner: who asks.
        memory: to be searched.
        text: what is looked for.
        param: the field of the request that has it.

    Raises:
        ApiError: whatever goes wrong.
    """
    check_question(context, text, [], param)
    with question_place(context, owner), errors_of(context, memory):
        return await context.engine.find(context.watching.video(memory), text)


async def until_gone(request: Request, context: Context, work: Coroutine[Any, Any, T]) -> T:
    """Do work for a client as long as it waits.

    Raises:
        ClientDisconnect: it left; the work is cancelled.
        ApiError: the server ends.
    """
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_disconnect(request))
    ended = asyncio.ensure_future(context.closing.ended.wait())
    try:
        await asyncio.wait((task, gone, ended), return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        raise shutting_down() if ended.done() else ClientDisconnect
    finally:
        for each in (task, gone, ended):
            each.cancel()
        with anyio.move_on_after(_CLOSE_SECONDS, shield=True):
            await asyncio.wait((task, gone, ended))


async def _disconnect(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
