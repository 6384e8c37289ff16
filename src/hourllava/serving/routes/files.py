"""`/v1/files`: OpenAI's files. To upload a video is to have it watched."""

import asyncio
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request
from fastapi.responses import FileResponse
from pydantic import BaseModel

from hourllava.serving import files
from hourllava.serving.content import MEDIA_TYPES, file_response
from hourllava.serving.context import ERRORS, Here, Owner
from hourllava.serving.errors import not_found
from hourllava.serving.shapes import Deleted, FileObject, QueryInt
from hourllava.serving.uploading import PURPOSES, take_body, take_form

router = APIRouter(responses=ERRORS)

BYTES: dict[int | str, dict[str, Any]] = {
    200: {"content": {kind: {} for kind in MEDIA_TYPES}, "description": "the whole file"},
    206: {
        "content": {kind: {} for kind in (*MEDIA_TYPES, "multipart/byteranges")},
        "description": "the ranges that were asked for",
    },
}
_FORM: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file"],
                    "additionalProperties": False,
                    "properties": {
                        "file": {"type": "string", "format": "binary"},
                        "purpose": {"type": "string", "enum": list(PURPOSES)},
                    },
                }
            }
        },
    }
}
_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
    }
}


class FileList(BaseModel):
    """A page of the list of files."""

    object: Literal["list"] = "list"
    data: list[FileObject]
    has_more: bool
    first_id: str | None
    last_id: str | None


@router.post("/v1/files", openapi_extra=_FORM)
async def upload_form(request: Request, here: Here, owner: Owner) -> FileObject:
    """Upload a video or subtitles as a form; a video begins to be watched."""
    record = await take_form(request, here, owner)
    await files.accept(here, record)
    return await files.describe(here, record)


@router.put("/v1/hourllava/videos", openapi_extra=_BODY)
async def upload_body(
    request: Request, here: Here, owner: Owner, filename: Annotated[str, Query(min_length=1, max_length=1024)]
) -> FileObject:
    """Upload a video or subtitles as the body of the request: twice as fast as a form."""
    record = await take_body(request, here, filename, PURPOSES[0], owner)
    await files.accept(here, record)
    return await files.describe(here, record)


@router.get("/v1/files")
async def list_files(
    here: Here,
    owner: Owner,
    after: Annotated[str | None, Query(max_length=64)] = None,
    limit: Annotated[QueryInt, Query(ge=1, le=1000)] = 100,
    order: Literal["asc", "desc"] = "desc",
    purpose: Annotated[str | None, Query(max_length=64)] = None,
) -> FileList:
    """A client's files, the newest first."""
    records = await asyncio.to_thread(here.store.list, owner)
    records = [record for record in records if purpose in (None, record.purpose)]
    if order == "desc":
        records.reverse()
    if after is not None:
        ids = [record.id for record in records]
        if after not in ids:
            raise not_found(f"file {after!r}", "after")
        records = records[ids.index(after) + 1 :]
    page = records[:limit]
    memories = await here.watching.list(owner)
    data = [await files.describe(here, record, memories) for record in page]
    return FileList(
        data=data,
        has_more=len(records) > limit,
        first_id=page[0].id if page else None,
        last_id=page[-1].id if page else None,
    )


@router.get("/v1/files/{file_id}")
async def get_file(file_id: str, here: Here, owner: Owner) -> FileObject:
    """One file, and whether it is watched."""
    return await files.describe(here, await files.file_of(here, file_id, owner))


@router.get("/v1/files/{file_id}/content", response_class=FileResponse, responses=BYTES)
async def get_content(file_id: str, here: Here, owner: Owner) -> FileResponse:
    """The bytes of a file, with ranges."""
    record = await files.file_of(here, file_id, owner)
    kind = "text/plain; charset=utf-8" if record.kind == "subtitles" else None
    return await file_response(here.store.path(record.id), record.filename, kind)


router.head("/v1/files/{file_id}/content", include_in_schema=False)(get_content)


@router.delete("/v1/files/{file_id}")
async def delete_file(file_id: str, here: Here, owner: Owner) -> Deleted:
    """Delete a file and the memories of it."""
    record = await files.file_of(here, file_id, owner)
    await files.delete(here, record)
    return Deleted(id=file_id, object="file")
