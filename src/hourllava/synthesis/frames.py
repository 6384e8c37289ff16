"""The frames of clips as JPEG files, read in one pass over each video, several videos at a time.

A clip's frames wait in memory only until its request is sent: decoding stays a few clips ahead of the captioner.
"""

import asyncio
import io
import threading
from collections import deque
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

from PIL import Image

from hourllava.errors import HourLlavaError
from hourllava.synthesis.clips import Clip, PlannedVideo
from hourllava.synthesis.models.request import Picture
from hourllava.synthesis.settings import FrameSettings
from hourllava.synthesis.stage import Item
from hourllava.video.budget import ProcessBudget
from hourllava.video.reader import read_frames

CLIPS_AHEAD = 8  # decoded and not yet asked for


@dataclass(frozen=True)
class ClipInput:
    """What a captioner needs of a clip.

    Attributes:
        planned: its video.
        clip: which one.
        pictures: its frames; None: not read yet, or the reason why they cannot be read.
    """

    planned: PlannedVideo
    clip: Clip
    pictures: Sequence[Picture] | str | None = None


def picture_size(planned: PlannedVideo, longest_side_pixels: int) -> tuple[int, int]:
    """(height, width) of the frames that are sent: even numbers, in the video's proportion, never larger than it."""
    longest = max(planned.width_pixels, planned.height_pixels)
    scale = min(1.0, longest_side_pixels / longest)
    height, width = (max(2, round(side * scale / 2) * 2) for side in (planned.height_pixels, planned.width_pixels))
    return height, width


def read_clips(
    planned: PlannedVideo, clips: Sequence[Clip], settings: FrameSettings, budget: ProcessBudget
) -> Iterator[tuple[Clip, list[Picture]]]:
    """The frames of clips of one video, in order of the clips; a frame that two clips share is read once.

    Raises:
        VideoError: the video cannot be read.
    """
    waiting = deque(clips)
    recent: deque[Picture] = deque()
    size = picture_size(planned, settings.longest_side_pixels)
    with read_frames(
        planned.video.path,
        fps=settings.fps,
        start_seconds=clips[0].start_seconds,
        end_seconds=max(clip.end_seconds for clip in clips),
        size_pixels=size,
        budget=budget,
    ) as reader:
        for batch in reader:
            for frame, seconds in zip(batch.frames, batch.sample_seconds):
                while waiting and seconds >= waiting[0].end_seconds:
                    clip = waiting.popleft()
                    yield clip, _within(clip, recent)
                if not waiting:
                    return
                while recent and recent[0].seconds < waiting[0].start_seconds:
                    recent.popleft()
                if seconds >= waiting[0].start_seconds:
                    recent.append(_picture(frame, float(seconds), settings.jpeg_quality))
    for clip in waiting:
        yield clip, _within(clip, recent)


def _within(clip: Clip, pictures: deque[Picture]) -> list[Picture]:
    return [picture for picture in pictures if clip.start_seconds <= picture.seconds < clip.end_seconds]


def _picture(frame: Any, seconds: float, quality: int) -> Picture:
    buffer = io.BytesIO()
    Image.fromarray(frame).save(buffer, "JPEG", quality=quality)
    return Picture(buffer.getvalue(), seconds, frame.shape[1], frame.shape[0])


class FrameFeed:
    """Loads the frames of clip items, for `run_stage`.

    Args:
        settings: of the frames.
        videos_at_once: read at a time.
    """

    def __init__(self, settings: FrameSettings, videos_at_once: int) -> None:
        self._settings, self._videos_at_once = settings, videos_at_once
        self._budget = ProcessBudget()

    async def __call__(self, items: Iterator[Item]) -> AsyncGenerator[Item, None]:
        """The items with their frames: in order within a video, as they come among videos."""
        loop = asyncio.get_running_loop()
        # Each reader waits with one clip at most, so that all of them can end when the queue is emptied.
        ready: asyncio.Queue[Item | None] = asyncio.Queue(max(CLIPS_AHEAD, self._videos_at_once))
        stop = threading.Event()

        def give(item: Item | None) -> None:
            if not stop.is_set():
                asyncio.run_coroutine_threadsafe(ready.put(item), loop).result()

        def read(group: list[Item]) -> None:
            try:
                for item in self._with_frames(group):
                    if stop.is_set():
                        return
                    give(item)
            finally:
                give(None)

        groups = (list(group) for _, group in groupby(items, key=lambda item: item.input.planned.video.id))
        num_reading = 0
        tasks: set[asyncio.Task[None]] = set()
        try:
            while True:
                while num_reading < self._videos_at_once and (group := next(groups, None)) is not None:
                    task = asyncio.create_task(asyncio.to_thread(read, group))
                    tasks.add(task)
                    num_reading += 1
                if not num_reading:
                    return
                item = await ready.get()
                if item is None:
                    num_reading -= 1
                else:
                    yield item
        finally:
            stop.set()
            while not ready.empty():
                ready.get_nowait()
            for task in tasks:
                with suppress(asyncio.CancelledError):
                    await task

    def _with_frames(self, group: list[Item]) -> Iterator[Item]:
        clips = {item.input.clip: item for item in group}
        try:
            for clip, pictures in read_clips(group[0].input.planned, list(clips), self._settings, self._budget):
                item = clips.pop(clip)
                yield replace(item, input=replace(item.input, pictures=pictures or "it has no frame"))
        except HourLlavaError as error:
            for item in clips.values():
                yield replace(item, input=replace(item.input, pictures=str(error)))
