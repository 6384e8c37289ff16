"""An engine whose model runs in several processes, each with all of it: replicas of a Ray cluster.

    engine = start_replicas("nano", store.memories_folder, settings, num_replicas=2)  # hourllava.serving.ray_start

Each video has a home, and all calls about it go there; `homes` says how. A replica that is lost in mid-watch costs its
frames: the video is watched again at another one, `attempt` 2, and after a second loss it fails as `replica_lost`. A
question that has no text yet is asked again; one that has fails, because pieces are never taken back. A lost replica is
asked again and again until it answers. Nothing here knows Ray: `ray_start` has what does.
"""

import asyncio
import dataclasses
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from typing import Any

from hourllava.errors import Cancelled, EngineBusy, HourLlavaError
from hourllava.inference.questions.answers import Choice
from hourllava.inference.questions.evidence import Span
from hourllava.serving.homes import Homes, Known, Replica, ReplicaLost, Slot
from hourllava.serving.protocol import (
    AskEvent,
    EngineFailure,
    EngineStatus,
    Question,
    TextPiece,
    Video,
    WatchFailure,
    WatchView,
)
from hourllava.serving.replica import Raised

MAX_ATTEMPTS = 2
"""A call is tried at so many replicas, if those before were lost."""

TAKE_SECONDS = 15.0
"""A replica that has not taken a call by then is lost: its process hangs, or its machine is not there."""

PROBE_SECONDS = 1.0
"""How often a lost replica is asked."""

MAX_BUSY_SECONDS = 5.0
"""A watch that begins again, where there is no place for it, asks again after at most so long."""

_CLOSE_SECONDS = 10.0
_LOST = "the process that worked on this has ended; try again"

_log = logging.getLogger(__name__)


class RayEngine:
    """The `Engine` of several replicas. Its methods belong to one event loop.

    Args:
        replicas: at least one.
        close_replicas: called at the end.
        take_seconds, probe_seconds: see `TAKE_SECONDS` and `PROBE_SECONDS`.
    """

    def __init__(
        self,
        replicas: Sequence[Replica],
        close_replicas: Callable[[], Awaitable[None]],
        *,
        take_seconds: float = TAKE_SECONDS,
        probe_seconds: float = PROBE_SECONDS,
    ) -> None:
        self._homes = Homes(replicas)
        self._close_replicas = close_replicas
        self._take_seconds, self._probe_seconds = take_seconds, probe_seconds
        self._probes: set[asyncio.Task[None]] = set()
        self._last_status: EngineStatus | None = None
        self._is_draining = self._is_closed = False

    # ---------------------------------------------------------------------------------------------------- watching

    async def watch(self, video: Video, *, keeps_running: bool = False) -> WatchView:
        """See `Engine.watch`."""
        self._check_open()
        known = self._homes.known(video)
        known.asked_for()
        view: WatchView = await self._at_home(known, "watch", video, keeps_running=keeps_running)
        if not view.is_final:
            known.is_begun = True
            known.keeps_running |= keeps_running
            known.must_begin = False
        return _seen(known, view)

    async def follow(self, video: Video) -> AsyncGenerator[WatchView, None]:
        """See `Engine.follow`."""
        known = self._homes.known(video)
        with known.followed():
            while True:
                if self._is_closed:
                    yield WatchView(video.key, "cancelled")
                    return
                if known.must_begin and (end := await self._begin_again(video, known)) is not None:
                    known.ends()
                    yield end
                    return
                try:
                    async with aclosing(self._events(self._homes.home(known), "follow", video)) as views:
                        async for view in views:
                            yield _seen(known, view)
                            if view.is_final:
                                return
                except ReplicaLost:
                    if known.must_begin:
                        yield WatchView(video.key, "queued", attempt=min(known.attempt, MAX_ATTEMPTS))
                except EngineFailure as error:
                    yield _failed(video, known, error)
                    return

    async def _begin_again(self, video: Video, known: Known) -> WatchView | None:
        """Watch a video whose replica was lost; the final view if that cannot be."""
        while known.must_begin:
            try:
                if known.attempt > MAX_ATTEMPTS:
                    raise EngineFailure(f"two processes ended while they watched {video.name}", "replica_lost")
                await self.watch(video, keeps_running=known.keeps_running)
            except EngineBusy as error:
                await asyncio.sleep(min(error.retry_after_seconds, MAX_BUSY_SECONDS))
            except EngineFailure as error:
                return _failed(video, known, error)
        return None

    async def view(self, video: Video) -> WatchView | None:
        """See `Engine.view`."""
        known = self._homes.known(video)
        view: WatchView | None = await self._at_home(known, "view", video)
        if view is not None:
            return _seen(known, view)
        if known.must_begin and known.num_followers:  # they will begin it
            return WatchView(video.key, "queued", attempt=min(known.attempt, MAX_ATTEMPTS))
        return None

    async def cancel_watch(self, video: Video) -> None:
        """See `Engine.cancel_watch`."""
        known = self._homes.known(video)
        known.ends()
        if known.slot is not None:
            await self._at_home(known, "cancel_watch", video)

    # ------------------------------------------------------------------------------------------------------ asking

    async def ask(self, video: Video | None, question: Question) -> AsyncGenerator[AskEvent, None]:
        """See `Engine.ask`."""
        self._check_open()
        known = Known() if video is None else self._homes.known(video)
        known.asked_for()
        with known.followed():
            for _ in range(MAX_ATTEMPTS):
                has_text = False
                try:
                    slot = self._homes.idlest() if video is None else self._homes.home(known)
                    async with aclosing(self._events(slot, "ask", video, question)) as events:
                        async for event in events:
                            has_text |= isinstance(event, TextPiece)
                            yield _seen(known, event) if isinstance(event, WatchView) else event
                    return
                except ReplicaLost:
                    if has_text:
                        break
            raise self._lost()

    async def choose(self, video: Video | None, question: Question, options: Sequence[str]) -> Choice:
        """See `Engine.choose`."""
        self._check_open()
        known = None if video is None else self._homes.known(video)
        choice: Choice = await self._at_home(known, "choose", video, question, options)
        return choice

    async def find(self, video: Video, text: str) -> list[Span]:
        """See `Engine.find`."""
        self._check_open()
        spans: list[Span] = await self._at_home(self._homes.known(video), "find", video, text)
        return spans

    # -------------------------------------------------------------------------------------------------- everything

    async def export_memory(self, video: Video, path: str) -> None:
        """See `Engine.export_memory`. The path must be of a folder that the replica sees, too."""
        await self._at_home(self._homes.known(video), "export_memory", video, path)

    async def forget(self, video: Video) -> None:
        """See `Engine.forget`. All replicas forget: a home may have changed."""
        self._homes.known(video).ends()
        await self._everywhere("forget", video)

    async def status(self) -> EngineStatus:
        """See `Engine.status`; `num_replicas` are those that answer."""
        found: list[EngineStatus] = await self._everywhere("status")
        if not found:
            last = self._last_status
            if last is None:
                raise self._lost()
            return EngineStatus(last.model, last.context_tokens, num_replicas=0, is_draining=self._is_draining)
        total = self._last_status = dataclasses.replace(
            found[0],
            num_replicas=len(found),
            **{name: sum(getattr(each, name) for each in found) for name in _SUMMED},
            ready_memories=max(each.ready_memories for each in found),  # they share the folder
            memory_cache_bytes=max(each.memory_cache_bytes for each in found),
            is_draining=self._is_draining,
        )
        return total

    async def close(self, drain_seconds: float = 0.0) -> None:
        """See `Engine.close`. A second call does nothing."""
        if self._is_draining:
            return
        self._is_draining = True
        try:
            async with asyncio.timeout(drain_seconds + _CLOSE_SECONDS):
                await self._everywhere("close", drain_seconds)
        except TimeoutError:
            _log.warning("a replica has not ended its work in time")
        self._is_closed = True
        for probe in self._probes:
            probe.cancel()
        await self._close_replicas()

    # ------------------------------------------------------------------------------------------------------- calls

    async def _events(self, slot: Slot, method: str, *arguments: Any, **options: Any) -> AsyncGenerator[Any, None]:
        """The items of a call.

        Raises:
            ReplicaLost: the replica ended, or does not answer; it is noted.
            HourLlavaError: of the engine.
        """
        slot.num_calls += 1
        try:
            async with aclosing(slot.replica.stream(method, *arguments, **options)) as items:
                try:
                    async with asyncio.timeout(self._take_seconds):
                        process = (await anext(items)).process
                except (TimeoutError, StopAsyncIteration) as error:
                    raise ReplicaLost(f"it did not take {method}") from error
                if slot.process not in (None, process):
                    raise ReplicaLost("it was started again")
                slot.process = process
                async for item in items:
                    if isinstance(item, Raised):
                        raise item.error
                    yield item
        except ReplicaLost as error:
            self._lose(slot, error)
            raise
        finally:
            slot.num_calls -= 1

    async def _one(self, slot: Slot, method: str, *arguments: Any, **options: Any) -> Any:
        """The result of a call that is no stream."""
        async with aclosing(self._events(slot, method, *arguments, **options)) as events:
            return await anext(events)

    async def _at_home(self, known: Known | None, method: str, *arguments: Any, **options: Any) -> Any:
        """The result of a call at the home of a video, or without one at the replica with the least to do."""
        for _ in range(MAX_ATTEMPTS):
            slot = self._homes.idlest() if known is None else self._homes.home(known)
            try:
                return await self._one(slot, method, *arguments, **options)
            except ReplicaLost:
                continue
        raise self._lost()

    async def _everywhere(self, method: str, *arguments: Any) -> list[Any]:
        """The results of all replicas that answer.

        Raises:
            HourLlavaError: of an engine.
        """
        calls = (self._one(slot, method, *arguments) for slot in self._homes.live)
        results = await asyncio.gather(*calls, return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException) and not isinstance(result, ReplicaLost):
                raise result
        return [result for result in results if not isinstance(result, BaseException)]

    def _lose(self, slot: Slot, error: ReplicaLost) -> None:
        if slot.is_lost or self._is_closed:
            return
        _log.warning("replica %d is lost (%s); its videos go to others", slot.number, error)
        self._homes.lose(slot)
        probe = asyncio.create_task(self._probe(slot))
        self._probes.add(probe)
        probe.add_done_callback(self._probes.discard)

    async def _probe(self, slot: Slot) -> None:
        """Ask a lost replica until it answers."""
        while slot.is_lost:
            await asyncio.sleep(self._probe_seconds)
            try:
                await self._one(slot, "status")
            except (ReplicaLost, HourLlavaError):
                continue
            _log.warning("replica %d answers again", slot.number)
            self._homes.find(slot)

    def _lost(self) -> HourLlavaError:
        return Cancelled("the engine was closed") if self._is_closed else EngineFailure(_LOST, "replica_lost")

    def _check_open(self) -> None:
        if self._is_draining:
            raise EngineFailure("the server is shutting down", "shutting_down")


_SUMMED = (
    *("questions_waiting", "questions_running", "watches_waiting", "watches_running"),
    *("memory_queries", "memory_hits"),
)


def _seen(known: Known, view: WatchView) -> WatchView:
    """A view of a replica, with the attempt that it belongs to."""
    if view.is_final:
        known.ends()
    else:
        known.is_begun = True
    return dataclasses.replace(view, attempt=min(known.attempt, MAX_ATTEMPTS))


def _failed(video: Video, known: Known, error: EngineFailure) -> WatchView:
    attempt = min(known.attempt, MAX_ATTEMPTS)
    return WatchView(video.key, "failed", attempt=attempt, failure=WatchFailure(error.code, str(error)))
