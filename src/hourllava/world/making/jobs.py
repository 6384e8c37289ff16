"""Making many files: a folder that knows its settings, worker processes, results in order with progress."""

import multiprocessing
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError
from tqdm import tqdm

from hourllava.errors import ConfigError
from hourllava.files import TEMPORARY_SUFFIX, replacing
from hourllava.locks import LOCK_NAME, lock_folder
from hourllava.processes import end_with_parent

CALLS_AHEAD = 256  # given to the workers at a time, so that few results wait in memory
Job = TypeVar("Job")
Result = TypeVar("Result")


@contextmanager
def run_folder(out: Path, settings_name: str, settings: BaseModel, folders: Sequence[Path]) -> Iterator[None]:
    """Hold `out` for a run: made, or found as a run with the same settings left it; no other run may be in it.

    Raises:
        ConfigError: as `prepare_folder`.
        DataError: another run is in it.
    """
    with ExitStack() as held:
        try:
            out.mkdir(parents=True, exist_ok=True)
            held.enter_context(lock_folder(out))
        except OSError as error:
            raise _unwritable(out, error) from error
        prepare_folder(out, settings_name, settings, folders)
        yield


def prepare_folder(out: Path, settings_name: str, settings: BaseModel, folders: Sequence[Path]) -> None:
    """Make `out` and its folders, or find them as a run with the same settings left them. A run uses `run_folder`.

    Raises:
        ConfigError: `out` cannot be written, holds something else or another run's files.
    """
    path = out / settings_name
    wanted = settings.model_dump_json(indent=1) + "\n"
    try:
        out.mkdir(parents=True, exist_ok=True)
        if path.exists():
            if not _are_same(settings, path.read_bytes()):
                raise ConfigError(f"{out} holds a run with other settings ({path.name}); use another folder")
        elif any(not entry.name.startswith((settings_name, LOCK_NAME)) for entry in out.iterdir()):
            raise ConfigError(f"{out} is not empty and holds no run to continue; use a new or empty folder")
        for folder in folders:
            folder.mkdir(parents=True, exist_ok=True)
        for leftover in out.rglob(f"*{TEMPORARY_SUFFIX}"):
            leftover.unlink(missing_ok=True)
        with replacing(path) as temporary:
            temporary.write_text(wanted, encoding="utf-8")
    except OSError as error:
        raise _unwritable(out, error) from error


def _unwritable(out: Path, error: OSError) -> ConfigError:
    return ConfigError(f"{out} cannot be written: {error.strerror}; use a folder you may write to")


def _are_same(settings: BaseModel, written: bytes) -> bool:
    """Whether a file holds these settings; fields that came after it was written must be as they are by default."""
    try:
        return type(settings).model_validate_json(written) == settings
    except ValidationError:
        return False


@contextmanager
def workers(processes: int) -> Iterator[Executor | None]:
    """A pool of processes, or None for one: then everything happens in this one.

    Raises:
        ConfigError: `processes` is below 1 or above 256.
    """
    if not 1 <= processes <= 256:
        raise ConfigError(f"--processes is {processes}; use 1 to 256")
    if processes == 1:
        yield None
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=context, initializer=end_with_parent) as pool:
        try:
            yield pool
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def run_jobs(
    work: Callable[[Job], Result],
    jobs: Sequence[Job],
    pool: Executor | None,
    unit: str,
    *,
    jobs_per_call: int = 1,
    num_done: int = 0,
) -> Iterator[Result]:
    """The results of the jobs in order, with progress.

    Args:
        work: a module's function.
        jobs: what is to be done.
        pool: from `workers`.
        unit: of the progress bar.
        jobs_per_call: sent to a worker together; more where a job takes milliseconds.
        num_done: jobs done before.
    """
    with tqdm(total=num_done + len(jobs), initial=num_done, unit=unit, file=sys.stderr) as progress:
        jobs_ahead = CALLS_AHEAD * jobs_per_call
        for start in range(0, len(jobs), jobs_ahead):
            some = jobs[start : start + jobs_ahead]
            for result in pool.map(work, some, chunksize=jobs_per_call) if pool else map(work, some):
                progress.update(1)
                yield result
