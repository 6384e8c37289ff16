"""Watching as a job: a thread of its own, progress, cancelling, and any number of callers that wait for it.

    job = model.start_watch("lecture.mp4")
    print(job.progress)
    memory = job.result()

Callers that want the same watch the video once: the second joins the job of the first. Each can leave by itself, and
the job ends when the last one has left.
"""

import atexit
import os
import threading
import weakref
from collections.abc import Callable, Hashable
from typing import Self

from hourllava.errors import Cancelled, InputError
from hourllava.forks import renew_after_fork
from hourllava.inference.memories.cache import MemoryCache
from hourllava.inference.memories.memory import Memory
from hourllava.inference.watching.progress import NOT_BEGUN, OnProgress, Progress
from hourllava.inference.watching.run import Run
from hourllava.threads import start_waited_for
from hourllava.video.child import Stop

CALL_SECONDS = 0.1
"""`on_progress` is called at most this often, and `cancel` is looked at so often."""


class WatchJob:
    """One caller's hold on a video that is being watched; from `HourLlava.start_watch`.

        job = model.start_watch("lecture.mp4")
        memory = job.result()

    Threads may share it. It belongs to the process that started it, not to forked ones.

    Attributes:
        from_cache: whether a cache had the memory, so that nothing was watched.
    """

    def __init__(self, run: Run, *, from_cache: bool = False) -> None:
        self.from_cache = from_cache
        self._run = run
        self._has_left = False
        self._kept: object = None

    def keep(self, owner: object) -> Self:
        """This job, which now keeps an object alive: the model, whose thread encodes."""
        self._kept = owner
        return self

    @property
    def progress(self) -> Progress:
        """How far the video is watched."""
        return self._run.progress

    @property
    def done(self) -> bool:
        """Whether `result` returns, or raises, at once."""
        return self._run.has_ended or (self._has_left and not self._run.stop.is_set())

    def wait(self, timeout_seconds: float | None = None) -> bool:
        """Wait until the job is over.

        Args:
            timeout_seconds: how long to wait; None: for as long as it takes.

        Returns:
            whether it is over.

        Raises:
            InputError: this process was forked, or this is the job's own thread.
        """
        self._check_process()
        run = self._run
        is_own_thread = run.thread is threading.current_thread()
        with run.changed:
            if is_own_thread and not self.done:
                raise InputError("a listener cannot wait for its own job")
            if not run.changed.wait_for(lambda: self.done, timeout_seconds):
                return False
        if run.has_ended and not is_own_thread and run.thread.ident is not None:
            run.thread.join()  # it ends now
        return True

    def result(self, timeout_seconds: float | None = None) -> Memory:
        """The memory, when the video is watched. All callers of one job get the same object.

        Args:
            timeout_seconds: how long to wait; None: for as long as it takes.

        Raises:
            TimeoutError: it is still being watched.
            Cancelled: this job was cancelled.
            InputError: this process was forked, or this is the job's own thread.
            HourLlavaError: as `HourLlava.watch`.
        """
        if not self.wait(timeout_seconds):
            raise TimeoutError(f"{self._run.name} is still being watched after {timeout_seconds} s")
        if self._has_left:
            raise Cancelled(f"watching {self._run.name} was cancelled")
        if self._run.error is not None:
            raise self._run.error
        assert self._run.memory is not None
        return self._run.memory

    def cancel(self, *, everyone: bool = False) -> None:
        """Leave the job: `result` raises `Cancelled`.

        The video is watched on for the other callers, if there are any, or if one of them started it with
        `keeps_running`. Otherwise the job ends within one batch of frames, and `result` waits for that.

        Args:
            everyone: end the job for all callers.

        Raises:
            InputError: this process was forked.
        """
        self._check_process()
        with self._run.changed:
            if self._run.has_ended or self._has_left:
                return
            self._has_left = True
            self._run.leave(everyone)

    def add_listener(self, listener: OnProgress) -> None:
        """Have a function called with the progress after every batch of frames, and when the job has ended.

        Args:
            listener: is called in the job's thread, so it must be quick. If the job has ended, it is called at once.

        Raises:
            InputError: this process was forked.
        """
        self._check_process()
        with self._run.changed:
            if not self._run.has_ended:
                self._run.listeners.append(listener)
                return
        listener(self._run.progress)

    def remove_listener(self, listener: OnProgress) -> None:
        """Do not call a listener any more.

        Raises:
            InputError: this process was forked.
        """
        self._check_process()
        with self._run.changed:
            if listener in self._run.listeners:
                self._run.listeners.remove(listener)

    def _check_process(self) -> None:
        if self._run.process != os.getpid():
            raise InputError("a job belongs to the process that started it, not to a forked one; watch the video again")


def cached_job(name: str, memory: Memory) -> WatchJob:
    """A job for a memory that a cache has."""
    run = Run(name, lambda _: memory, [], False, lambda _: None)
    run.memory, run.has_ended = memory, True
    run.progress = Progress(len(memory), len(memory), 0.0, 0.0)
    return WatchJob(run, from_cache=True)


def attend(job: WatchJob, on_progress: OnProgress | None = None, cancel: Stop | None = None) -> Memory:
    """Wait for a job in the caller's thread.

    Args:
        job: of this caller.
        on_progress: called in this thread at most ten times a second, and at the end; not for a memory from a cache.
        cancel: is looked at ten times a second; if it is set, the job is cancelled.

    Raises:
        Cancelled: `cancel` was set.
        HourLlavaError: as `HourLlava.watch`.
        BaseException: what `on_progress` raises, or Ctrl-C. The job is cancelled first, and its processes have ended.
    """
    if job.from_cache:
        return job.result()
    shown = NOT_BEGUN
    try:
        while not job.wait(CALL_SECONDS):
            if cancel is not None and cancel.is_set():
                job.cancel()
            if on_progress is not None and job.progress is not shown:
                shown = job.progress
                on_progress(shown)
        memory = job.result()
        if on_progress is not None:
            on_progress(job.progress)
    except BaseException:
        job.cancel()
        job.wait()
        raise
    return memory


class WatchJobs:
    """The jobs of one model. Equal ones are joined."""

    def __init__(self) -> None:
        self.renew()
        renew_after_fork(self)
        _all_jobs.add(self)

    def renew(self) -> None:
        """Forget all jobs; of a forked process, they are those of its parent."""
        self._lock = threading.Lock()
        self._joinable: dict[Hashable, Run] = {}
        self._running: set[Run] = set()

    def join(self, key: Hashable, cache: MemoryCache | None, *, keeps_running: bool) -> WatchJob | None:
        """A job that runs already; None if there is none."""
        with self._lock:
            run = self._joinable.get(key)
            return WatchJob(run) if run is not None and run.join(cache, keeps_running) else None

    def start(
        self,
        key: Hashable,
        name: str,
        work: Callable[[Run], Memory],
        cache: MemoryCache | None,
        *,
        keeps_running: bool,
    ) -> WatchJob:
        """A job that runs already, or a new one.

        Args:
            key: equal for equal jobs.
            name: of the video, for messages.
            work: see `Run`.
            cache: is to keep the memory.
            keeps_running: whether the job goes on when all callers have left.
        """
        with self._lock:
            run = self._joinable.get(key)
            if run is None or not run.join(cache, keeps_running):
                caches = [] if cache is None else [cache]
                run = Run(name, work, caches, keeps_running, lambda ended: self._forget(key, ended))
                run.num_callers = 1
                start_waited_for(run.thread)
                self._joinable[key] = run
                self._running.add(run)
            return WatchJob(run)

    def ask_to_close(self) -> list[Run]:
        """Cancel all jobs, without waiting for them; they are given."""
        with self._lock:
            runs = list(self._running)
        for run in runs:
            with run.changed:
                run.stop.set()
                run.changed.notify_all()
        return runs

    def close(self) -> None:
        """Cancel all jobs, and wait until their threads and processes are gone."""
        for run in self.ask_to_close():
            if run.thread is not threading.current_thread():
                run.thread.join()

    def _forget(self, key: Hashable, run: Run) -> None:
        with self._lock:
            if self._joinable.get(key) is run:
                del self._joinable[key]
            self._running.discard(run)


def _close_all() -> None:
    """At the end of the interpreter no thread may use the device, and no process may decode."""
    for jobs in list(_all_jobs):
        jobs.close()


_all_jobs: weakref.WeakSet[WatchJobs] = weakref.WeakSet()
atexit.register(_close_all)
