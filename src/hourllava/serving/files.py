"""The clients' files: an upload becomes a file, and a video begins to be watched."""

import asyncio

from hourllava.serving.context import Context
from hourllava.serving.errors import ApiError, invalid, not_found
from hourllava.serving.records import MemoryRecord
from hourllava.serving.shapes import FileExtras, FileObject
from hourllava.serving.store import FileRecord
from hourllava.serving.subtitles import cues_of_file


async def file_of(context: Context, file_id: str, owner: str, param: str | None = None) -> FileRecord:
    """An owner's file.

    Raises:
        ApiError: there is none of this id.
    """
    record = await asyncio.to_thread(context.store.get, file_id)
    if record is None or record.owner != owner:
        raise not_found(f"file {file_id[:64]!r}", param)
    return record


async def accept(context: Context, record: FileRecord, *, watch: bool = True) -> None:
    """Check a file that came in, and begin to watch it; a refused one is removed.

    Raises:
        ApiError: it is neither a video nor subtitles, or is too long.
    """
    try:
        if record.kind == "other":
            raise invalid(f"{record.filename} is neither a video nor a .srt or .vtt file", code="video_unreadable")
        if record.kind == "subtitles":
            await cues_of_file(context, record)
        else:
            memory = await context.watching.of_file(record)
            if watch:
                context.watching.start(memory)
    except BaseException as error:
        await asyncio.shield(asyncio.to_thread(context.store.delete, record.id))
        if isinstance(error, ApiError) and error.param in ("subtitles", None):
            error.param = "file"
        raise


async def describe(context: Context, record: FileRecord, memories: list[MemoryRecord] | None = None) -> FileObject:
    """A file as clients get it.

    Args:
        context: of the server.
        record: from the store.
        memories: of the owner; by default they are looked up.
    """
    memories = await context.watching.list(record.owner) if memories is None else memories
    memory = next((each for each in memories if each.file_id == record.id), None)
    state, details = "ready", None
    if memory is not None:
        view = await context.watching.view(memory)
        state = view.state
        if view.failure is not None:
            details = view.failure.message
        elif state == "cancelled":
            details = "the watching was cancelled"
    status = {"ready": "processed", "failed": "error", "cancelled": "error"}.get(state, "uploaded")
    return FileObject.model_validate(
        {
            "id": record.id,
            "bytes": record.bytes,
            "created_at": record.created_at,
            "filename": record.filename,
            "purpose": record.purpose,
            "status": status,
            "status_details": details,
            "hourllava": FileExtras(kind=record.kind, memory_id=None if memory is None else memory.id),
        }
    )


async def delete(context: Context, record: FileRecord) -> None:
    """Remove a file with the memories of it."""
    await context.watching.delete_of_file(record)
    await asyncio.to_thread(context.store.delete, record.id)
