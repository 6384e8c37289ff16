"""Cores, and worker processes: a pool that runs jobs with progress, whose workers do not outlive their parent.

Workers are spawned, not forked: a fork of a process with threads (PyTorch, decoders) may hang.
"""

import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Any, TypeVar

from hourllava.errors import DataError

CALLS_AHEAD = 256  # given to the workers at a time, so that few results wait in memory
_REFRESH_SECONDS = 0.2

Job = TypeVar("Job")
Result = TypeVar("Result")


def usable_cores() -> int:
    """How many cores this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1  # noqa: TID251


@dataclass(frozen=True)
class WorkerPool:
    """Processes for `run_jobs`; from `worker_pool`."""

    shared: tuple[Any, ...]
    executor: ProcessPoolExecutor | None  # None: jobs run in this process
    counter: Any  # a shared int: what the jobs of all workers have reported


@contextmanager
def worker_pool(num_processes: int, *shared: Any) -> Iterator[WorkerPool]:
    """A pool of processes. With 1, jobs run in this process.

    Args:
        num_processes: from 1 on.
        shared: given to each process once, and to each job behind the job itself.
    """
    if num_processes == 1:
        yield WorkerPool(shared, None, None)
        return
    context = multiprocessing.get_context("spawn")
    counter = context.Value("q", 0)
    with ProcessPoolExecutor(num_processes, context, _start_worker, (counter, shared)) as executor:
        try:
            yield WorkerPool(shared, executor, counter)
        except BaseException:
            executor.shutdown(cancel_futures=True)
            raise


def run_jobs(
    work: Callable[..., Result],
    jobs: Sequence[Job],
    pool: WorkerPool,
    *,
    in_order: bool = True,
    jobs_per_call: int = 1,
    on_progress: Callable[[int], object] | None = None,
) -> Iterator[Result]:
    """The results of the jobs.

    Args:
        work: a module's function; called with a job and what the pool's workers share.
        jobs: what is to be done.
        pool: from `worker_pool`.
        in_order: give results in the order of the jobs; otherwise as soon as they are there.
        jobs_per_call: jobs sent to a worker together; more where a job takes milliseconds.
        on_progress: called with the numbers that jobs give to `report_progress`, summed over some time.

    Raises:
        DataError: a worker was killed.
    """
    if pool.executor is None:
        for job in jobs:
            yield _run_here(work, job, pool.shared, on_progress)
        return
    starts = iter(range(0, len(jobs), jobs_per_call))
    running: dict[Future[list[Result]], int] = {}
    finished: dict[int, list[Result]] = {}
    next_start, num_reported = 0, pool.counter.value
    try:
        while True:
            for start in islice(starts, CALLS_AHEAD - len(running) - len(finished)):
                running[pool.executor.submit(_run_call, work, jobs[start : start + jobs_per_call])] = start
            if not running:
                return
            ended, _ = wait(running, _REFRESH_SECONDS if on_progress else None, FIRST_COMPLETED)
            finished |= {running.pop(future): future.result() for future in ended}
            if on_progress:
                on_progress(pool.counter.value - num_reported)
                num_reported = pool.counter.value
            while finished and (next_start in finished or not in_order):
                start = next_start if in_order else min(finished)
                yield from finished.pop(start)
                next_start = start + jobs_per_call
    except BrokenProcessPool as error:
        raise DataError("a worker process was killed, perhaps for memory; run again, what is done is kept") from error
    finally:
        for future in running:
            future.cancel()


def report_progress(count: int) -> None:
    """Tell that a job has done `count` more of its units; for jobs that take long."""
    _report(count)


def _ignore(count: int) -> None:
    """What becomes of a report outside a job."""


_report: Callable[[int], object] = _ignore
_shared: tuple[Any, ...] = ()  # of a worker


def _run_here(
    work: Callable[..., Result], job: Job, shared: tuple[Any, ...], on_progress: Callable[[int], object] | None
) -> Result:
    global _report
    before, _report = _report, on_progress or _ignore
    try:
        return work(job, *shared)
    finally:
        _report = before


def _start_worker(counter: Any, shared: tuple[Any, ...]) -> None:
    global _report, _shared

    def report(count: int) -> None:
        with counter.get_lock():
            counter.value += count

    _report, _shared = report, shared
    end_with_parent()


def _run_call(work: Callable[..., Result], jobs: Sequence[Job]) -> list[Result]:
    return [work(job, *_shared) for job in jobs]


def end_with_parent() -> None:
    """End this worker when its parent is killed: it would wait for work for ever, or write where the next run does."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
