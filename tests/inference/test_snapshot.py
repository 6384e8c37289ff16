"""Snapshots: whatever a memory does later, a snapshot stays what it was; threads read and ask while another appends."""

import contextlib
import copy
import pickle
import textwrap
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from conftest import examples
from forking import run_python
from hourllava.errors import InputError
from hourllava.inference.engine import HourLlava
from hourllava.inference.memories.memory import Memory
from hourllava.inference.memories.snapshot import MemorySnapshot, WatchedSource
from inference.memories import random_memory


def numbered(num_frames: int = 0) -> Memory:
    """A memory whose frame k holds the number k everywhere."""
    return grow(Memory(torch.zeros(0, 4, 6), [], [], fps=1, duration_seconds=0, source=WatchedSource("x")), num_frames)


def grow(memory: Memory, num_frames: int) -> Memory:
    times = np.arange(len(memory), len(memory) + num_frames)
    features = torch.from_numpy(times).float()[:, None, None].expand(-1, 4, 6)
    memory.append(features, times, times, duration_seconds=len(memory) + num_frames)
    return memory


def assert_whole(snapshot: MemorySnapshot | Memory) -> None:
    """All parts of a memory of `numbered` are of one moment."""
    numbers = np.arange(len(snapshot))
    assert torch.equal(snapshot.features, torch.from_numpy(numbers).float()[:, None, None].expand(-1, 4, 6))
    assert np.array_equal(snapshot.timestamps_seconds, numbers)
    assert np.array_equal(snapshot.sample_seconds, numbers)
    assert snapshot.duration_seconds == snapshot.num_frames == len(numbers)
    assert snapshot.num_bytes == len(numbers) * (4 * 6 * 4 + 8 + 8)


@examples(40)
@given(lengths=st.lists(st.integers(0, 9), max_size=12))
def test_a_snapshot_stays_what_it_was(lengths: list[int]) -> None:
    memory = numbered()
    snapshots = [memory.snapshot()] + [grow(memory, length).snapshot() for length in lengths]
    assert [len(snapshot) for snapshot in snapshots] == np.cumsum([0, *lengths]).tolist()
    assert [snapshot.version for snapshot in snapshots] == np.cumsum([0, *(length > 0 for length in lengths)]).tolist()
    for snapshot in snapshots:
        assert_whole(snapshot)
    assert memory.snapshot() is memory.snapshot()


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda memory: pickle.loads(pickle.dumps(memory))])
def test_a_copy_grows_on_its_own(copied: Callable[[Memory], Memory]) -> None:
    memory = grow(numbered(3), 1)  # has room for two more frames
    other = copied(memory)
    other.append(torch.full((1, 4, 6), -1.0), [9], [9])
    grow(memory, 1)
    assert_whole(memory)
    assert other.features[:, 0, 0].tolist() == [0, 1, 2, 3, -1]


def test_times_cannot_be_written_to() -> None:
    memory = numbered(3)
    for times in (memory.timestamps_seconds, memory.sample_seconds):
        with pytest.raises(ValueError, match="read-only"):
            times[0] = 7


def test_facts_about_the_video_are_published_with_the_frames() -> None:
    memory = numbered(3)
    before = memory.snapshot()
    source = WatchedSource("x", "sha256:12")
    memory.append(torch.zeros(1, 4, 6), [3], [3], gaps=[(1, 2, "damage")], source=source, player_offset_seconds=7)
    after = memory.snapshot()
    assert (after.source, after.gaps, after.player_offset_seconds) == (source, ((1.0, 2.0, "damage"),), 7.0)
    assert (before.source.digest, before.gaps, before.player_offset_seconds) == (None, (), 0.0)
    memory.append(torch.zeros(0, 4, 6), [], [], source=source)
    assert memory.version == after.version
    memory.append(torch.zeros(0, 4, 6), [], [], source=WatchedSource("x"))  # another seed of forgetting
    assert memory.version == after.version + 1


@pytest.mark.parametrize("first", [True, False])
def test_frames_are_appended_inside_and_outside_of_inference_mode(first: bool) -> None:
    memory = numbered()
    for step in range(6):
        with torch.inference_mode(first == (step % 2 == 0)):
            grow(memory, 1)
    assert_whole(memory)


def while_growing(memory: Memory, num_frames: int, read: Callable[[], None], num_readers: int = 2) -> None:
    """Call `read` again and again in threads while frames are appended one at a time in this thread."""
    ended, errors = threading.Event(), []

    def read_on() -> None:
        try:
            while not ended.is_set():
                read()
        except BaseException as error:
            errors.append(error)
            raise

    readers = [threading.Thread(target=read_on) for _ in range(num_readers)]
    for reader in readers:
        reader.start()
    try:
        for _ in range(num_frames):
            grow(memory, 1)
    finally:
        ended.set()
        for reader in readers:
            reader.join()
    assert not errors


def test_threads_read_a_memory_that_grows() -> None:
    memory = numbered()
    while_growing(memory, 600, lambda: assert_whole(memory.snapshot()))
    assert_whole(memory)


def test_a_memory_that_grows_is_saved_as_it_was_at_one_moment(tmp_path: Path) -> None:
    memory = numbered()

    def save() -> None:
        path = tmp_path / str(threading.get_ident())
        memory.save(path)
        assert_whole(Memory.load(path))

    while_growing(memory, 300, save)


def test_two_threads_append_to_one_memory() -> None:
    """Frames that come too late are refused, and no frame is mixed with another."""
    memory = numbered()

    def append_numbers() -> None:
        for number in range(200):
            with contextlib.suppress(InputError):
                memory.append(torch.full((1, 4, 6), float(number)), [number], [number])

    threads = [threading.Thread(target=append_numbers) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert memory.sample_seconds[-1] == 199
    assert np.array_equal(memory.features[:, 0, 0].numpy(), memory.sample_seconds)


def test_a_memory_that_grows_is_asked(engine: HourLlava) -> None:
    """Every answer is that about one of the memory's lengths."""
    whole = random_memory(engine, 24)
    features, times = whole.features, whole.timestamps_seconds

    def ask(memory: Memory) -> tuple[str, int]:
        answer = engine.ask(memory, "What happens?", max_new_tokens=3)
        return answer.text, answer.num_prompt_tokens

    def part(num_frames: int) -> Memory:
        return Memory(
            features[:num_frames], times[:num_frames], times[:num_frames],
            fps=1, duration_seconds=num_frames, source=whole.source, encoder=whole.encoder,
        )  # fmt: skip

    expected = {ask(part(length)) for length in range(8, 25)}
    memory, answers = part(8), []
    asking = threading.Thread(target=lambda: answers.extend(ask(memory) for _ in range(12)))
    asking.start()
    for n in range(8, 24):
        memory.append(features[n : n + 1], times[n : n + 1], times[n : n + 1], duration_seconds=n + 1)
        threading.Event().wait(0.01)
    asking.join()
    assert len(answers) == 12
    assert set(answers) <= expected


FORK_WHILE_APPENDING = """
    import os, threading, torch
    from hourllava.inference.memories import memory as module
    from hourllava.inference.memories.memory import Memory
    from hourllava.inference.memories.snapshot import WatchedSource
    memory = Memory(torch.zeros(1, 4, 6), [0], [0], fps=1, duration_seconds=1, source=WatchedSource("x"))
    holds = threading.Event()
    def hold():
        with module._appending:
            holds.set()
            threading.Event().wait(20)
    threading.Thread(target=hold, daemon=True).start()
    holds.wait()
    child = os.fork()
    if child == 0:
        memory.append(torch.zeros(1, 4, 6), [1], [1])
        os._exit(len(memory))
    raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def test_a_forked_process_appends_though_a_thread_of_its_parent_did() -> None:
    assert run_python(textwrap.dedent(FORK_WHILE_APPENDING), timeout=15).returncode == 2
