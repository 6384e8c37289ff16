"""The thread in which one video is watched, for all callers who want it."""

import logging
import os
import threading
from collections.abc import Callable
from dataclasses import replace

from hourllava.inference.memories.cache import MemoryCache
from hourllava.inference.memories.memory import Memory
from hourllava.inference.watching.progress import NOT_BEGUN, OnProgress, Progress, ProgressMeter

_log = logging.getLogger(__name__)


class Run:
    """One video that is being watched in a thread. The callers hold a `WatchJob` each.

    Args:
        name: of the video.
        work: makes the memory. It calls `report` after each batch of frames, and ends soon after `stop` is set.
        caches: are to keep the memory; `work` gets them from `close_caches`.
        keeps_running: whether the run goes on when all callers have left.
        ended: called in the thread, at its end.
    """

    def __init__(
        self,
        name: str,
        work: Callable[["Run"], Memory],
        caches: list[MemoryCache],
        keeps_running: bool,
        ended: Callable[["Run"], object],
    ) -> None:
        self.name = name
        self.keeps_running = keeps_running
        self.stop = threading.Event()
        self.changed = threading.Condition()  # guards what follows
        self.num_callers = 0
        self.has_ended = False
        self.memory: Memory | None = None
        self.error: BaseException | None = None
        self.progress = NOT_BEGUN
        self.listeners: list[OnProgress] = []
        self._caches: list[MemoryCache] | None = caches
        self._meter = ProgressMeter()
        self.process = os.getpid()
        self.thread = threading.Thread(target=self._main, args=(work, ended), name="hourllava-watch", daemon=True)

    def report(self, frames_done: int, frames_total: int | None) -> None:
        """Tell how far the run is."""
        self._tell(self._meter.at(frames_done, frames_total))

    def join(self, cache: MemoryCache | None, keeps_running: bool) -> bool:
        """Count one more caller; False if it comes too late."""
        with self.changed:
            if self.has_ended or self.stop.is_set():
                return False
            if cache is not None:
                if self._caches is None:  # the memory is being kept in the caches of the others
                    return False
                if all(cache.folder != other.folder for other in self._caches):
                    self._caches.append(cache)
            self.num_callers += 1
            self.keeps_running |= keeps_running
            return True

    def leave(self, everyone: bool) -> None:
        """Count one caller less, and stop if it was the last, or if it speaks for everyone."""
        with self.changed:
            self.num_callers -= 1
            if everyone or not (self.num_callers or self.keeps_running):
                self.stop.set()
            self.changed.notify_all()

    def close_caches(self) -> list[MemoryCache]:
        """The caches that are to keep the memory; no further caller can add one."""
        with self.changed:
            caches, self._caches = self._caches or [], None
            return caches

    def _main(self, work: Callable[["Run"], Memory], ended: Callable[["Run"], object]) -> None:
        memory, error = None, None
        try:
            memory = work(self)
        except BaseException as raised:  # noqa: BLE001 - the callers get it
            error = raised
        done = self.progress.frames_done
        if memory is not None:
            self.progress = replace(self.progress, frames_total=done, seconds_left=0.0)
        ended(self)
        with self.changed:
            self.memory, self.error, self.has_ended = memory, error, True
            self.changed.notify_all()
        self._tell(self.progress)

    def _tell(self, progress: Progress) -> None:
        self.progress = progress
        for listener in list(self.listeners):
            try:
                listener(progress)
            except Exception:  # noqa: BLE001 - whatever it is, the video is watched on
                _log.exception("a listener to the watching of %s failed, and is not called any more", self.name)
                self.listeners.remove(listener)
