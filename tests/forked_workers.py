"""Workers of pools are forked from a server that has imported everything: 10 ms instead of the 2 s of a spawned one.

The server is that of `multiprocessing`. It starts with the first pool, and keeps the environment of that moment. That
spawned workers do the same is seen in tests/test_processes.py.
"""

import functools
import multiprocessing
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.context import BaseContext
from types import SimpleNamespace

import pytest

from hourllava import processes

_IMPORTS = [
    "hourllava.data.batches.lengths", "hourllava.data.prepare.stage", "hourllava.data.prepare.shard",
    "hourllava.world.making.make", "hourllava.world.making.pictures", "torch", "transformers", "av", "pytest",
]  # fmt: skip


@functools.cache
def _server_context() -> BaseContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_IMPORTS)
    return context


def in_forked_command(command: str) -> str:
    """The command for `forking.start_python`, whose process has no threads: its workers may be forks of itself."""
    return f"from forked_workers import fork_from_here; fork_from_here(); {command}"


def fork_from_here() -> None:
    """From now on, the workers of pools are forks of this process."""
    processes.multiprocessing = _with_context(multiprocessing.get_context("fork"))


def _with_context(context: BaseContext) -> SimpleNamespace:
    """What `hourllava.processes` uses of `multiprocessing`, with this way to start processes."""
    return SimpleNamespace(get_context=lambda _: context, parent_process=multiprocessing.parent_process)


@contextmanager
def forked_workers() -> Iterator[None]:
    """Within the block, the workers of pools are forked."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(processes, "multiprocessing", _with_context(_server_context()))
        yield
