"""Answers of `/v1/responses`: each runs by itself, writes down its events, and is kept for a while.

Those who wait read the events from the beginning, or from where they were. A run in the background goes on when nobody
reads; another ends with its client.
"""

import asyncio
import secrets
from collections.abc import AsyncGenerator
from typing import Any

from hourllava.inference.questions.answers import Answer
from hourllava.serving.asking import Asked, ask
from hourllava.serving.chat_shapes import AnswerExtras
from hourllava.serving.citing import cited
from hourllava.serving.context import Context
from hourllava.serving.errors import ApiError, api_error, invalid
from hourllava.serving.protocol import TextPiece, WatchView
from hourllava.serving.response_shapes import (
    Citation,
    Incomplete,
    OutputMessage,
    OutputText,
    ResponseFailure,
    ResponseObject,
    ResponseUsage,
)
from hourllava.serving.shapes import Evidence
from hourllava.serving.showing import memory_shown


class Run:
    """One response that is being made, or is made.

    Args:
        context: of the server.
        asked: the question.
        response: what clients get, to be filled.
        base: address of the server.
        tells_progress: whether events tell of the watching.

    Attributes:
        response: as it is now.
        asked: as given.
        failure: why it failed.
    """

    def __init__(
        self, context: Context, asked: Asked, response: ResponseObject, base: str, *, tells_progress: bool
    ) -> None:
        self.asked, self.response = asked, response
        self.failure: ApiError | None = None
        self._context, self._base, self._tells_progress = context, base, tells_progress
        self._events: list[dict[str, Any]] = []
        self._changed = asyncio.Condition()
        self._message = OutputMessage(id=f"msg_{secrets.token_hex(16)}")
        self._text = OutputText()
        self._task = asyncio.create_task(self._run())

    @property
    def id(self) -> str:
        """Of the response."""
        return self.response.id

    @property
    def owner(self) -> str:
        """Of the response."""
        return self.asked.owner

    @property
    def is_final(self) -> bool:
        """Whether nothing more comes."""
        return self.response.is_final

    def has_more(self, after: int) -> bool:
        """Whether there are events with a larger number."""
        return len(self._events) > after + 1

    async def events(self, after: int = -1) -> AsyncGenerator[dict[str, Any], None]:
        """All events with a larger number, as they come.

        Raises:
            ApiError: it failed before it began.
        """
        position = after + 1
        while True:
            async with self._changed:
                while len(self._events) <= position and not self.is_final:
                    await self._changed.wait()
            if not self._events and self.failure is not None:
                raise self.failure
            if position >= len(self._events):
                return
            yield self._events[position]
            position += 1

    async def end(self) -> ResponseObject:
        """The response, when nothing more comes.

        Raises:
            ApiError: it failed.
        """
        async with self._changed:
            while not self.is_final:
                await self._changed.wait()
        if self.failure is not None:
            raise self.failure
        return self.response

    async def cancel(self) -> None:
        """End it, unless it has ended."""
        if not self.is_final:
            self._task.cancel()
            await asyncio.wait((self._task,))

    async def _run(self) -> None:
        try:
            if self.response.background:
                await self._begin("queued")
            async for event in ask(self._context, self.asked):
                if not self._events or self.response.status == "queued":
                    await self._begin("in_progress")
                if isinstance(event, WatchView):
                    await self._tell_progress(event)
                elif isinstance(event, TextPiece):
                    await self._write(event.text)
                else:
                    await self._finish(event)
        except asyncio.CancelledError:
            self.failure = None
            await self._close("cancelled")
        except Exception as error:  # noqa: BLE001 - nobody awaits this task: the response tells
            self.failure = api_error(error, is_draining=self._context.closing.is_draining)
            if self._events:
                self._context.metrics.rejected(self.failure.code)
            self.response.error = ResponseFailure(code=self.failure.code, message=self.failure.message)
            await self._close("failed")

    async def _begin(self, status: str) -> None:
        if not self._events:
            self.response.status = "queued" if status == "queued" else "in_progress"
            await self._tell("response.created", response=self._snapshot())
        self.response.status = "queued" if status == "queued" else "in_progress"
        await self._tell(f"response.{status}", response=self._snapshot())

    async def _tell_progress(self, view: WatchView) -> None:
        if self._tells_progress and self.asked.memory is not None:
            memory = await memory_shown(self._context, self.asked.memory, view)
            await self._tell("hourllava.watch.progress", watching=memory.model_dump(mode="json"))

    async def _write(self, text: str) -> None:
        if not self.response.output:
            self.response.output = [self._message]
            await self._tell("response.output_item.added", output_index=0, item=self._message.model_dump(mode="json"))
            await self._tell("response.content_part.added", **self._place, part=self._text.model_dump(mode="json"))
            self._message.content = [self._text]
        if text:
            self._text.text += text
            await self._tell("response.output_text.delta", **self._place, delta=text, logprobs=[])

    async def _finish(self, answer: Answer) -> None:
        await self._write("")
        memory, response = self.asked.memory, self.response
        for url, title in cited(memory, answer.evidence, self._base):
            citation = Citation(url=url, title=title, start_index=0, end_index=len(answer.text))
            number = {"annotation_index": len(self._text.annotations)}
            self._text.annotations.append(citation)
            shown = citation.model_dump(mode="json")
            await self._tell("response.output_text.annotation.added", **self._place, **number, annotation=shown)
        is_whole = answer.finish_reason == "stop"
        self._message.status = "completed" if is_whole else "incomplete"
        response.usage = ResponseUsage.of(answer)
        response.incomplete_details = None if is_whole else Incomplete()
        response.hourllava = AnswerExtras(
            evidence=[Evidence.of(span) for span in answer.evidence],
            memory_id=None if memory is None else memory.id,
            first_token_seconds=answer.first_token_seconds,
            total_seconds=answer.total_seconds,
        )
        await self._tell("response.output_text.done", **self._place, text=self._text.text, logprobs=[])
        await self._tell("response.content_part.done", **self._place, part=self._text.model_dump(mode="json"))
        await self._tell("response.output_item.done", output_index=0, item=self._message.model_dump(mode="json"))
        await self._close("completed" if is_whole else "incomplete")

    @property
    def _place(self) -> dict[str, Any]:
        return {"item_id": self._message.id, "output_index": 0, "content_index": 0}

    async def _close(self, status: Any) -> None:
        if self.is_final:
            return
        self.response.status = status
        if self._events:
            await self._tell(f"response.{status}", response=self._snapshot())
        async with self._changed:
            self._changed.notify_all()

    def _snapshot(self) -> dict[str, Any]:
        return self.response.model_dump(mode="json")

    async def _tell(self, kind: str, **fields: Any) -> None:
        self._events.append({"type": kind, "sequence_number": len(self._events), **fields})
        async with self._changed:
            self._changed.notify_all()


def turns_before(run: Run) -> list[tuple[str, str]]:
    """The conversation up to and with a response.

    Raises:
        ApiError: it has no answer.
    """
    if run.response.status not in ("completed", "incomplete"):
        raise invalid(f"that response is {run.response.status}; it has no answer", "previous_response_id")
    question = run.asked.question
    text = "".join(part.text for item in run.response.output for part in item.content)
    return [*question.history, (question.text, text)]
