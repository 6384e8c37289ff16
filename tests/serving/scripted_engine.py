"""An engine by script: it watches and answers in no time, and fails where it is told to."""

import asyncio
import contextlib
import dataclasses
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path

from hourllava.errors import Cancelled, EngineBusy, HourLlavaError, VideoError
from hourllava.inference.questions.answers import Answer, Choice, FinishReason
from hourllava.inference.questions.evidence import Span
from hourllava.serving.protocol import AskEvent, EngineStatus, Question, TextPiece, Video, WatchFailure, WatchView

EVIDENCE = [Span(420.0, 440.0, 0.4), Span(5.0, 9.5, 0.2)]


@dataclasses.dataclass
class Script:
    """How the engine behaves.

    Attributes:
        pieces: of every answer.
        piece_seconds: before each piece.
        frame_seconds: before each frame that is watched.
        num_frames: of every video.
        fails: error of every question; `after_pieces` of its pieces come first.
        watch_failure: of every video.
        busy_seconds: if given, questions are refused.
        busy_watches: so many calls of `watch` are refused.
        finish_reason, evidence: of every answer.
    """

    pieces: Sequence[str] = ("A red", " car", ".")
    piece_seconds: float = 0.0
    frame_seconds: float = 0.0
    num_frames: int = 30
    fails: BaseException | None = None
    after_pieces: int = 0
    watch_failure: WatchFailure | None = None
    busy_seconds: float | None = None
    busy_watches: int = 0
    finish_reason: FinishReason = "stop"
    evidence: Sequence[Span] = tuple(EVIDENCE)


class ScriptedEngine:
    """Fulfils `Engine`; see `Script`.

    Attributes:
        script: may be changed at any time.
        asked: all questions, with their videos.
        ended: pieces that were handed out, of each question that has ended.
        forgotten: keys of videos that were forgotten.
    """

    def __init__(self, script: Script | None = None) -> None:
        self.script = script or Script()
        self.asked: list[tuple[Video | None, Question]] = []
        self.ended: list[int] = []
        self.forgotten: list[str] = []
        self.is_closed = False
        self._views: dict[str, WatchView] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._changed = asyncio.Condition()

    async def watch(self, video: Video, *, keeps_running: bool = False) -> WatchView:
        if self.script.busy_watches:
            self.script.busy_watches -= 1
            raise EngineBusy("too many videos wait", 0.1)
        view = self._views.get(video.key)
        if view is None or view.state in ("failed", "cancelled"):
            await self._show(WatchView(video.key, "queued", frames_total=self.script.num_frames))
            self._tasks[video.key] = asyncio.create_task(self._watch(video))
        return self._views[video.key]

    async def _watch(self, video: Video) -> None:
        script = self.script
        for frame in range(1, script.num_frames + 1):
            await asyncio.sleep(script.frame_seconds)
            await self._show(
                WatchView(video.key, "watching", frame, script.num_frames, 100.0, (script.num_frames - frame) / 100)
            )
        view = WatchView(
            video.key,
            "ready",
            script.num_frames,
            script.num_frames,
            100.0,
            0.0,
            float(script.num_frames),
            ((3.0, 4.0),),
        )
        if script.watch_failure is not None:
            view = dataclasses.replace(view, state="failed", failure=script.watch_failure)
        await self._show(view)

    async def _show(self, view: WatchView) -> None:
        self._views[view.key] = view
        async with self._changed:
            self._changed.notify_all()

    async def follow(self, video: Video) -> AsyncGenerator[WatchView, None]:
        view = self._views.get(video.key) or WatchView(video.key, "cancelled")
        yield view
        while not view.is_final:
            async with self._changed:
                await self._changed.wait_for(lambda seen=view: self._views.get(video.key) != seen)
            view = self._views.get(video.key) or WatchView(video.key, "cancelled")
            yield view

    async def view(self, video: Video) -> WatchView | None:
        return self._views.get(video.key)

    async def cancel_watch(self, video: Video) -> None:
        view = self._views.get(video.key)
        if view is not None and not view.is_final:
            self._tasks[video.key].cancel()
            await self._show(dataclasses.replace(view, state="cancelled"))

    async def ask(self, video: Video | None, question: Question) -> AsyncGenerator[AskEvent, None]:
        script = self.script
        if script.busy_seconds is not None:
            raise EngineBusy("too many questions wait", script.busy_seconds)
        self.asked.append((video, question))
        given = 0
        try:
            if video is not None:
                async for view in self._watched(video):
                    yield view
            for number, piece in enumerate(script.pieces):
                if script.fails is not None and number == script.after_pieces:
                    raise script.fails
                await asyncio.sleep(script.piece_seconds)
                yield TextPiece(piece)
                given += 1
            text = "".join(script.pieces)
            evidence = [] if video is None else list(script.evidence)
            yield Answer(question.text, text, evidence, script.finish_reason, 100, len(script.pieces), 0.1, 0.2, 80, 60)
        finally:
            self.ended.append(given)

    async def _watched(self, video: Video) -> AsyncGenerator[WatchView, None]:
        view = self._views.get(video.key)
        if view is not None and view.state == "ready":
            return
        await self.watch(video)
        async for view in self.follow(video):
            yield view
        if view is not None and view.failure is not None:
            raise VideoError(view.failure.message)
        if view is None or view.state != "ready":
            raise Cancelled("the watching was cancelled")

    async def choose(self, video: Video | None, question: Question, options: Sequence[str]) -> Choice:
        self.asked.append((video, question))
        shares = [1.0 / len(options)] * len(options)
        return Choice(question.text, options[0], "A", shares, [] if video is None else EVIDENCE)

    async def find(self, video: Video, text: str) -> list[Span]:
        return EVIDENCE

    async def export_memory(self, video: Video, path: str) -> None:
        await asyncio.to_thread(Path(path).write_bytes, b"memory of " + video.key.encode())

    async def forget(self, video: Video) -> None:
        self.forgotten.append(video.key)
        self._views.pop(video.key, None)

    async def status(self) -> EngineStatus:
        running = sum(not view.is_final for view in self._views.values())
        return EngineStatus("hourllava-scripted", 4096, watches_running=running, is_draining=self.is_closed)

    async def close(self, drain_seconds: float = 0.0) -> None:
        self.is_closed = True
        for task in self._tasks.values():
            task.cancel()
        with contextlib.suppress(HourLlavaError):
            await asyncio.gather(*self._tasks.values(), return_exceptions=True)
