"""Draws filmstrips and frames, few at once, beside the event loop."""

import asyncio
import functools
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import ParamSpec, TypeVar

from hourllava.serving.pictures import Filmstrip, jpeg_at, known_filmstrip, make_filmstrip
from hourllava.video import probe
from hourllava.video.limits import VideoLimits

P = ParamSpec("P")
T = TypeVar("T")

THREADS = 2
"""Pictures that are drawn at once; each decodes in a process of its own."""

MAX_SHEETS = 500
"""Filmstrips that are kept; those drawn first go first."""


class Drawing:
    """Filmstrips in a folder, by the key of their video.

    Args:
        folder: is made when something is drawn.
        limits: of videos, and of decoding them.
    """

    def __init__(self, folder: Path, limits: VideoLimits) -> None:
        self._folder, self._limits = folder, limits
        self._threads = ThreadPoolExecutor(THREADS, "hourllava-drawing")
        self._stop = threading.Event()
        self._running: dict[str, asyncio.Task[Filmstrip]] = {}

    def sheet(self, key: str) -> Path:
        """Where a filmstrip lies, if it is drawn."""
        return self._folder / f"{key}.jpg"

    async def run(self, function: Callable[P, T], *arguments: P.args, **more: P.kwargs) -> T:
        """Call a function that decodes, in one of few threads."""
        call = functools.partial(function, *arguments, **more)
        return await asyncio.get_running_loop().run_in_executor(self._threads, call)

    async def jpeg_at(self, path: Path, at_seconds: float, max_width: int) -> bytes:
        """The picture on screen at a time; see `pictures.jpeg_at`."""
        return await self.run(jpeg_at, path, at_seconds, max_width, self._limits)

    async def filmstrip(self, path: Path | None, key: str, start: float, end: float | None) -> Filmstrip | None:
        """The filmstrip of a part of a video; it is drawn once, whoever asks. None: there is neither strip nor file.

        Args:
            path: of the video; None: it is gone.
            key: of the video and its part.
            start, end: of the part, in seconds on the player's clock; end None: to the end.
        """
        known = await asyncio.to_thread(known_filmstrip, self.sheet(key))
        if known is not None or path is None:
            return known
        task = self._running.get(key)
        if task is None:
            task = self._running[key] = asyncio.create_task(self.run(self._draw, path, key, start, end))
            task.add_done_callback(lambda _: self._running.pop(key, None))
        return await asyncio.shield(task)  # others may wait for it, and the next request will

    def _draw(self, path: Path, key: str, start: float, end: float | None) -> Filmstrip:
        self._folder.mkdir(exist_ok=True)
        if end is None:
            info = probe(path, limits=self._limits)
            end = (info.duration_seconds or 0.0) + info.player_offset_seconds
        strip = make_filmstrip(path, self.sheet(key), start, end, limits=self._limits, stop=self._stop)
        oldest_first = sorted(self._folder.glob("*.json"), key=lambda each: each.stat().st_mtime)
        for old in oldest_first[:-MAX_SHEETS]:
            self.remove(old.stem)
        return strip

    def remove(self, key: str) -> None:
        """Remove a filmstrip."""
        for suffix in (".json", ".jpg"):
            self.sheet(key).with_suffix(suffix).unlink(missing_ok=True)

    async def close(self) -> None:
        """End what is being drawn."""
        self._stop.set()
        for task in list(self._running.values()):
            task.cancel()
        await asyncio.to_thread(self._threads.shutdown, cancel_futures=True)
