"""Stage `clips`: each video's length and size, its clips, and, if they are looked for, cuts and unchanged clips."""

import asyncio
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from hourllava.errors import HourLlavaError
from hourllava.synthesis.folder import SynthFolder
from hourllava.synthesis.look import find_cuts, find_unchanged, look_at
from hourllava.synthesis.rows import ItemFault, RowFile, digest
from hourllava.synthesis.settings import ClipSettings
from hourllava.synthesis.stage import Item
from hourllava.synthesis.videos import Video
from hourllava.video.identity import source_digest
from hourllava.video.reader import probe

STAGE = "clips"


@dataclass(frozen=True)
class Clip:
    """A clip of a video.

    Attributes:
        number: from 0 on.
        start_seconds, end_seconds: from the first picture.
        is_unchanged: nothing in it differs from the end of the clip before.
    """

    number: int
    start_seconds: float
    end_seconds: float
    is_unchanged: bool = False


@dataclass(frozen=True)
class PlannedVideo:
    """A video with its clips.

    Attributes:
        video: as it was found.
        content: digest of the file's content.
        duration_seconds: to the end of the last picture.
        width_pixels, height_pixels: as displayed.
        player_offset_seconds: when a player shows the first picture.
        clips: in order.
        cuts: seconds at which the picture changes at once.
    """

    video: Video
    content: str
    duration_seconds: float
    width_pixels: int
    height_pixels: int
    player_offset_seconds: float
    clips: tuple[Clip, ...]
    cuts: tuple[float, ...]


def plan_clips(duration_seconds: float, length_seconds: float, stride_seconds: float) -> list[tuple[float, float]]:
    """(start, end) of the clips of a video; the last is shorter, and none lies within the one before.

    Args:
        duration_seconds: above 0.
        length_seconds, stride_seconds: of clips; the stride is not longer than the length.
    """
    overlap = length_seconds - stride_seconds
    count = max(1, math.ceil((duration_seconds - overlap) / stride_seconds))
    return [(k * stride_seconds, min(k * stride_seconds + length_seconds, duration_seconds)) for k in range(count)]


def clip_items(videos: Iterable[Video], folder: SynthFolder, settings: ClipSettings) -> Iterator[Item]:
    """An item for each video; its key changes when the file does."""
    relevant = {"length": settings.length_seconds, "stride": settings.stride_seconds, "look": settings.look}
    maker = folder.makers.add(STAGE, settings=relevant)
    for video in videos:
        try:
            status = video.path.stat()
            stamp = [status.st_size, status.st_mtime_ns]
        except OSError:
            stamp = []  # the work says what is wrong
        yield Item(video.id, digest(maker, str(video.path), stamp), maker, (video, settings))


async def plan_video(item: Item) -> dict[str, Any]:
    """The value of a video: what `PlannedVideo` has, as plain data."""
    video, settings = item.input
    try:
        return await asyncio.to_thread(_plan, video, settings)
    except HourLlavaError as error:
        raise ItemFault("video cannot be read", str(error)) from None


def _plan(video: Video, settings: ClipSettings) -> dict[str, Any]:
    info = probe(video.path)
    if not info.duration_seconds:
        raise ItemFault("length unknown", f"{video.path} does not say how long it is; convert it")
    spans = plan_clips(info.duration_seconds, settings.length_seconds, settings.stride_seconds)
    cuts: list[float] = []
    unchanged: list[int] = []
    if settings.look:
        seen = look_at(video.path)
        cuts, unchanged = find_cuts(seen), find_unchanged(seen, spans)
    return {
        "content": source_digest(video.path),
        "duration_seconds": info.duration_seconds,
        "width_pixels": info.width_pixels,
        "height_pixels": info.height_pixels,
        "player_offset_seconds": info.player_offset_seconds,
        "clips": [[round(start, 3), round(end, 3)] for start, end in spans],
        "cuts": cuts,
        "unchanged": unchanged,
    }


def planned_videos(
    videos: Iterable[Video], folder: SynthFolder, settings: ClipSettings, rows: RowFile
) -> Iterator[PlannedVideo]:
    """The videos that could be read, from the rows of this stage; one at a time in memory."""
    for item in clip_items(videos, folder, settings):
        row = rows.get(item.key)
        if row is not None and row.value is not None:
            yield of_value(item.input[0], row.value)


def of_value(video: Video, value: dict[str, Any]) -> PlannedVideo:
    """A video with its clips, from the value of its row."""
    unchanged = set(value["unchanged"])
    return PlannedVideo(
        video=video,
        content=value["content"],
        duration_seconds=value["duration_seconds"],
        width_pixels=value["width_pixels"],
        height_pixels=value["height_pixels"],
        player_offset_seconds=value["player_offset_seconds"],
        clips=tuple(Clip(k, start, end, k in unchanged) for k, (start, end) in enumerate(value["clips"])),
        cuts=tuple(value["cuts"]),
    )
