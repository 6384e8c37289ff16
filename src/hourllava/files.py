"""Files that are either complete or absent, also after a power cut."""

import errno
import glob
import os
import secrets
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


def remove_leftovers(folder: Path, names: Iterable[str]) -> None:
    """Remove the temporary files that killed processes left of these files. Hold a lock, so that none is in use."""
    for name in names:
        for leftover in folder.glob(f"{glob.escape(name)}.*{TEMPORARY_SUFFIX}"):
            leftover.unlink(missing_ok=True)
