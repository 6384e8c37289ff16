"""Making many files: a folder that knows its settings, worker processes, results in order with progress."""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError
from tqdm import tqdm

from hourllava import processes
from hourllava.errors import ConfigError
from hourllava.files import TEMPORARY_SUFFIX, replacing
from hourllava.locks import LOCK_NAME, lock_folder
from hourllava.processes import WorkerPool, worker_pool

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


def workers(num_processes: int) -> AbstractContextManager[WorkerPool]:
    """A pool of processes. With 1, everything happens in this process.

    Raises:
        ConfigError: `num_processes` is below 1 or above 256.
    """
    if not 1 <= num_processes <= 256:
        raise ConfigError(f"--processes is {num_processes}; use 1 to 256")
    return worker_pool(num_processes)


def run_jobs(
    work: Callable[[Job], Result],
    jobs: Sequence[Job],
    pool: WorkerPool,
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
        for result in processes.run_jobs(work, jobs, pool, jobs_per_call=jobs_per_call):
            progress.update(1)
            yield result
