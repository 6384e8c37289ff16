"""Files and folders that are either complete or absent, also after a power cut."""

import errno
import glob
import os
import secrets
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

TEMPORARY_SUFFIX = ".tmp"
_CANNOT_FLUSH = frozenset({errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EBADF})  # some network file systems


@contextmanager
def replacing(path: Path, *, durable: bool = True) -> Iterator[Path]:
    """Yield a temporary path beside `path`. If the block succeeds, rename it to `path`; if it fails, remove it.

    Every call draws a temporary name of its own, so two processes, on one machine or two, may make the same file.

    Args:
        path: the file to make or to replace.
        durable: wait until file and name are on the disk. If False, a power cut may leave an empty file: for thousands
            of small files that the next run makes again.
    """
    temporary = path.with_name(f"{path.name}.{os.getpid()}-{secrets.token_hex(4)}{TEMPORARY_SUFFIX}")
    try:
        yield temporary
        if durable:
            flush_to_disk(temporary)
        temporary.replace(path)
        if durable:
            flush_to_disk(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def replacing_folder(path: Path) -> Iterator[Path]:
    """Yield an empty folder beside `path`; rename it to `path` when the block ends well, remove it when it does not.

    The name is always `.NAME.partial`, so that all processes of a run can write into it, and the next run removes what
    a killed one left. One process at a time may call this for a path. A folder that lies at `path` is set aside for
    the rename and removed after it: a kill may leave no folder there until the next call, but never half of one.
    """
    partial, old = (path.with_name(f".{path.name}.{state}") for state in ("partial", "old"))
    _bring_back(old, path)
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        yield partial
        for written in (*partial.rglob("*"), partial):
            flush_to_disk(written)
        if path.exists():
            path.rename(old)
        partial.rename(path)
        flush_to_disk(path.parent)
    finally:
        _bring_back(old, path)
        shutil.rmtree(partial, ignore_errors=True)


def _bring_back(old: Path, path: Path) -> None:
    """Move a folder that was set aside to its place again, or remove it if a new one lies there."""
    if path.exists():
        shutil.rmtree(old, ignore_errors=True)
    elif old.exists():
        old.rename(path)


def flush_to_disk(path: Path) -> None:
    """Wait until the bytes of a file, or the names in a folder, are on the disk, if the file system can do so."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _CANNOT_FLUSH:
            raise
    finally:
        os.close(descriptor)


def cut_unfinished_line(path: Path) -> None:
    """Remove a half-written last line of a file to which lines are appended, left by a killed run."""
    if path.exists():
        num_whole = path.read_bytes().rfind(b"\n") + 1
        with path.open("r+b") as file:
            file.truncate(num_whole)


def remove_leftovers(folder: Path, names: Iterable[str]) -> None:
    """Remove the temporary files that killed processes left of these files. Hold a lock, so that none is in use."""
    for name in names:
        for leftover in folder.glob(f"{glob.escape(name)}.*{TEMPORARY_SUFFIX}"):
            leftover.unlink(missing_ok=True)
