"""The videos that an engine watches: each once, some at a time, the others in a queue.

All of it runs in the event loop, except `Start`, which runs in a thread.
"""

import asyncio
import collections
import contextlib
import dataclasses
import functools
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable

from hourllava.errors import Cancelled, EngineBusy
from hourllava.inference.memories.memory import Memory
from hourllava.inference.watching.job import WatchJob
from hourllava.inference.watching.progress import Progress
from hourllava.serving.failures import MAX_RETRY_SECONDS, failure_of
from hourllava.serving.protocol import Video, WatchView

VIEW_SECONDS = 0.1
"""A follower gets a view at most this often; the final one comes at once."""

MAX_REMEMBERED = 1024
"""Watchings that failed, and whose reason can still be asked for."""

_USUAL_SECONDS = 30.0  # of a watching, as long as none has been measured

Start = Callable[[Video], Awaitable[WatchJob]]
"""Begins to watch a video, which goes on until it is cancelled."""


class Watch:
    """One video on its way to a memory.

    Args:
        video: what is watched.
        keeps_running: whether it goes on without followers.

    Attributes:
        view: its state now.
        num_followers: iterators that wait for it.
        memory: when it is ready.
        ended: set when the view is final.
    """

    def __init__(self, video: Video, keeps_running: bool) -> None:
        self.video, self.keeps_running = video, keeps_running
        self.view = WatchView(video.key, "queued")
        self.num_followers = 0
        self.memory: Memory | None = None
        self.ended = asyncio.Event()
        self.task: asyncio.Task[None] | None = None
        self._changed = asyncio.Event()

    def show(self, view: WatchView) -> None:
        """Change the view, unless it is final."""
        if self.view.is_final:
            return
        self.view = view
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()
        if view.is_final:
            self.ended.set()

    def report(self, progress: Progress) -> None:
        """Show how far it is."""
        self.show(
            dataclasses.replace(
                self.view,
                state="watching",
                frames_done=progress.frames_done,
                frames_total=progress.frames_total,
                frames_per_second=progress.frames_per_second,
                seconds_left=progress.seconds_left,
            )
        )

    async def views(self) -> AsyncGenerator[WatchView, None]:
        """The view now, and at each change, to a final one."""
        while True:
            changed, view, shown_seconds = self._changed, self.view, time.monotonic()
            yield view
            if view.is_final:
                return
            await changed.wait()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(VIEW_SECONDS - (time.monotonic() - shown_seconds)):
                    await self.ended.wait()


class Watches:
    """All watchings of an engine.

    Args:
        start: begins one.
        max_running: at once.
        max_waiting: in the queue.
    """

    def __init__(self, start: Start, *, max_running: int, max_waiting: int) -> None:
        self._start, self._max_running, self._max_waiting = start, max_running, max_waiting
        self._active: dict[str, Watch] = {}
        self._queue: collections.deque[Watch] = collections.deque()
        self._running: set[Watch] = set()
        self._failed: collections.OrderedDict[str, WatchView] = collections.OrderedDict()
        self._seconds: collections.deque[float] = collections.deque(maxlen=16)  # that the last ones took

    @property
    def num_waiting(self) -> int:
        """In the queue."""
        return len(self._queue)

    @property
    def num_running(self) -> int:
        """That have left the queue, also those that are being cancelled."""
        return len(self._running)

    def find(self, key: str) -> Watch | None:
        """The watching of a key that has not ended."""
        return self._active.get(key)

    def failed(self, key: str) -> WatchView | None:
        """How the last watching of a key failed."""
        return self._failed.get(key)

    def begin(self, video: Video, *, keeps_running: bool) -> Watch:
        """Watch a video, or join its watching.

        Raises:
            EngineBusy: the queue is full.
        """
        watch = self._active.get(video.key)
        if watch is not None:
            watch.keeps_running |= keeps_running
            return watch
        if len(self._queue) >= self._max_waiting and len(self._running) >= self._max_running:
            raise EngineBusy(f"{len(self._queue)} videos wait to be watched already; try again later", self._retry())
        self._failed.pop(video.key, None)
        watch = self._active[video.key] = Watch(video, keeps_running)
        self._queue.append(watch)
        self._next()
        return watch

    @contextlib.asynccontextmanager
    async def following(self, watch: Watch) -> AsyncIterator[Watch]:
        """Count a follower; the last one that leaves ends a watching that does not keep running."""
        watch.num_followers += 1
        try:
            yield watch
        finally:
            watch.num_followers -= 1
            if not (watch.num_followers or watch.keeps_running):
                self.cancel(watch)

    def cancel(self, watch: Watch) -> None:
        """End a watching for everybody. Its processes end within one batch of frames."""
        if watch.view.is_final:
            return
        self._end(watch, dataclasses.replace(watch.view, state="cancelled", seconds_left=None))
        if watch in self._queue:
            self._queue.remove(watch)
        elif watch.task is not None:
            watch.task.cancel()

    async def close(self) -> None:
        """End all, and wait for that."""
        tasks = [watch.task for watch in self._running if watch.task is not None]
        for watch in list(self._active.values()):
            self.cancel(watch)
        await asyncio.gather(*tasks, return_exceptions=True)

    def _next(self) -> None:
        """Start what waits, if there is room."""
        while self._queue and len(self._running) < self._max_running:
            watch = self._queue.popleft()
            self._running.add(watch)
            watch.task = asyncio.create_task(self._run(watch), name="hourllava-watch")
            watch.task.add_done_callback(functools.partial(self._has_run, watch))

    def _has_run(self, watch: Watch, task: "asyncio.Task[None]") -> None:
        self._running.discard(watch)
        self._next()

    async def _run(self, watch: Watch) -> None:
        """Watch to the end. When the task is cancelled, it waits until nothing is left of the job."""
        started_seconds = time.monotonic()
        watch.show(dataclasses.replace(watch.view, state="watching"))
        starting = asyncio.ensure_future(self._start(watch.video))
        job = None
        try:
            job = await asyncio.shield(starting)
            await _progress(job, watch)
            self._end(watch, ready_view(watch.video, job.result(), job.progress), job.result())
            if not job.from_cache:
                self._seconds.append(time.monotonic() - started_seconds)
        except asyncio.CancelledError:
            with contextlib.suppress(Exception):  # nobody wants it any more
                job = await starting
                job.cancel(everyone=True)
                await _progress(job, watch)
            raise
        except Cancelled:  # the model was closed
            self._end(watch, dataclasses.replace(watch.view, state="cancelled", seconds_left=None))
        except Exception as error:  # noqa: BLE001 - followers get it
            failure = failure_of(error, watch.video)
            self._end(watch, dataclasses.replace(watch.view, state="failed", seconds_left=None, failure=failure))

    def _end(self, watch: Watch, view: WatchView, memory: Memory | None = None) -> None:
        if watch.view.is_final:
            return
        watch.memory = memory
        if self._active.get(view.key) is watch:
            del self._active[view.key]
        if view.state == "failed":
            self._failed[view.key] = view
            if len(self._failed) > MAX_REMEMBERED:
                self._failed.popitem(last=False)
        watch.show(view)

    def _retry(self) -> float:
        """Seconds until there may be room in the queue: when the first running one ends."""
        usual = sum(self._seconds) / len(self._seconds) if self._seconds else _USUAL_SECONDS
        left = [usual if each.view.seconds_left is None else each.view.seconds_left for each in self._running]
        return min(max(1.0, min(left, default=usual)), MAX_RETRY_SECONDS)


def ready_view(video: Video, memory: Memory, progress: Progress | None = None) -> WatchView:
    """The view of a video that is watched."""
    now = memory.snapshot()
    return WatchView(
        video.key,
        "ready",
        frames_done=len(now),
        frames_total=len(now),
        frames_per_second=0.0 if progress is None else progress.frames_per_second,
        seconds_left=0.0,
        duration_seconds=now.duration_seconds,
        gaps=tuple(
            (gap.start_seconds + now.player_offset_seconds, gap.end_seconds + now.player_offset_seconds)
            for gap in now.gaps
        ),
    )


async def _progress(job: WatchJob, watch: Watch) -> None:
    """Show the progress of a job until it is over; `job.result()` then returns or raises at once."""
    loop, over = asyncio.get_running_loop(), asyncio.Event()

    def tell(progress: Progress) -> None:  # in the job's thread
        is_over = job.done
        with contextlib.suppress(RuntimeError):  # the loop was closed
            loop.call_soon_threadsafe(over.set if is_over else functools.partial(watch.report, progress))

    job.add_listener(tell)
    try:
        await over.wait()
    finally:
        job.remove_listener(tell)
    watch.report(job.progress)
