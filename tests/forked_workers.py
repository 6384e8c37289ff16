"""Workers of pools without the 2 s in which a spawned one imports what it needs; tests/test_processes.py has those."""

import multiprocessing
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace

import pytest

from hourllava import processes
from hourllava.data.prepare import shard


@contextmanager
def sharding_here() -> Iterator[None]:
    """Within the block, the jobs of all workers that write shards are done in this process, one after the other."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shard, "worker_pool", lambda _, *shared: processes.worker_pool(1, *shared))
        yield


def in_forked_command(command: str) -> str:
    """The command for `forking.start_python`, whose process has no threads: its workers may be forks of itself."""
    return f"from forked_workers import fork_from_here; fork_from_here(); {command}"


def fork_from_here() -> None:
    """From now on, the workers of pools are forks of this process."""
    processes.multiprocessing = SimpleNamespace(
        get_context=lambda _: multiprocessing.get_context("fork"), parent_process=multiprocessing.parent_process
    )
