"""An engine in this process: one `HourLlava`, with queues that have an end, for one event loop.

    engine = LocalEngine(HourLlava.from_pretrained("nano"), Path("memories"))
    async for event in engine.ask(Video("lecture.mp4", digest), Question("What is on the desk?")):
        print(event)

Whatever takes long happens in threads: the model's own, those of watch jobs, and a few for the disk. What is known of
videos and questions changes in the event loop only.
"""

import asyncio
import contextlib
import dataclasses
import functools
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from pathlib import Path
from typing import ParamSpec, TypeVar

from hourllava.errors import Cancelled, EngineBusy
from hourllava.inference.engine import HourLlava
from hourllava.inference.memories.cache import DEFAULT_MAX_BYTES, MemoryCache
from hourllava.inference.memories.memory import Memory
from hourllava.inference.questions.answers import Choice
from hourllava.inference.questions.evidence import Span
from hourllava.inference.questions.options import AskOptions, AskSettings
from hourllava.inference.questions.prompt import checked_question, room_after
from hourllava.inference.queues import Pace
from hourllava.inference.watching.job import WatchJob
from hourllava.serving.failures import MAX_RETRY_SECONDS, shown_error
from hourllava.serving.memories import MemoryShelf
from hourllava.serving.protocol import AskEvent, EngineFailure, EngineStatus, Question, TextPiece, Video, WatchView
from hourllava.serving.watches import Watch, Watches, ready_view
from hourllava.video.limits import VideoLimits

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")

SERVED_LIMITS = VideoLimits(
    max_seconds=6 * 3600,
    max_frames=40_000,
    max_pixels=8192 * 4320,
    max_streams=64,
    memory_bytes=4 * 2**30,
    cpu_seconds=2 * 3600,
)
"""Limits for videos of strangers, unless the server has others."""

_NUM_THREADS = 8  # that wait for the disk
_NUM_DEVICE_THREADS = 4  # that wait for choices and evidence; the device does one after the other
_CLOSED = "the server is shutting down"


@dataclasses.dataclass(frozen=True)
class EngineSettings:
    """Limits of an engine.

    Attributes:
        name: of the model, for clients.
        max_watches: videos that are watched at once.
        max_waiting_watches: videos that wait for that.
        max_waiting_questions: questions without a first token, those that wait for their video included.
        memory_bytes: of memories at hand in this process. (Keys and values on the device have a limit of their own.)
        cache_bytes: of memories on the disk.
        limits: of videos.
    """

    name: str = "hourllava-nano"
    max_watches: int = 2
    max_waiting_watches: int = 16
    max_waiting_questions: int = 256
    memory_bytes: int = 4 * 2**30
    cache_bytes: int = DEFAULT_MAX_BYTES
    limits: VideoLimits = SERVED_LIMITS


class LocalEngine:
    """The `Engine` of one model in this process. Its methods belong to one event loop.

    Args:
        model: is closed with the engine.
        memories_folder: keeps memories; several engines may share it.
        settings: limits.
    """

    def __init__(self, model: HourLlava, memories_folder: Path, settings: EngineSettings | None = None) -> None:
        self.settings = settings or EngineSettings()
        self._model = model
        cache = MemoryCache(memories_folder, self.settings.cache_bytes)
        self._shelf = MemoryShelf(cache, model.encoder, self.settings.memory_bytes)
        self._threads = ThreadPoolExecutor(_NUM_THREADS, "hourllava-serving")
        self._device_threads = ThreadPoolExecutor(_NUM_DEVICE_THREADS, "hourllava-asking")
        self._watches = Watches(
            self._start_watch, max_running=self.settings.max_watches, max_waiting=self.settings.max_waiting_watches
        )
        self._num_waiting = self._num_running = 0  # questions
        self._num_queries = self._num_hits = 0  # questions about videos so far, and those whose memory was at hand
        self._pace = Pace()
        self._is_draining = self._is_closed = False
        self._is_idle = asyncio.Event()
        self._is_idle.set()

    # ---------------------------------------------------------------------------------------------------- watching

    async def watch(self, video: Video, *, keeps_running: bool = False) -> WatchView:
        """See `Engine.watch`."""
        self._check_open()
        with _shown_errors(video):
            ready = await self._ready(video)
            return ready or self._watches.begin(video, keeps_running=keeps_running).view

    async def follow(self, video: Video) -> AsyncGenerator[WatchView, None]:
        """See `Engine.follow`."""
        watch = self._watches.find(video.key)
        if watch is None:
            with _shown_errors(video):
                view = await self.view(video)
            yield view or WatchView(video.key, "cancelled")
            return
        async with self._watches.following(watch), aclosing(watch.views()) as views:
            async for view in views:
                yield view

    async def view(self, video: Video) -> WatchView | None:
        """See `Engine.view`."""
        with _shown_errors(video):
            watch = self._watches.find(video.key)
            if watch is not None:
                return watch.view
            return await self._ready(video) or self._watches.failed(video.key)

    async def cancel_watch(self, video: Video) -> None:
        """See `Engine.cancel_watch`."""
        watch = self._watches.find(video.key)
        if watch is not None:
            self._watches.cancel(watch)

    async def _ready(self, video: Video) -> WatchView | None:
        memory = await self._memory(video)
        return None if memory is None else ready_view(video, memory)

    async def _memory(self, video: Video) -> Memory | None:
        """The memory of a video that is ready."""
        return self._shelf.at_hand(video) or await self._in_thread(self._shelf.get, video)

    async def _start_watch(self, video: Video) -> WatchJob:
        return await self._in_thread(
            self._model.start_watch,
            video.path,
            keeps_running=True,  # `Watches` counts those who wait
            fps=video.fps,
            start_seconds=video.start_seconds,
            end_seconds=video.end_seconds,
            cache=self._shelf.cache,
            digest=video.digest,
            limits=self.settings.limits,
        )

    async def _watched(self, video: Video) -> AsyncGenerator[WatchView | Memory, None]:
        """Views while a video is watched, then its memory.

        Raises:
            EngineFailure, Cancelled, EngineBusy: see `Engine.ask`.
        """
        self._num_queries += 1
        self._num_hits += self._shelf.at_hand(video) is not None
        memory = await self._memory(video)
        if memory is not None:
            yield memory
            return
        watch = self._watches.begin(video, keeps_running=False)
        async with self._watches.following(watch), aclosing(watch.views()) as views:
            async for view in views:
                yield view
        memory = _memory_of(watch)
        self._shelf.put(video, memory)  # the disk's copy would be made ready for questions once more
        yield memory

    # ------------------------------------------------------------------------------------------------------ asking

    async def ask(self, video: Video | None, question: Question) -> AsyncGenerator[AskEvent, None]:
        """See `Engine.ask`."""
        with _shown_errors(video), self._waiting() as turn:
            options = _options(question)
            memory = None
            if video is not None:
                async with aclosing(self._watched(video)) as watched:
                    async for event in watched:
                        if isinstance(event, Memory):
                            memory = event
                        else:
                            yield event
            begin = functools.partial(self._model.stream, history=question.history, caller=question.caller, **options)
            with await self._in_thread(begin, memory, question.text) as stream:
                async with aclosing(aiter(stream)) as pieces:
                    async for piece in pieces:
                        turn.begins()
                        yield TextPiece(piece)
                answer = await stream.result()
            turn.begins()
            self._pace.note_end()
            yield answer

    async def choose(self, video: Video | None, question: Question, options: Sequence[str]) -> Choice:
        """See `Engine.choose`."""
        with _shown_errors(video), self._waiting():
            checked_question(question.text)
            memory = None if video is None else await self._only_memory(video)
            return await self._at_device(
                self._model.choose,
                memory,
                question.text,
                options,
                subtitles=question.subtitles,
                subtitle_tokens=question.subtitle_tokens,
            )

    async def find(self, video: Video, text: str) -> list[Span]:
        """See `Engine.find`."""
        with _shown_errors(video), self._waiting():
            checked_question(text)
            return await self._at_device(self._model.find, await self._only_memory(video), text)

    async def _only_memory(self, video: Video) -> Memory:
        async with aclosing(self._watched(video)) as watched:
            async for event in watched:
                if isinstance(event, Memory):
                    return event
        raise Cancelled("watching the video was cancelled")

    @contextlib.contextmanager
    def _waiting(self) -> Iterator["_Turn"]:
        """Count a question, which waits at first.

        Raises:
            EngineBusy: too many wait.
            EngineFailure: the engine is closing.
        """
        self._check_open()
        if self._num_waiting >= self.settings.max_waiting_questions:
            raise EngineBusy(f"{self._num_waiting} questions wait already; try again later", self._retry())
        turn = _Turn(self)
        try:
            yield turn
        finally:
            turn.ends()

    def _retry(self) -> float:
        """Seconds until half of those that wait have had their turn, as the last answers went."""
        return min(max(1.0, self._pace.seconds_per_answer * self._num_waiting / 2), MAX_RETRY_SECONDS)

    # -------------------------------------------------------------------------------------------------- everything

    async def export_memory(self, video: Video, path: str) -> None:
        """See `Engine.export_memory`."""
        with _shown_errors(video):
            memory = await self._memory(video)
            if memory is None:
                raise EngineFailure(f"{video.name} is not watched yet", "memory_failed")
            await self._in_thread(memory.save, path)

    async def forget(self, video: Video) -> None:
        """See `Engine.forget`."""
        await self.cancel_watch(video)
        with _shown_errors(video):
            await self._in_thread(self._shelf.remove, video)

    async def status(self) -> EngineStatus:
        """See `Engine.status`."""
        num_memories, num_bytes = await self._in_thread(self._shelf.cache.usage)
        return EngineStatus(
            model=self.settings.name,
            context_tokens=room_after(0, self._model.model.config),
            questions_waiting=self._num_waiting,
            questions_running=self._num_running,
            watches_waiting=self._watches.num_waiting,
            watches_running=self._watches.num_running,
            ready_memories=num_memories,
            memory_cache_bytes=num_bytes,
            memory_queries=self._num_queries,
            memory_hits=self._num_hits,
            is_draining=self._is_draining,
        )

    async def close(self, drain_seconds: float = 0.0) -> None:
        """See `Engine.close`. A second call does nothing."""
        self._is_draining = True
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(drain_seconds, 0.0)):
                await self._is_idle.wait()
                while self._watches.num_running or self._watches.num_waiting:
                    await asyncio.sleep(0.05)
        if self._is_closed:
            return
        self._is_closed = True
        await self._watches.close()
        await asyncio.to_thread(self._close_model)
        self._shelf.clear()

    def _close_model(self) -> None:
        self._model.close()  # whatever waits for it raises `Cancelled`
        for threads in (self._threads, self._device_threads):
            threads.shutdown()
        self._model.close()  # a call that came in between has started it again

    def _check_open(self) -> None:
        if self._is_draining:
            raise EngineFailure(_CLOSED, "shutting_down")

    async def _in_thread(
        self, function: Callable[Parameters, Result], *arguments: Parameters.args, **options: Parameters.kwargs
    ) -> Result:
        return await self._run(self._threads, functools.partial(function, *arguments, **options))

    async def _at_device(
        self, function: Callable[Parameters, Result], *arguments: Parameters.args, **options: Parameters.kwargs
    ) -> Result:
        return await self._run(self._device_threads, functools.partial(function, *arguments, **options))

    async def _run(self, threads: ThreadPoolExecutor, work: Callable[[], Result]) -> Result:
        def run() -> Result:
            if self._is_closed:
                raise Cancelled(_CLOSED)
            return work()

        if self._is_closed:
            raise EngineFailure(_CLOSED, "shutting_down")
        return await asyncio.get_running_loop().run_in_executor(threads, run)


class _Turn:
    """One question of an engine, which waits and then runs.

    Args:
        engine: counts it.
    """

    def __init__(self, engine: LocalEngine) -> None:
        self._engine, self._runs = engine, False
        engine._num_waiting += 1
        engine._is_idle.clear()

    def begins(self) -> None:
        """It has its first token; further calls do nothing."""
        if not self._runs:
            self._runs = True
            self._engine._num_waiting -= 1
            self._engine._num_running += 1

    def ends(self) -> None:
        """It is over."""
        self.begins()
        self._engine._num_running -= 1
        if not (self._engine._num_waiting or self._engine._num_running):
            self._engine._is_idle.set()


def _options(question: Question) -> AskOptions:
    """The options of `HourLlava.stream`, checked before anything is watched.

    Raises:
        InputError, ConfigError: as `HourLlava.stream`.
    """
    checked_question(question.text)
    options: AskOptions = {
        "subtitles": question.subtitles,
        "subtitle_tokens": question.subtitle_tokens,
        "max_new_tokens": question.max_new_tokens,
        "temperature": question.temperature,
        "top_p": question.top_p,
        "seed": question.seed,
        "stop": question.stop,
    }
    AskSettings(**options)
    return options


def _memory_of(watch: Watch) -> Memory:
    view = watch.view
    if watch.memory is not None:
        return watch.memory
    if view.failure is not None:
        raise EngineFailure(view.failure.message, view.failure.code)
    raise Cancelled(f"watching {watch.video.name} was cancelled")


@contextlib.contextmanager
def _shown_errors(video: Video | None) -> Iterator[None]:
    """Errors become what a caller of an engine may get."""
    try:
        yield
    except Exception as error:
        shown = shown_error(error, video)
        if shown is error:
            raise
        raise shown from error
