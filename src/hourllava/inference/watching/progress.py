"""How far the watching of a video is, as numbers and as a bar on stderr."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tqdm import tqdm


@dataclass(frozen=True)
class Progress:
    """How far a video is watched.

    Attributes:
        frames_done: frames that are in the memory.
        frames_total: frames that it will have, about; None for a live source.
        frames_per_second: from the beginning on; 0 if a cache had the memory.
        seconds_left: at this rate; None if it cannot be said.
    """

    frames_done: int = 0
    frames_total: int | None = None
    frames_per_second: float = 0.0
    seconds_left: float | None = None


NOT_BEGUN = Progress()

OnProgress = Callable[[Progress], object]


class ProgressMeter:
    """Counts frames; the clock begins when it is made."""

    def __init__(self) -> None:
        self._start_seconds = time.monotonic()

    def at(self, frames_done: int, frames_total: int | None) -> Progress:
        """The progress now."""
        rate = frames_done / max(time.monotonic() - self._start_seconds, 1e-9)
        if frames_total is None:
            return Progress(frames_done, None, rate, None)
        frames_total = max(frames_total, frames_done)
        seconds_left = (frames_total - frames_done) / rate if rate > 0 else None
        return Progress(frames_done, frames_total, rate, seconds_left)


class _Bar(tqdm):
    monitor_interval = 0  # no thread that outlives the bar


@contextmanager
def progress_bar(shown: bool = True) -> Iterator[OnProgress]:
    """A bar on stderr that shows what it is called with. It appears with the first call."""
    bar: _Bar | None = None

    def show(progress: Progress) -> None:
        nonlocal bar
        if not shown:
            return
        if bar is None:
            bar = _Bar(unit="frame", desc="watching")
        bar.total = progress.frames_total
        bar.update(progress.frames_done - bar.n)

    try:
        yield show
    finally:
        if bar is not None:
            bar.close()  # type: ignore[no-untyped-call]
