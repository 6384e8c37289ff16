"""Subtitles that clients give: by the id of an uploaded file, or as text."""

import asyncio

from hourllava.errors import DataError
from hourllava.inference.questions.subtitle_text import read_text
from hourllava.inference.questions.subtitles import Cue, parse_subtitles
from hourllava.serving.context import Context
from hourllava.serving.errors import invalid, not_found, too_large
from hourllava.serving.store import FileRecord

_MAX_ID_LETTERS = 64


async def cues_of_file(context: Context, record: FileRecord) -> list[Cue]:
    """The cues of an uploaded subtitle file.

    Raises:
        ApiError: it is no such file, or too large.
    """
    if record.kind != "subtitles":
        raise invalid(f"{record.filename} is no subtitle file; give a .srt or .vtt file", "subtitles")
    if record.bytes > context.settings.max_subtitle_bytes:
        raise too_large("a subtitle file", context.settings.max_subtitle_bytes)
    path = context.store.path(record.id)
    try:
        return await asyncio.to_thread(lambda: parse_subtitles(read_text(path, None), record.filename))
    except DataError as error:
        raise invalid(str(error).replace(str(path), record.filename), "subtitles") from error


async def cues_of_text(context: Context, text: str) -> list[Cue]:
    """The cues in a text of a request."""
    if len(text) > context.settings.max_subtitle_bytes:
        raise too_large("subtitles", context.settings.max_subtitle_bytes)
    try:
        return await asyncio.to_thread(parse_subtitles, text, "the text")
    except DataError as error:
        raise invalid(str(error), "subtitles") from error


async def cues_of(context: Context, owner: str, given: str | None) -> list[Cue]:
    """The cues of a file's id, or of a text.

    Raises:
        ApiError: there is no such file, or it holds no subtitles.
    """
    if not given:
        return []
    if not given.startswith("file-") or len(given) > _MAX_ID_LETTERS:
        return await cues_of_text(context, given)
    record = await asyncio.to_thread(context.store.get, given)
    if record is None or record.owner != owner:
        raise not_found(f"file {given!r}", "subtitles")
    return await cues_of_file(context, record)


def as_webvtt(cues: list[Cue]) -> str:
    """Cues as WebVTT, which players take."""
    blocks = [f"{_clock(cue.start_seconds)} --> {_clock(cue.end_seconds)}\n{_escaped(cue.text)}\n" for cue in cues]
    return "\n".join(["WEBVTT\n", *blocks])


def _clock(seconds: float) -> str:
    milliseconds = round(seconds * 1000)
    return (
        f"{milliseconds // 3_600_000:02d}:{milliseconds // 60_000 % 60:02d}:"
        f"{milliseconds // 1000 % 60:02d}.{milliseconds % 1000:03d}"
    )


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
