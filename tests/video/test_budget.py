"""Readers that share a number of processes: all get some, none waits, and the frames stay the same."""

import gc
import os
import textwrap
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forking import run_python
from hourllava.errors import Cancelled, ConfigError
from hourllava.video import probe, read_frames
from hourllava.video.budget import MAX_PROCESSES, ProcessBudget
from video.clips import number_of

NUM_FRAMES = 960  # in 16 segments: more than four processes have at once
STEP = 8  # every eighth frame is looked at
SHARES = st.lists(st.tuples(st.integers(1, 20), st.integers(0, 40)), min_size=1, max_size=8)


def long_clip(shared_clip: Callable[..., Path]) -> Path:
    return shared_clip("mp4", NUM_FRAMES, 1, options={"g": "10"})


@given(total=st.integers(1, 20), shares=SHARES)
def test_readers_adapt_to_a_fair_share(total: int, shares: list[tuple[int, int]]) -> None:
    """Each reader joins while the others hold what they got; then all adapt, in turn."""
    budget, readers = ProcessBudget(total), []
    for wanted, num_tries in shares:
        readers.append(budget.join())
        readers[-1].wanted = wanted
        for _ in range(num_tries):
            readers[-1].take()
        assert sum(reader.held for reader in readers) <= total + len(readers)
    for _ in range(2):
        for reader in readers:
            for _ in range(reader.num_excess):
                reader.give_back()
            while reader.take():
                pass
    held = [reader.held for reader in readers]
    assert all(1 <= reader.held <= max(1, reader.wanted) for reader in readers)
    assert sum(held) == max(len(readers), min(total, sum(reader.wanted for reader in readers)))
    hungry = [reader.held for reader in readers if reader.held < reader.wanted]
    assert not hungry or max(held) - min(hungry) <= 1
    for reader in readers[1:]:
        reader.leave()
    while readers[0].take():
        pass
    assert readers[0].held == min(total, readers[0].wanted)


def test_the_default_is_a_process_for_each_core() -> None:
    assert 1 <= ProcessBudget().num_processes <= MAX_PROCESSES
    with pytest.raises(ConfigError, match="a budget of 0"):
        ProcessBudget(0)


def test_two_readers_share_the_processes(shared_clip) -> None:
    """The first has all four, gives half of them to the second, and the second gets them all in the end."""
    clip, budget = long_clip(shared_clip), ProcessBudget(4)
    numbers, counts = {"a": [], "b": []}, []
    with read_frames(clip, budget=budget) as a:
        assert a.num_processes == 4
        with read_frames(clip, budget=budget) as b:
            assert (a.num_processes, b.num_processes) == (4, 1)
            for first, second in zip(a, b):
                numbers["a"] += map(number_of, first.frames[::STEP])
                numbers["b"] += map(number_of, second.frames[::STEP])
                counts.append((a.num_processes, b.num_processes))
            assert (2, 2) in counts
            assert max(map(sum, counts)) <= 5
    assert numbers == {"a": list(range(0, NUM_FRAMES, STEP)), "b": list(range(0, NUM_FRAMES, STEP))}


def test_a_reader_gets_the_processes_of_one_that_ends(shared_clip) -> None:
    clip, budget = long_clip(shared_clip), ProcessBudget(4)
    first = read_frames(clip, budget=budget)
    with read_frames(clip, budget=budget) as second:
        numbers = [number_of(frame) for frame in next(second).frames[::STEP]]
        first.close()
        counts = []
        for batch in second:
            numbers += map(number_of, batch.frames[::STEP])
            counts.append(second.num_processes)
    assert max(counts) == 4
    assert numbers == list(range(0, NUM_FRAMES, STEP))


def test_a_reader_that_is_dropped_leaves(shared_clip) -> None:
    clip, budget = long_clip(shared_clip), ProcessBudget(4)
    read_frames(clip, budget=budget)
    gc.collect()
    with read_frames(clip, budget=budget, num_processes=3) as reader:
        assert reader.num_processes == 3


FORK = """
    import os, threading
    from hourllava.video.budget import ProcessBudget
    budget = ProcessBudget(3)
    budget.join().wanted = 3
    holds = threading.Event()
    def hold():
        with budget._lock:
            holds.set()
            threading.Event().wait(20)
    threading.Thread(target=hold, daemon=True).start()
    holds.wait()
    child = os.fork()
    if child == 0:
        reader = budget.join()
        reader.wanted = 9
        while reader.take():
            pass
        os._exit(reader.held)
    raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def test_a_forked_process_has_the_budget_for_itself() -> None:
    assert run_python(textwrap.dedent(FORK), timeout=15).returncode == 3


# ------------------------------------------------------------------------------------------------ stopping


def test_a_reader_that_waits_for_frames_is_stopped(tmp_path) -> None:
    """A pipe without a writer: opening it would take for ever."""

    pipe, stop = tmp_path / "silent", threading.Event()
    os.mkfifo(pipe)
    timer = threading.Timer(0.3, stop.set)
    timer.start()
    with pytest.raises(Cancelled, match=r"reading .*silent was cancelled"):  # the watchdog would say something else
        read_frames(pipe, stop=stop)
    timer.join()


def test_a_reader_is_stopped_between_frames(shared_clip) -> None:
    stop = threading.Event()
    with read_frames(long_clip(shared_clip), stop=stop) as reader:
        next(reader)
        stop.set()
        with pytest.raises(Cancelled):
            next(reader)
        assert reader.num_processes == 0
    with pytest.raises(Cancelled):
        read_frames(long_clip(shared_clip), stop=stop)
    assert probe(long_clip(shared_clip)).duration_seconds == NUM_FRAMES
