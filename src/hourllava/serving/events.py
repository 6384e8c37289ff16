"""Answers that come as a stream of server-sent events: pings in silence, an end that says why, no work after it."""

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator
from typing import Any

import anyio
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from hourllava.serving.context import Context
from hourllava.serving.errors import api_error, queue_full, shutting_down

FIRST_EVENT_SECONDS = 2.0
"""How long the head of an answer waits for the first event: a fault until then gets a status of its own."""

PING = b": ping\n\n"
_CLOSE_SECONDS = 5.0


def event(data: Any, *, name: str = "", number: int | None = None) -> bytes:
    """One event; `data` becomes JSON."""
    head = f"event: {name}\n" if name else ""
    head += f"id: {number}\n" if number is not None else ""
    return f"{head}data: {json.dumps(data, separators=(',', ':'))}\n\n".encode()


def comment(text: str) -> bytes:
    """A line that clients skip; it keeps a connection alive."""
    return f": {text}\n\n".encode()


class EventStream(StreamingResponse):
    """A response of events; made by `stream`."""

    media_type = "text/event-stream"

    def __init__(self, feed: "_Feed", first: bytes | None, context: Context) -> None:
        headers = {"Cache-Control": "no-cache, no-transform", "X-Accel-Buffering": "no"}
        super().__init__(_with_pings(feed, first, context), headers=headers)
        self._feed, self._context = feed, context

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send all events; however that ends, their source is closed."""
        self._context.num_streams += 1
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._context.num_streams -= 1
            await self._feed.close()  # also if no event was sent


async def stream(
    events: AsyncGenerator[bytes, None], context: Context, *, ends_with_drain: bool = False
) -> EventStream:
    """A response of these events.

    It begins with the first event, or after two seconds. An error until then is raised here, so it gets its own status.
    An error after that is an event `{"error": ...}`, as the SDK expects it.

    Args:
        events: with a blank line after each.
        context: of the server.
        ends_with_drain: whether the stream ends as soon as the server takes nothing new, because nobody waits for it.
    """
    if context.num_streams >= context.settings.max_streams:
        raise queue_full(f"{context.num_streams} streams are open, and that is the limit", 30)
    feed = _Feed(events, context, context.closing.drained if ends_with_drain else context.closing.ended)
    try:
        first = await feed.next(FIRST_EVENT_SECONDS)
    except BaseException:
        await feed.close()
        raise
    return EventStream(feed, first, context)


class _Feed:
    """Events that are waited for one by one; the waiting can stop and go on."""

    def __init__(self, events: AsyncGenerator[bytes, None], context: Context, end: asyncio.Event) -> None:
        self._events, self._context = events, context
        self._end = asyncio.ensure_future(end.wait())
        self._next: asyncio.Future[bytes] | None = None

    async def next(self, wait_seconds: float) -> bytes | None:
        """The next event; None if there is none yet.

        Raises:
            StopAsyncIteration: there are no more.
            ApiError: the server ends.
        """
        if self._next is None:
            self._next = asyncio.ensure_future(anext(self._events))
        await asyncio.wait((self._next, self._end), timeout=wait_seconds, return_when=asyncio.FIRST_COMPLETED)
        if self._next.done():
            found, self._next = self._next, None
            return found.result()
        if self._end.done():
            raise shutting_down()
        return None

    async def close(self) -> None:
        """End the events' source, and wait until it has ended."""
        self._end.cancel()
        with anyio.move_on_after(_CLOSE_SECONDS, shield=True):
            if self._next is not None:
                self._next.cancel()
                with contextlib.suppress(BaseException):
                    await self._next
            await self._events.aclose()


async def _with_pings(feed: _Feed, first: bytes | None, context: Context) -> AsyncGenerator[bytes, None]:
    found = first
    try:
        yield PING if found is None else found
        while True:
            found = await feed.next(context.settings.ping_seconds)
            yield PING if found is None else found
    except StopAsyncIteration:
        return
    except Exception as error:  # noqa: BLE001 - the head is sent: an event is the only way to tell
        told = api_error(error, is_draining=context.closing.is_draining)
        context.metrics.rejected(told.code)
        yield event(told.body)
    finally:
        await feed.close()
