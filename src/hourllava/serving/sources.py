"""The video that a request names: an uploaded file, a memory, a file of the media folder, data, or an address."""

import asyncio
import base64
import binascii
import hashlib
import re
from dataclasses import dataclass

from hourllava.serving import files
from hourllava.serving.checks import WHOLE, Part
from hourllava.serving.context import Context
from hourllava.serving.errors import ApiError, invalid, too_large
from hourllava.serving.records import MemoryRecord
from hourllava.serving.store import FileRecord
from hourllava.serving.uploading import Sink, upload_place

MEDIA_SCHEME = "media:"
_DATA = re.compile(r"data:(?P<type>[\w.+-]+/[\w.+-]+)?(?:;[\w=.+-]+)*?(?P<base64>;base64)?,", re.ASCII)


@dataclass(frozen=True)
class Source:
    """What a request says about its video; one field is given.

    Attributes:
        file_id: of an uploaded file.
        memory_id: of a memory; its part is fixed.
        url: `data:video/...;base64,...`, `media:relative/path`, or an address.
        param: the field of the request, for errors.
        filename: for data.
    """

    param: str
    file_id: str | None = None
    memory_id: str | None = None
    url: str | None = None
    filename: str = "video"


async def memory_of(context: Context, owner: str, source: Source, part: Part = WHOLE) -> MemoryRecord:
    """The memory of a video that a request names; what is not here yet is taken in first.

    Raises:
        ApiError: there is no such video, it may not be taken, or it cannot be watched.
    """
    if source.memory_id is not None:
        if part != WHOLE:
            raise invalid(
                "memory_id says which part is meant; leave start_seconds, end_seconds and fps out", "hourllava"
            )
        return await context.watching.get(source.memory_id, owner, source.param)
    url = source.url or ""
    if source.file_id is None and url.startswith(MEDIA_SCHEME):
        return await context.watching.of_media(url.removeprefix(MEDIA_SCHEME), owner, part)
    if source.file_id is not None:
        record = await files.file_of(context, source.file_id, owner, source.param)
    elif url.startswith("data:"):
        record = await _of_data(context, owner, source)
    elif re.match(r"https?://", url, re.IGNORECASE):
        record = await _of_address(context, owner, url, source.param)
    else:
        raise invalid(
            "a video is data:video/...;base64,..., media:relative/path, or an http(s) address where the server allows "
            "it; or upload it and give its file_id",
            source.param,
        )
    return await context.watching.of_file(record, part)


async def _of_data(context: Context, owner: str, source: Source) -> FileRecord:
    """The file of a data: address; the same data again is the same file."""
    url = source.url or ""
    head = _DATA.match(url[:256])
    if head is None or head["base64"] is None or not (head["type"] or "video/").startswith("video/"):
        raise invalid("a data: address begins with data:video/mp4;base64,", source.param)
    try:
        content = await asyncio.to_thread(base64.b64decode, url[head.end() :], validate=True)
    except (binascii.Error, ValueError) as error:
        raise invalid("the data: address holds no base64", source.param) from error
    if len(content) > context.settings.max_upload_bytes:
        raise too_large("a file", context.settings.max_upload_bytes)
    digest = f"sha256:{await asyncio.to_thread(lambda: hashlib.sha256(content).hexdigest())}"
    for record in await asyncio.to_thread(context.store.list, owner):
        if record.digest == digest:
            return record
    async with upload_place(context, owner), await Sink.open(context, source.filename, owner) as sink:
        await sink.write(content)
        record = await sink.keep("user_data")
    await files.accept(context, record, watch=False)
    return record


async def _of_address(context: Context, owner: str, url: str, param: str) -> FileRecord:
    """The file behind an http(s) address; within an hour it is fetched once."""
    if not context.settings.allow_url_hosts:
        raise invalid(
            "this server fetches no videos (--allow-url); upload it and give its file_id", param, "url_refused"
        )
    async with context.fetching.lock(owner, url):
        file_id = context.fetching.file_id(owner, url)
        record = None if file_id is None else await asyncio.to_thread(context.store.get, file_id)
        if record is not None:
            return record
        try:
            async with (
                upload_place(context, owner),
                context.fetcher.open(url) as fetched,
                await Sink.open(context, fetched.filename, owner) as sink,
            ):
                async for data in fetched.body():
                    await sink.write(data)
                record = await sink.keep("user_data")
            await files.accept(context, record, watch=False)
        except ApiError as error:
            error.param = param
            raise
        context.fetching.note(owner, url, record.id)
        return record
