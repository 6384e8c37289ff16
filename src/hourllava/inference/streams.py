"""An answer that is being written: text as it comes, for any number of readers, threads and tasks.

The engine's thread writes tokens into an `AnswerState`. Whoever reads waits for them, in a thread or in an asyncio
task, and turns them into text.
"""

import asyncio
import contextlib
import os
import threading
import time
import weakref
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from types import TracebackType
from typing import Self

from hourllava.errors import InputError
from hourllava.inference.questions.answers import Answer, FinishReason
from hourllava.inference.questions.evidence import Span

# Stands for the rest of a character whose bytes have not all come.
UNFINISHED = "\ufffd"

Decode = Callable[[Sequence[int]], str]


class TextPieces:
    """Turns growing text into pieces that are never taken back.

    The end of a text is held back while it may change: half a character, or the beginning of a stop text.

    Args:
        stop: texts that end the answer; neither they nor what follows is text of the answer.
    """

    def __init__(self, stop: Sequence[str] = ()) -> None:
        self.stop = stop
        self._num_given = 0

    def cut(self, text: str) -> tuple[str, bool]:
        """The text before the first stop text, and whether there is one."""
        places = [place for place in map(text.find, self.stop) if place >= 0]
        return (text[: min(places)], True) if places else (text, False)

    def next(self, text: str, is_whole: bool) -> str:
        """The new piece of a text that has grown; empty if nothing is certain yet.

        Args:
            text: all of it.
            is_whole: whether it will not grow.
        """
        text, is_cut = self.cut(text)
        if not (is_whole or is_cut):
            text = text.rstrip(UNFINISHED)
            begun = [n for stop in self.stop for n in range(1, len(stop)) if text.endswith(stop[:n])]
            text = text[: len(text) - max(begun, default=0)]
        piece = text[self._num_given :]
        self._num_given = max(self._num_given, len(text))
        return piece


class Cancellation:
    """Whether somebody still wants an answer. It knows nothing of the answer, so it may outlive it."""

    def __init__(self) -> None:
        self.is_wanted = True
        self.has_ended = False
        self._process = os.getpid()

    @property
    def is_of_this_process(self) -> bool:
        """Whether the process was not forked since; the thread that writes is in the process that began."""
        return self._process == os.getpid()

    def cancel(self, wake: Callable[[], None]) -> None:
        """Ask for the end, unless it has come."""
        if self.is_wanted and not self.has_ended and self.is_of_this_process:
            self.is_wanted = False
            wake()


class AnswerState:
    """What the engine's thread knows of one answer. All methods may be called from any thread.

    Args:
        question: as asked.
        decode: token ids to text.
        stop: texts that end the answer.
    """

    def __init__(self, question: str, decode: Decode, stop: Sequence[str] = ()) -> None:
        self.question, self.decode, self.stop = question, decode, tuple(stop)
        self.num_prompt_tokens = self.num_video_tokens = self.num_cached_tokens = 0
        self._started = time.perf_counter()
        self._first_token_seconds: float | None = None
        self._tokens: list[int] = []
        self.cancellation = Cancellation()
        self._answer: Answer | None = None
        self._error: BaseException | None = None
        self._changed = threading.Condition()
        self._tasks: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []

    # ------------------------------------------------------------------------------ for the engine's thread

    @property
    def is_cancelled(self) -> bool:
        """Whether nobody wants the rest."""
        return not self.cancellation.is_wanted

    @property
    def num_tokens(self) -> int:
        """Tokens so far."""
        return len(self._tokens)

    def put(self, token: int) -> bool:
        """Add a token; whether the text now holds a stop text."""
        with self._changed:
            if self._first_token_seconds is None:
                self._first_token_seconds = time.perf_counter() - self._started
            self._tokens.append(token)
            self._tell()
        return bool(self.stop) and TextPieces(self.stop).cut(self.decode(self._tokens))[1]

    def finish(self, reason: FinishReason, evidence: list[Span]) -> None:
        """End the answer."""
        text, _ = TextPieces(self.stop).cut(self.decode(self._tokens))
        now = time.perf_counter() - self._started
        self.cancellation.has_ended = True
        with self._changed:
            self._answer = Answer(
                question=self.question,
                text=text,
                evidence=evidence,
                finish_reason=reason,
                num_prompt_tokens=self.num_prompt_tokens,
                num_new_tokens=len(self._tokens),
                first_token_seconds=now if self._first_token_seconds is None else self._first_token_seconds,
                total_seconds=now,
                num_video_tokens=self.num_video_tokens,
                num_cached_tokens=self.num_cached_tokens,
            )
            self._tell()

    def fail(self, error: BaseException) -> None:
        """End the answer with an error, which every reader gets."""
        self.cancellation.has_ended = True
        with self._changed:
            self._error = error
            self._tell()

    # ------------------------------------------------------------------------------ for readers

    @property
    def has_ended(self) -> bool:
        """Whether there is an answer, or an error."""
        return self._answer is not None or self._error is not None

    def wait(self, num_known: int) -> None:
        """Wait for more tokens than these, or for the end.

        Raises:
            InputError: the answer was begun before this process was forked.
        """
        self._check_process()
        with self._changed:
            self._changed.wait_for(lambda: self.has_ended or len(self._tokens) > num_known)

    async def wait_async(self, num_known: int) -> None:
        """`wait` without blocking the event loop."""
        self._check_process()
        waiter = (asyncio.get_running_loop(), asyncio.Event())
        with self._changed:
            self._tasks.append(waiter)
        try:
            while not (self.has_ended or len(self._tokens) > num_known):
                await waiter[1].wait()
                waiter[1].clear()
        finally:
            with self._changed:
                self._tasks.remove(waiter)

    def text(self) -> tuple[str, int, bool]:
        """The text so far, its number of tokens, and whether it is whole.

        Raises:
            Exception: the answer failed.
        """
        with self._changed:
            tokens, is_whole = list(self._tokens), self._answer is not None
        if self._error is not None:
            raise self._error
        return self.decode(tokens), len(tokens), is_whole

    def answer(self) -> Answer:
        """The answer; it has ended.

        Raises:
            Exception: the answer failed.
        """
        if self._error is not None:
            raise self._error
        assert self._answer is not None, "wait for the end first"
        return self._answer

    def _check_process(self) -> None:
        if not (self.has_ended or self.cancellation.is_of_this_process):
            raise InputError("this answer was begun before the process was forked; ask again in this process")

    def _tell(self) -> None:
        self._changed.notify_all()
        for loop, event in self._tasks:
            with contextlib.suppress(RuntimeError):  # the loop was closed
                loop.call_soon_threadsafe(event.set)


class AnswerStream:
    """The text of an answer as it is written, in a loop or an asynchronous one.

        with model.stream(memory, "What is on the desk?") as stream:
            for piece in stream:
                print(piece, end="", flush=True)
        print(stream.answer.evidence)

    Every loop begins with the first piece, so several may read one stream. A stream is cancelled when its `with` block
    ends, or when nobody holds it any more.

    Args:
        state: of the answer.
        wake: tells the engine's thread that something was cancelled.
        keeps: stays alive as long as this stream.
    """

    def __init__(self, state: AnswerState, wake: Callable[[], None], keeps: object = None) -> None:
        self._state, self._wake, self._keeps = state, wake, keeps
        # Not the state: it may hold an error, whose traceback may hold this stream.
        weakref.finalize(self, state.cancellation.cancel, wake).atexit = False

    def __iter__(self) -> Iterator[str]:
        pieces, num_known, is_whole = TextPieces(self._state.stop), 0, False
        while not is_whole:
            self._state.wait(num_known)
            text, num_known, is_whole = self._state.text()
            if piece := pieces.next(text, is_whole):
                yield piece

    async def __aiter__(self) -> AsyncGenerator[str, None]:
        pieces, num_known, is_whole = TextPieces(self._state.stop), 0, False
        while not is_whole:
            await self._state.wait_async(num_known)
            text, num_known, is_whole = self._state.text()
            if piece := pieces.next(text, is_whole):
                yield piece

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.cancel()

    def cancel(self) -> None:
        """End the answer within one token. `answer` then is what was written, with `finish_reason` "cancelled"."""
        self._state.cancellation.cancel(self._wake)

    @property
    def has_ended(self) -> bool:
        """Whether `answer` is there without waiting."""
        return self._state.has_ended

    @property
    def answer(self) -> Answer:
        """The whole answer; waits for it.

        Raises:
            HourLlavaError: as `HourLlava.ask`.
        """
        while not self._state.has_ended:
            self._state.wait(self._state.num_tokens)
        return self._state.answer()

    async def result(self) -> Answer:
        """The whole answer; an asyncio task waits for it without blocking the event loop.

        Raises:
            HourLlavaError: as `HourLlava.ask`.
        """
        while not self._state.has_ended:
            await self._state.wait_async(self._state.num_tokens)
        return self._state.answer()
