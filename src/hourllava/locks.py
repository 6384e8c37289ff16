"""Locks between processes, for folders that only one run at a time may write.

A lock is a file that exists while the lock is held, with an flock on it. The kernel releases the flock when the holder
ends, for whatever reason. Some file systems have no flock (Lustre without `-o flock`, NFS without lockd, some FUSE).
There the file alone is the lock: the process that creates it is the holder. The file names its holder. If the holder
was a process of this machine and has ended, the lock is taken over. A process cannot know whether a process of another
machine has ended, so the error asks the user to check that, and to remove the file.
"""

import fcntl
import logging
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

from hourllava.errors import DataError

LOCK_NAME = ".lock"
WAIT_SECONDS = 5.0  # the processes of a killed run may hold a lock a little longer
_POLL_SECONDS = 0.05
_TAKEOVER_SUFFIX = ".takeover"
_START_FIELD = 19  # of /proc/PID/stat after the name: start of the process, in ticks since the machine started

_log = logging.getLogger(__name__)


@contextmanager
def lock_folder(folder: Path, name: str = LOCK_NAME, *, wait_seconds: float | None = None) -> Iterator[None]:
    """Lock a folder, or the part of it that `name` stands for, against other processes and threads.

    Args:
        folder: must exist and be writable.
        name: name of the lock's file.
        wait_seconds: how long to wait for another holder; None: `WAIT_SECONDS`.

    Raises:
        DataError: another process holds it.
        OSError: the folder cannot be written to.
    """
    path = folder / name
    deadline = time.monotonic() + (WAIT_SECONDS if wait_seconds is None else wait_seconds)
    while (descriptor := _try_lock(path)) is None:
        if time.monotonic() >= deadline:
            raise DataError(f"{folder} is being written by another process{_holder(path)}; wait for it to end")
        time.sleep(_POLL_SECONDS)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)  # before the flock ends: the next holder checks that the file is still there
        os.close(descriptor)


def try_flock(descriptor: int, operation: int) -> bool | None:
    """Try to lock a file: whether it succeeded; None if the file system has no flock."""
    try:
        fcntl.flock(descriptor, operation | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def _try_lock(path: Path) -> int | None:
    """Try to take a lock: the descriptor that holds it, or None if another process has it."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
        is_new = True
    except FileExistsError:
        try:
            descriptor = os.open(path, os.O_RDWR)
        except FileNotFoundError:
            return None
        is_new = False
    locked = try_flock(descriptor, fcntl.LOCK_EX)
    if locked is None:
        _warn_once(path.parent)
        locked = is_new
        if not is_new:
            _take_over(path)
    elif locked:
        locked = _is_at(descriptor, path)  # the last holder may have removed it meanwhile
    if not locked:
        os.close(descriptor)
        return None
    with suppress(OSError):  # a full disk: the lock holds without a name too
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, " ".join((*_machine(), str(os.getpid()), _start(os.getpid()))).encode(), 0)
    return descriptor


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _take_over(path: Path) -> None:
    """Remove a lock without flock if its holder was a process of this machine and has ended."""
    if not _has_ended(path):
        return
    guard = path.with_name(path.name + _TAKEOVER_SUFFIX)
    try:
        os.close(os.open(guard, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return  # another process is doing the same
    try:
        if _has_ended(path):  # still true: no other process has taken it over, and none can while the guard exists
            path.unlink(missing_ok=True)
    finally:
        guard.unlink(missing_ok=True)


def _has_ended(path: Path) -> bool:
    holder = _read_holder(path)
    return holder is not None and holder[0] == _machine() and _start(holder[1]) != holder[2]


def _read_holder(path: Path) -> tuple[tuple[str, str, str], int, str] | None:
    """(machine, process id, start of the process) of the holder named in a lock's file; None if none is named."""
    with suppress(OSError, ValueError):
        host, boot, space, pid, start = path.read_text(encoding="utf-8").split(" ")
        return (host, boot, space), int(pid), start
    return None


def _holder(path: Path) -> str:
    holder = _read_holder(path)
    who = f" ({holder[1]} on {holder[0][0]})" if holder else ""
    if not _without_flock:
        return who
    return f"{who}; this file system cannot lock: if that process has ended, remove {path}"


@cache
def _machine() -> tuple[str, str, str]:
    """Name of the machine, id of its start, and name space of its process ids (containers have their own)."""
    boot = space = "-"
    with suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        space = str(Path("/proc/self/ns/pid").readlink())
    return socket.gethostname().replace(" ", "-") or "-", boot, space


def _start(pid: int) -> str:
    """When a process began; "gone" if there is none, "-" if that cannot be known."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return "gone"
    except OSError:
        pass  # another user's
    with suppress(OSError, IndexError):
        status = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        return status.rpartition(")")[2].split()[_START_FIELD]
    return "-"


_without_flock = False  # whether this process has met a file system without flock


def _warn_once(folder: Path) -> None:
    global _without_flock
    if not _without_flock:
        _log.warning("the file system of %s cannot lock: a file %s says which process writes there", folder, LOCK_NAME)
    _without_flock = True
