"""A replica's own process: one engine, whose calls come from a server elsewhere.

Every call is one stream. It begins with `Taken`, so that the caller knows at once that the replica lives, however long
the answer takes, and whether it is still the same process: a new one watches nothing. What the engine raises comes as
an item, too: so it arrives as it was, whatever carries the stream.

An item costs both processes more than a token does. So pieces of text that come soon after another one are joined.
"""

import inspect
import secrets
import time
from collections.abc import AsyncGenerator, AsyncIterable, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from hourllava.errors import HourLlavaError
from hourllava.serving.protocol import Engine, TextPiece

# A piece of text that comes sooner after the last one that went waits for the next one.
TEXT_SECONDS = 0.05


@dataclass(frozen=True)
class Taken:
    """The first item of every stream; `process` names the process that took the call."""

    process: str


@dataclass(frozen=True)
class Raised:
    """The last item of a stream that ends with an error."""

    error: HourLlavaError


class ReplicaServer:
    """Answers the calls for one engine.

    Args:
        make_engine: called once; if it fails, every call ends with its error.
    """

    def __init__(self, make_engine: Callable[[], Engine]) -> None:
        self._taken = Taken(secrets.token_hex(8))
        self._engine: Engine | HourLlavaError
        try:
            self._engine = make_engine()
        except HourLlavaError as error:  # for those who wait for the start, and not for a log
            self._engine = error

    async def call(self, method: str, *arguments: Any, **options: Any) -> AsyncGenerator[Any, None]:
        """What a method of the engine gives: `Taken`, then its items or its result, or `Raised`.

        Args:
            method: of `Engine`.
            arguments, options: of that method.
        """
        yield self._taken
        if isinstance(self._engine, HourLlavaError):
            yield Raised(self._engine)
            return
        try:
            work = getattr(self._engine, method)(*arguments, **options)
            if not inspect.isasyncgen(work):
                yield await work
                return
            async with aclosing(work) as items, aclosing(joined_texts(items)) as joined:
                async for item in joined:
                    yield item
        except HourLlavaError as error:
            yield Raised(error)


async def joined_texts(items: AsyncIterable[Any]) -> AsyncGenerator[Any, None]:
    """The items in their order, with neighbouring pieces of text joined: at most one goes every `TEXT_SECONDS`."""
    text, passed_seconds = "", -TEXT_SECONDS
    try:
        async for item in items:
            if isinstance(item, TextPiece):
                text += item.text
                now = time.monotonic()
                if now < passed_seconds + TEXT_SECONDS:
                    continue
                text, item, passed_seconds = "", TextPiece(text), now
            elif text:
                yield TextPiece(text)
                text = ""
            yield item
    except HourLlavaError:
        if text:
            yield TextPiece(text)
        raise
    if text:
        yield TextPiece(text)
