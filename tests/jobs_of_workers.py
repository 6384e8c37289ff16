"""Jobs that worker processes can import."""

import os
import signal
import time
from pathlib import Path

from hourllava.processes import report_progress


def square(job: int, *shared: int) -> tuple[int, int]:
    """The result, and the process that made it."""
    report_progress(job)
    return job * job + sum(shared), os.getpid()


def fail_at_three(job: int) -> int:
    if job == 3:
        raise ValueError("three")
    return job


def wait_for_file(job: str | None, made: Path) -> str | None:
    """Make a file, or, without a job, wait until there is one."""
    if job is None:
        while not made.exists():
            time.sleep(0.01)
        time.sleep(0.1)  # the other result is on its way
    else:
        made.touch()
    return job


def be_killed(job: int) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def wait_for_ever(folder: Path) -> None:
    """Note which process this is, and stay."""
    (folder / str(os.getpid())).touch()
    time.sleep(600)
