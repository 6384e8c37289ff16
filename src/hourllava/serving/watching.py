"""The clients' memories: found or made, watched to an end without a listener, and told of.

A memory's record lies in the store; what it remembers is the engine's. Two records of one video and part share the
work, whoever made them.
"""

import asyncio
import contextlib
import dataclasses
import logging
import time
from collections.abc import AsyncGenerator
from pathlib import Path

from hourllava.errors import EngineBusy, VideoError
from hourllava.serving.checks import WHOLE, Checks, Part
from hourllava.serving.errors import MAX_RETRY_SECONDS, ApiError, api_error, invalid, not_found, queue_full
from hourllava.serving.media import media_file
from hourllava.serving.metrics import Metrics
from hourllava.serving.protocol import Engine, Video, WatchFailure, WatchView
from hourllava.serving.records import MemoryRecord
from hourllava.serving.settings import ServeSettings
from hourllava.serving.store import FileRecord, Store
from hourllava.video import source_digest

_log = logging.getLogger(__name__)


BEGIN_SECONDS = 0.05
"""How often a follower looks whether the engine has taken a video."""


class Watching:
    """Memories of one server; see the module.

    Args:
        engine: watches.
        store: keeps the records.
        settings: limits.
        metrics: counts what was watched.
    """

    def __init__(self, engine: Engine, store: Store, settings: ServeSettings, metrics: Metrics) -> None:
        self._engine, self._store, self._settings, self._metrics = engine, store, settings, metrics
        self._checks = Checks(settings)
        self._attending: dict[str, asyncio.Task[None]] = {}  # by key of the video
        self._begun: set[str] = set()  # those of them that the engine has taken
        self._failures: dict[str, WatchFailure] = {}  # of videos that the engine never took, or that were too long

    # Records.

    async def get(self, memory_id: str, owner: str, param: str | None = None) -> MemoryRecord:
        """An owner's memory.

        Raises:
            ApiError: there is none of this id.
        """
        record = await asyncio.to_thread(self._store.memories.get, memory_id)
        if record is None or record.owner != owner:
            raise not_found(f"memory {memory_id[:64]!r}", param)
        return record

    async def list(self, owner: str) -> list[MemoryRecord]:
        """An owner's memories, the oldest first."""
        return await asyncio.to_thread(self._store.memories.list, owner)

    async def of_file(self, file: FileRecord, part: Part = WHOLE) -> MemoryRecord:
        """The memory of an uploaded video; its record is made if there is none.

        Raises:
            ApiError: the file is no video, or too long.
        """
        if file.kind != "video":
            raise invalid(f"{file.filename} is no video", code="video_unreadable")
        found = await self._equal(file.owner, part, file_id=file.id)
        if found is None:
            part = await self._checks.part(self._store.path(file.id), file.filename, part)
            found = await self._add(file.filename, file.digest, file.owner, part, file_id=file.id)
        return found

    async def of_media(self, relative: str, owner: str, part: Part = WHOLE) -> MemoryRecord:
        """The memory of a video of the media folder; its record is made if there is none.

        Raises:
            ApiError: there is no such file, or it is too long.
        """
        try:
            path = await asyncio.to_thread(media_file, self._settings.media_root, relative)
        except VideoError as error:
            raise not_found(f"file {relative[:200]!r} in the media folder: {error}", "media_path") from error
        part = await self._checks.part(path, relative, part)
        digest = await asyncio.to_thread(source_digest, path)
        if digest is None:
            raise invalid(f"{relative} cannot be told apart from other videos; give a video file")
        assert self._settings.media_root is not None
        root = await asyncio.to_thread(self._settings.media_root.resolve)
        relative = path.relative_to(root).as_posix()  # one name for one file
        found = await self._equal(owner, part, media_path=relative, digest=digest)
        return found or await self._add(path.name, digest, owner, part, media_path=relative)

    async def _equal(self, owner: str, part: Part, **fields: str) -> MemoryRecord | None:
        wanted = {**dataclasses.asdict(part), **fields}
        for record in await self.list(owner):
            if all(getattr(record, name) == value for name, value in wanted.items()):
                return record
        return None

    async def _add(
        self,
        name: str,
        digest: str,
        owner: str,
        part: Part,
        *,
        file_id: str | None = None,
        media_path: str | None = None,
    ) -> MemoryRecord:
        if len(await self.list(owner)) >= self._settings.max_client_memories:
            raise queue_full(f"a client may have {self._settings.max_client_memories} memories; delete some", 3600)
        record = MemoryRecord(
            id=self._store.memories.new_id(),
            file_id=file_id,
            media_path=media_path,
            name=name,
            digest=digest,
            created_at=int(time.time()),
            owner=owner,
            **dataclasses.asdict(part),
        )
        await asyncio.to_thread(self._store.memories.add, record)
        return record

    async def delete(self, record: MemoryRecord) -> None:
        """Remove a record, and the memory itself if no other record shares it."""
        await asyncio.to_thread(self._store.memories.delete, record.id)
        if not await self._is_shared(record):
            await self._end(self.video(record))
            await self._engine.forget(self.video(record))
            self._failures.pop(self.video(record).key, None)

    async def delete_of_file(self, file: FileRecord) -> None:
        """Remove the memories of a file."""
        for record in await self.list(file.owner):
            if record.file_id == file.id:
                await self.delete(record)

    async def _is_shared(self, record: MemoryRecord) -> bool:
        key = self.video(record).key
        everybodys = await asyncio.to_thread(self._store.memories.list)
        return any(self.video(other).key == key for other in everybodys if other.id != record.id)

    def video(self, record: MemoryRecord) -> Video:
        """The video of a memory, for an engine."""
        if record.file_id is not None:
            return record.video(self._store.path(record.file_id))
        root = self._settings.media_root
        return record.video(None if root is None else root / (record.media_path or ""))

    async def path(self, record: MemoryRecord) -> Path | None:
        """The file of a memory's video; None if it is gone."""
        if record.media_path is not None:
            try:
                return await asyncio.to_thread(media_file, self._settings.media_root, record.media_path)
            except VideoError:
                return None
        assert record.file_id is not None
        path = self._store.path(record.file_id)
        return path if await asyncio.to_thread(path.is_file) else None

    # Watching.

    async def check_room(self) -> None:
        """Whether a further video would be taken now.

        Raises:
            ApiError: too many wait.
        """
        status = await self._engine.status()
        waiting = max(status.watches_waiting, len(self._attending))
        if waiting >= self._settings.max_watches_waiting:
            raise queue_full(f"{waiting} videos wait to be watched already; try again later", MAX_RETRY_SECONDS)

    def start(self, record: MemoryRecord) -> None:
        """Watch a memory's video to its end, with listeners or without; one that is watched goes on."""
        key = self.video(record).key
        if key not in self._attending:
            self._failures.pop(key, None)
            self._attending[key] = asyncio.create_task(self._attend(record))

    async def restart(self, record: MemoryRecord) -> None:
        """Watch a memory's video, also after it was cancelled."""
        if record.is_cancelled:
            await asyncio.to_thread(self._store.memories.add, dataclasses.replace(record, is_cancelled=False))
        self.start(record)

    async def _attend(self, record: MemoryRecord) -> None:
        video = self.video(record)
        try:
            await self._begin(video)
            self._begun.add(video.key)
            begin_seconds = time.monotonic()
            view = WatchView(video.key, "queued")
            async with contextlib.aclosing(self._engine.follow(video)) as views:
                async for view in views:
                    self.check_frames(view)
            self._metrics.watched(view, time.monotonic() - begin_seconds)
        except Exception as error:  # noqa: BLE001 - nobody awaits this task: the record tells
            told = api_error(error, video)
            self._failures[video.key] = WatchFailure(told.code, told.message)
            await self._engine.cancel_watch(video)
        finally:
            self._attending.pop(video.key, None)
            self._begun.discard(video.key)

    async def _begin(self, video: Video) -> None:
        while True:
            try:
                await self._engine.watch(video, keeps_running=True)
                return
            except EngineBusy as error:
                await asyncio.sleep(min(max(error.retry_after_seconds, 0.1), MAX_RETRY_SECONDS))

    def check_frames(self, view: WatchView) -> None:
        """Check that a video is not longer than its header says.

        Raises:
            ApiError: it has too many frames.
        """
        if view.frames_done > self._settings.max_frames:
            raise invalid(
                f"the video has more than {self._settings.max_frames:,} frames to watch, the limit of this server; "
                "watch a part of it, or fewer frames a second",
                code="video_too_long",
            )

    async def view(self, record: MemoryRecord) -> WatchView:
        """How far a memory is."""
        video = self.video(record)
        if video.key in self._attending and video.key not in self._begun:
            return WatchView(video.key, "queued")  # whatever became of it before
        view = await self._engine.view(video)
        failure = self._failures.get(video.key)
        if failure is not None and (view is None or view.state in ("failed", "cancelled")):
            return WatchView(video.key, "failed", failure=failure)
        return view or WatchView(video.key, "cancelled")

    async def follow(self, record: MemoryRecord) -> AsyncGenerator[WatchView, None]:
        """A memory now and at each change, to a final state."""
        video = self.video(record)
        seen: WatchView | None = None
        while True:
            view = await self.view(record)
            if view != seen:
                yield (seen := view)
            if view.is_final:
                return
            if video.key in self._attending and video.key not in self._begun:
                await asyncio.sleep(BEGIN_SECONDS)
                continue
            async with contextlib.aclosing(self._engine.follow(video)) as views:
                async for _ in views:
                    view = await self.view(record)
                    if view.is_final:
                        break
                    if view != seen:
                        yield (seen := view)

    async def cancel(self, record: MemoryRecord) -> None:
        """End the watching of a memory's video, for all. It is watched again when somebody asks, not by a restart."""
        if not (await self.view(record)).is_final:
            await asyncio.to_thread(self._store.memories.add, dataclasses.replace(record, is_cancelled=True))
            await self._end(self.video(record))

    async def _end(self, video: Video) -> None:
        task = self._attending.get(video.key)
        await self._engine.cancel_watch(video)
        if task is not None:
            task.cancel()
            await asyncio.wait((task,))

    async def resume(self) -> None:
        """Watch what a killed server did not get to its end; of uploads only."""
        with_memory = {record.file_id for record in await asyncio.to_thread(self._store.memories.list)}
        for file in await asyncio.to_thread(self._store.list):
            if file.kind == "video" and file.id not in with_memory:
                try:
                    await self.of_file(file)
                except ApiError as error:
                    _log.warning("removing %s, which cannot be watched: %s", file.id, error)
                    await asyncio.to_thread(self._store.delete, file.id)
        for record in await asyncio.to_thread(self._store.memories.list):
            if record.file_id is None or record.is_cancelled:
                continue
            if await self.path(record) is not None and await self._engine.view(self.video(record)) is None:
                _log.info("watching %s again, which was not watched to its end", record.id)
                self.start(record)

    async def close(self) -> None:
        """End all waiting here."""
        for task in list(self._attending.values()):
            task.cancel()
        if self._attending:
            await asyncio.wait(list(self._attending.values()))
