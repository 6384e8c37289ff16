"""Which processes run, as /proc says."""

import contextlib
import os
import time
from collections.abc import Iterable
from pathlib import Path


def children_of(process: int) -> list[int]:
    """Process ids of the children that a process has now."""
    children: list[int] = []
    for task in Path(f"/proc/{process}/task").iterdir():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # the thread has ended meanwhile
            children += map(int, (task / "children").read_text().split())
    return children


def is_left(process: int) -> bool:
    """Whether a process runs, or has ended as a child of this one, which has not asked for its exit code.

    One that has ended as an orphan is not left, even if the first process of the machine asks seconds later.
    """
    try:
        state, parent = Path(f"/proc/{process}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[:2]
    except OSError:  # also ProcessLookupError, if it goes while its file is read
        return False
    return state != "Z" or int(parent) == os.getpid()


def wait_until_gone(processes: Iterable[int], seconds: float = 20) -> None:
    """Wait until none of them is left."""
    deadline = time.monotonic() + seconds
    while left := [process for process in processes if is_left(process)]:
        assert time.monotonic() < deadline, f"left behind: {left}"
        time.sleep(0.01)
