"""A video's file for players: its type by its first bytes, and ranges of it."""

import asyncio
import re
import stat
from pathlib import Path

from starlette.responses import FileResponse

from hourllava.serving.errors import not_found

_HEAD_BYTES = 512
_TYPES = (  # how a file begins
    (rb"....ftypqt  ", "video/quicktime"),
    (rb"....(ftyp|moov|mdat|wide|free|skip)", "video/mp4"),
    (rb"\x1aE\xdf\xa3.*webm", "video/webm"),
    (rb"\x1aE\xdf\xa3", "video/x-matroska"),
    (rb"RIFF....AVI ", "video/x-msvideo"),
    (rb"OggS", "video/ogg"),
    (rb"FLV", "video/x-flv"),
    (rb"GIF8", "image/gif"),
    (rb"\x00\x00\x01[\xba\xb3]", "video/mpeg"),
    (rb"\x47.{187}\x47|.{4}\x47.{191}\x47", "video/mp2t"),
)
MEDIA_TYPES = ("application/octet-stream", "text/plain", *dict.fromkeys(kind for _, kind in _TYPES))
"""What a file may be sent as."""

_HEADS = tuple((re.compile(pattern, re.DOTALL), kind) for pattern, kind in _TYPES)


def media_type(head: bytes) -> str:
    """The media type of a video that begins like this."""
    return next((kind for pattern, kind in _HEADS if pattern.match(head)), "application/octet-stream")


async def file_response(path: Path, name: str, kind: str | None = None) -> FileResponse:
    """A file with ranges, to be played.

    Args:
        path: of the file.
        name: that a download gets.
        kind: its media type; by default that of a video.

    Raises:
        ApiError: it is gone.
    """
    try:
        status = await asyncio.to_thread(path.stat)
        if not stat.S_ISREG(status.st_mode):
            raise not_found("such file")
        kind = kind or media_type(await asyncio.to_thread(_head, path))
    except OSError as error:
        raise not_found("such file any more") from error
    return FileResponse(
        path,
        media_type=kind,
        filename=name,
        content_disposition_type="inline",
        stat_result=status,
        headers={"Cache-Control": "private, max-age=3600"},
    )


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(_HEAD_BYTES)
