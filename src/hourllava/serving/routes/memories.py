"""`/v1/hourllava/memories`: what was watched, and how far it is."""

import asyncio
import shutil
import tempfile
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import APIRouter
from fastapi.responses import FileResponse, StreamingResponse
from pydantic import BaseModel, Field, model_validator
from starlette.background import BackgroundTask

from hourllava.serving.checks import Part
from hourllava.serving.content import file_response
from hourllava.serving.context import ERRORS, Context, Here, Owner
from hourllava.serving.errors import invalid, not_found
from hourllava.serving.events import EventStream, event, stream
from hourllava.serving.records import MemoryRecord
from hourllava.serving.routes.files import BYTES
from hourllava.serving.shapes import Deleted, Id, MemoryObject, Seconds, Strict
from hourllava.serving.showing import memory_shown
from hourllava.serving.sources import MEDIA_SCHEME, Source, memory_of

router = APIRouter(prefix="/v1/hourllava/memories", responses=ERRORS)

EVENTS: dict[int | str, dict[str, Any]] = {
    200: {"content": {"text/event-stream": {}}, "description": "server-sent events"}
}


class MemoryRequest(Strict):
    """What is to be watched: one of `file_id`, `media_path` and `url`, and which part."""

    file_id: Id | None = None
    media_path: Annotated[str, Field(max_length=4096)] | None = None
    url: str | None = None
    fps: float = 1.0
    start_seconds: Seconds = 0.0
    end_seconds: Seconds | None = None

    @model_validator(mode="after")
    def _one_source(self) -> "MemoryRequest":
        if sum(each is not None for each in (self.file_id, self.media_path, self.url)) != 1:
            raise ValueError("give one of file_id, media_path and url")
        return self

    @property
    def part(self) -> Part:
        """The part of the video."""
        return Part(self.fps, self.start_seconds, self.end_seconds)


class MemoryList(BaseModel):
    """A client's memories, the newest first."""

    object: Literal["list"] = "list"
    data: list[MemoryObject]


@router.post("", status_code=202)
async def watch(body: MemoryRequest, here: Here, owner: Owner) -> MemoryObject:
    """Have a video watched, or find its memory. The watching goes on without a listener."""
    await here.watching.check_room()
    url = body.url if body.media_path is None else f"{MEDIA_SCHEME}{body.media_path}"
    param = next(name for name in ("file_id", "media_path", "url") if getattr(body, name) is not None)
    record = await memory_of(here, owner, Source(param, file_id=body.file_id, url=url), body.part)
    view = await here.watching.view(record)
    if view.state != "ready":
        await here.watching.restart(record)
    return await memory_shown(here, record)


@router.get("")
async def list_memories(here: Here, owner: Owner) -> MemoryList:
    """A client's memories, the newest first."""
    records = await here.watching.list(owner)
    return MemoryList(data=[await memory_shown(here, record) for record in reversed(records)])


@router.get("/{memory_id}")
async def get_memory(memory_id: str, here: Here, owner: Owner) -> MemoryObject:
    """One memory, and how far it is."""
    return await memory_shown(here, await here.watching.get(memory_id, owner))


@router.get("/{memory_id}/events", status_code=200, response_class=StreamingResponse, responses=EVENTS)
async def follow(memory_id: str, here: Here, owner: Owner) -> EventStream:
    """The memory now and at each change, as events, until it is ready, failed or cancelled."""
    record = await here.watching.get(memory_id, owner)

    async def events() -> AsyncGenerator[bytes, None]:
        number = 0
        async for view in here.watching.follow(record):
            number += 1
            yield event((await memory_shown(here, record, view)).model_dump(mode="json"), number=number)

    return await stream(events(), here, ends_with_drain=True)


@router.post("/{memory_id}/cancel")
async def cancel(memory_id: str, here: Here, owner: Owner) -> MemoryObject:
    """End the watching; what is ready stays ready."""
    record = await here.watching.get(memory_id, owner)
    await here.watching.cancel(record)
    return await memory_shown(here, record)


@router.delete("/{memory_id}")
async def delete(memory_id: str, here: Here, owner: Owner) -> Deleted:
    """Delete a memory; the video's file stays."""
    record = await here.watching.get(memory_id, owner)
    await here.watching.delete(record)
    return Deleted(id=memory_id, object="hourllava.memory")


@router.get("/{memory_id}/content", response_class=FileResponse, responses=BYTES)
async def get_content(memory_id: str, here: Here, owner: Owner) -> FileResponse:
    """The video, with ranges, for a player."""
    record = await here.watching.get(memory_id, owner)
    path = await here.watching.path(record)
    if path is None:
        raise not_found("file of this memory any more")
    return await file_response(path, record.name)


router.head("/{memory_id}/content", include_in_schema=False)(get_content)


@router.get("/{memory_id}/download", response_class=FileResponse, responses=BYTES)
async def download(memory_id: str, here: Here, owner: Owner) -> FileResponse:
    """The memory as a file that `hourllava ask` takes (.safetensors)."""
    record = await here.watching.get(memory_id, owner)
    await ready(here, record)
    folder = await asyncio.to_thread(tempfile.mkdtemp, dir=here.store.folder, prefix=".export-")
    path = Path(folder) / "memory.safetensors"

    def remove() -> None:
        shutil.rmtree(folder, ignore_errors=True)

    try:
        await here.engine.export_memory(here.watching.video(record), str(path))
        response = await file_response(path, f"{Path(record.name).stem}.safetensors", "application/octet-stream")
    except BaseException:
        await asyncio.to_thread(remove)
        raise
    response.background = BackgroundTask(remove)
    return response


async def ready(context: Context, record: MemoryRecord) -> None:
    """Check that a memory is ready.

    Raises:
        ApiError: it is not.
    """
    view = await context.watching.view(record)
    if view.state != "ready":
        raise invalid(f"this memory is {view.state}; wait until it is ready", "memory_id", "memory_not_ready")
