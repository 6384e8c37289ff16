"""Takes uploads: raw bodies and forms, written and hashed as they come, without a copy elsewhere."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

from fastapi import Request

from hourllava.serving.context import Context
from hourllava.serving.errors import invalid, queue_full, too_large
from hourllava.serving.form import Form, boundary_of
from hourllava.serving.store import FileRecord, Upload

PURPOSES = ("user_data", "vision")
_WRITE_BYTES = 2**20


@contextlib.asynccontextmanager
async def upload_place(context: Context, owner: str) -> AsyncIterator[None]:
    """A place for an upload, if there is room for one and for a further video.

    Raises:
        ApiError: there is none.
    """
    settings = context.settings
    if context.num_uploads >= settings.max_uploads:
        raise queue_full(f"{context.num_uploads} uploads are coming in, and that is the limit", 10)
    context.num_uploads += 1
    try:
        await context.watching.check_room()
        files = await asyncio.to_thread(context.store.list, owner)
        if len(files) >= settings.max_client_files:
            raise invalid(f"a client may have {settings.max_client_files} files; delete some", code="too_many_files")
        if sum(file.bytes for file in files) >= settings.max_client_bytes:
            raise invalid(f"a client may have {settings.max_client_bytes:,} bytes; delete files", code="too_many_bytes")
        yield
    finally:
        context.num_uploads -= 1


class Sink:
    """Where the bytes of one upload go; a context manager that removes them unless `keep` was called.

    Args:
        context: of the server.
        upload: from the store.
    """

    def __init__(self, context: Context, upload: Upload) -> None:
        self._context, self._upload = context, upload
        self._waiting = bytearray()
        self._num_bytes = 0

    @classmethod
    async def open(cls, context: Context, filename: str, owner: str) -> "Sink":
        """Begin an upload."""
        return cls(context, await asyncio.to_thread(context.store.new_upload, filename, PURPOSES[0], owner))

    async def write(self, data: bytes) -> None:
        """Take the next bytes.

        Raises:
            ApiError: they are too many.
            StorageError: the disk is full.
        """
        self._waiting += data
        self._num_bytes += len(data)
        if self._num_bytes > self._context.settings.max_upload_bytes:
            raise too_large("a file", self._context.settings.max_upload_bytes)
        if len(self._waiting) >= _WRITE_BYTES:
            await self._flush()

    async def _flush(self) -> None:
        data, self._waiting = self._waiting, bytearray()
        await asyncio.to_thread(self._upload.write, data)
        self._context.metrics.uploaded(len(data))

    async def keep(self, purpose: str) -> FileRecord:
        """The file is whole: keep it."""
        await self._flush()
        self._upload.purpose = purpose
        return await asyncio.to_thread(self._upload.commit)

    async def __aenter__(self) -> "Sink":
        return self

    async def __aexit__(self, *_: object) -> None:
        self._upload.abort()  # in this thread: it must happen, also when the task is cancelled


async def take_body(request: Request, context: Context, filename: str, purpose: str, owner: str) -> FileRecord:
    """Keep the raw body of a request."""
    async with upload_place(context, owner), await Sink.open(context, filename, owner) as sink:
        async for data in request.stream():
            await sink.write(data)
        return await sink.keep(purpose)


async def take_form(request: Request, context: Context, owner: str) -> FileRecord:
    """Keep the file of a form with the fields `file` and `purpose`, in any order.

    Raises:
        ApiError: the form is another one.
    """
    form = Form(boundary_of(request.headers.get("content-type", "")))
    async with upload_place(context, owner), contextlib.AsyncExitStack() as on_end:
        sink: Sink | None = None
        async for data in request.stream():
            for filename, piece in form.feed(data):
                if sink is None:
                    sink = await Sink.open(context, filename, owner)
                    await on_end.enter_async_context(sink)
                await sink.write(piece)
        form.check_end()
        if sink is None:
            raise invalid("the form has no file", "file")
        purpose = form.fields.get("purpose", PURPOSES[0])
        if purpose not in PURPOSES:
            raise invalid(f"purpose must be one of {', '.join(PURPOSES)}", "purpose")
        return await sink.keep(purpose)
