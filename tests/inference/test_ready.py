"""Ready memories: growing ones equal new ones, earlier states stay, and the least recently asked make room."""

import functools
import gc
import itertools
import logging
import weakref

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from conftest import examples, tiny_config, tiny_model
from hourllava.inference.engine import HourLlava
from hourllava.inference.memories import ready as ready_module
from hourllava.inference.memories.key_values import KeyValueRoom
from hourllava.inference.memories.memory import Memory
from hourllava.inference.memories.ready import ReadyMemories, extended, make_ready
from hourllava.model.config import ForgettingConfig
from hourllava.model.memaug import MemoryKeysValues
from hourllava.model.processor import HourLlavaProcessor
from inference.memories import random_memory


def grow(memory, num_frames, seed=0):
    """Append frames at 1 FPS."""
    generator = torch.Generator().manual_seed(1000 + seed)
    times = len(memory) + np.arange(float(num_frames))
    features = torch.randn(num_frames, 16, 24, generator=generator).bfloat16()
    memory.append(features, times, times, duration_seconds=float(len(memory) + num_frames))


def assert_same(ours, other):
    np.testing.assert_array_equal(ours.layout.memory_index, other.layout.memory_index)
    np.testing.assert_array_equal(ours.layout.kept_index, other.layout.kept_index)
    torch.testing.assert_close(ours.kept_tokens, other.kept_tokens, atol=1e-6, rtol=1e-5)
    for block, wanted in zip(ours.keys_values, other.keys_values, strict=True):
        for role in ("keys", "values"):
            tensors = (torch.cat(list(getattr(one, role))) for one in (block, wanted))
            torch.testing.assert_close(*tensors, atol=1e-6, rtol=1e-5)
    if other.frame_descriptors_TD is None:
        assert ours.frame_descriptors_TD is None
    else:
        np.testing.assert_allclose(ours.frame_descriptors_TD, other.frame_descriptors_TD, atol=1e-6)


@pytest.fixture(scope="module")
def engines(tokenizer):
    """By the way of temporal forgetting."""

    def engine(temporal):
        config = tiny_config(forgetting=ForgettingConfig(temporal=temporal))
        return HourLlava(tiny_model(config).float(), HourLlavaProcessor(tokenizer, config))

    return {temporal: engine(temporal) for temporal in ("uniform", "random", "keyframe", "question")}


# ------------------------------------------------------------------------------------------ growing


@pytest.mark.parametrize("fits", [True, False])
@pytest.mark.parametrize("entries", [2**18, 100])
@pytest.mark.parametrize("temporal", ["uniform", "random", "keyframe", "question"])
def test_a_grown_memory_is_that_made_anew(engines, temporal, entries, fits, monkeypatch):
    """On the device and on the host, projected at once and in chunks, from fewer frames than a memory must have."""
    monkeypatch.setattr(ready_module, "ENTRIES_PER_CHUNK", entries)
    monkeypatch.setattr(ready_module, "fits_on_device", lambda *args: fits)
    engine = engines[temporal]
    model, memory = engine.model.model, random_memory(engine, 5)
    state = make_ready(memory.snapshot(), model)
    for seed, num_frames in enumerate((2, 1, 30, 1, 0, 25)):
        grow(memory, num_frames, seed)
        state = extended(state, memory.snapshot(), model)
        whole = make_ready(memory.snapshot(), model)
        assert_same(state, whole)
        assert np.array_equal(state.frame_of_entry, whole.frame_of_entry)
        assert state.is_on_host is not fits


def test_a_memory_that_no_longer_fits_moves_to_the_host(engine, monkeypatch, caplog):
    monkeypatch.setattr(ready_module, "ENTRIES_PER_CHUNK", 100)
    model, memory = engine.model.model, random_memory(engine)
    state = earlier = make_ready(memory.snapshot(), model)
    limit = ready_module.num_key_value_bytes(70 * 17, model)
    monkeypatch.setattr(ready_module, "fits_on_device", lambda num_bytes, device: num_bytes <= limit)
    grow(memory, 20)
    state = extended(state, memory.snapshot(), model)  # 80 frames do not fit, but these 60
    assert not state.is_on_host
    assert state.room.capacity == 60 * 17
    grow(memory, 20, seed=1)
    with caplog.at_level(logging.INFO):
        state = extended(state, memory.snapshot(), model)
    assert "stay on the host" in caplog.text
    assert state.is_on_host
    assert not earlier.is_on_host
    assert_same(state, make_ready(memory.snapshot(), model))


@examples(25)
@given(steps=st.lists(st.integers(0, 12), min_size=1, max_size=8), chunk=st.sampled_from([None, 1, 7, 1000]))
def test_earlier_views_of_a_room_stay_as_they_were(steps, chunk):
    """Whatever is added, and on whatever buffers it lands."""
    room, views, total = KeyValueRoom(chunk), [], 0
    everything = torch.randn(2, 2, sum(steps), 2, 4, generator=torch.Generator().manual_seed(0))
    for step in steps:
        part = everything[:, :, total : total + step]
        room.append([MemoryKeysValues([key], [value]) for key, value in part])
        total += step
        views.append((total, room.first(total)))
    for num_entries, blocks in [*views, *((n, room.first(n)) for n in range(total + 1))]:
        for (key, value), block in zip(everything, blocks, strict=True):
            assert block.num_entries == num_entries
            assert torch.equal(torch.cat([*block.keys, key[:0]]), key[:num_entries])
            assert torch.equal(torch.cat([*block.values, value[:0]]), value[:num_entries])


def test_growing_projects_new_frames_and_kept_tokens_only(engine, monkeypatch):
    model, memory = engine.model.model, random_memory(engine, 200)
    state = make_ready(memory.snapshot(), model)
    rows = []
    project = model.multi_modal_projector.forward
    monkeypatch.setattr(model.multi_modal_projector, "forward", lambda x: rows.append(x.shape[0]) or project(x))
    grow(memory, 3)
    state = extended(state, memory.snapshot(), model)
    assert rows[0] == 3 * 16
    assert sum(rows) <= 3 * 16 + len(state.kept_tokens)


def test_many_small_steps_copy_the_memory_few_times(engine):
    model, memory = engine.model.model, random_memory(engine, 10)
    state = make_ready(memory.snapshot(), model)
    places = []
    for step in range(150):
        grow(memory, 1, step)
        state = extended(state, memory.snapshot(), model)
        places.append(state.keys_values[0].keys[0].data_ptr())
        assert state.room.num_bytes <= 2 * ready_module.num_key_value_bytes(17 * len(memory), model)
    assert sum(a != b for a, b in itertools.pairwise(places)) <= 4  # 20, 40, 80, 160 frames
    assert_same(state, make_ready(memory.snapshot(), model))


def test_earlier_states_answer_as_before(engine):
    """A reader of an older state goes on, also after the memory has moved to a larger buffer."""
    model, memory = engine.model.model, random_memory(engine)
    states, snapshots = [make_ready(memory.snapshot(), model)], [memory.snapshot()]
    for seed in range(5):
        grow(memory, 20, seed)
        snapshots.append(memory.snapshot())
        states.append(extended(states[-1], snapshots[-1], model))
    for state, snapshot in zip(states, snapshots, strict=True):
        assert_same(state, make_ready(snapshot, model))
        assert_same(extended(states[-1], snapshot, model), make_ready(snapshot, model))  # back to it


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_a_thinned_memory_is_made_anew(engine, share):
    model, memory = engine.model.model, random_memory(engine)
    thin = make_ready(memory.snapshot(), model, share)
    grow(memory, 20)
    assert_same(extended(thin, memory.snapshot(), model), make_ready(memory.snapshot(), model, share))


@pytest.mark.parametrize("temporal", ["uniform", "question"])
def test_answers_about_a_growing_memory_are_those_about_one_watched_at_once(engines, temporal):
    engine, memory = engines[temporal], random_memory(engines[temporal], 30)
    for seed in range(4):
        names = ("fps", "duration_seconds", "source", "encoder")
        fields = {name: getattr(memory, name) for name in names}
        whole = Memory(memory.features.clone(), memory.timestamps_seconds, memory.sample_seconds, **fields)
        ours, other = (engine.ask(one, "What happens?", max_new_tokens=6) for one in (memory, whole))
        assert ours.text == other.text
        starts = [[span.start_seconds for span in answer.evidence] for answer in (ours, other)]
        assert starts[0] == starts[1]
        grow(memory, 9, seed)


# ------------------------------------------------------------------------------------------ which are kept


@pytest.fixture
def noted(engine):
    """A way to make memories ready, and the states that went that way."""
    made = []

    def make(memory, model):
        made.append(memory)
        return make_ready(memory, model)

    return make, made


def get(memories, memory):
    return memories.get(memory, memory.snapshot())


def test_the_least_recently_asked_make_room(engine, noted):
    make, made = noted
    first, second, third = (random_memory(engine, seed=seed) for seed in range(3))
    num_bytes = make_ready(first, engine.model.model).num_bytes
    memories = ReadyMemories(engine.model.model, make, max_bytes=2 * num_bytes)
    for memory in (first, second, first, third, first):
        get(memories, memory)
        assert memories.num_bytes <= 2 * num_bytes
    assert [len(made), len(memories)] == [3, 2]
    get(memories, second)
    get(memories, third)
    assert len(made) == 5
    large = random_memory(engine, 200)
    assert get(memories, large) is get(memories, large)  # alone, though it is over the limit
    assert len(memories) == 1


def test_a_memory_that_nobody_holds_leaves(engine):
    memories = ReadyMemories(engine.model.model)
    memory, other = random_memory(engine), random_memory(engine, seed=1)
    keys = weakref.ref(get(memories, memory).keys_values[0].keys[0])
    get(memories, other)
    del memory
    gc.collect()
    assert keys() is None
    assert len(memories) == 1


def test_release_frees_all(engine):
    memories = ReadyMemories(engine.model.model)
    held = [random_memory(engine, seed=seed) for seed in range(3)]
    states = [weakref.ref(get(memories, memory)) for memory in held]
    memories.release()
    gc.collect()
    assert [state() for state in states] == [None] * 3
    assert memories.num_bytes == 0


def test_a_growing_memory_is_extended_and_an_earlier_state_does_not_take_its_place(engine, monkeypatch):
    made = []
    monkeypatch.setattr(ready_module, "make_ready", lambda *args: made.append(args) or make_ready(*args))
    memories = ReadyMemories(engine.model.model, ready_module.make_ready)
    memory = random_memory(engine)
    before = memory.snapshot()
    earlier = memories.get(memory, before)
    grow(memory, 10)
    later = get(memories, memory)
    assert_same(memories.get(memory, before), earlier)
    assert get(memories, memory) is later
    assert later.memory.num_frames == 50
    assert len(made) == 1


def test_another_way_to_make_memories_ready_makes_them_anew_when_they_grow(engine, noted):
    make, made = noted
    memories = ReadyMemories(engine.model.model, make)
    memory = random_memory(engine)
    get(memories, memory)
    grow(memory, 10)
    get(memories, memory)
    thin = ReadyMemories(engine.model.model, functools.partial(make_ready, share=0.25))
    assert len(get(thin, memory).layout.memory_index) < 50 * 17
    assert [one.num_frames for one in made] == [40, 50]


class Device:
    """A device with room for so many bytes of keys and values."""

    def __init__(self, memories, num_bytes):
        self.memories, self.num_bytes = memories, num_bytes

    def fits(self, num_bytes, device):
        on_device = sum(ready.num_bytes for ready in self.memories._ready.values() if not ready.is_on_host)
        return num_bytes + on_device <= self.num_bytes


def test_others_make_room_before_a_memory_goes_to_the_host(engine, monkeypatch, caplog):
    model = engine.model.model
    first, second, huge = random_memory(engine), random_memory(engine, seed=1), random_memory(engine, 400)
    num_bytes = make_ready(first, model).num_bytes
    memories = ReadyMemories(model)
    monkeypatch.setattr(ready_module, "fits_on_device", Device(memories, 1.5 * num_bytes).fits)
    with caplog.at_level(logging.INFO):
        assert not get(memories, first).is_on_host
        assert not get(memories, second).is_on_host
        assert len(memories) == 1
        assert not caplog.records
        assert get(memories, huge).is_on_host
        assert "stay on the host" in caplog.text
    assert not get(memories, first).is_on_host  # the huge one takes nothing of the device
    assert len(memories) == 2
    monkeypatch.setattr(ready_module, "total_memory_bytes", lambda device: 0)
    get(memories, second)
    assert [ready.is_on_host for ready in memories._ready.values()] == [False]


def test_a_growing_memory_sends_others_away_before_itself(engine, monkeypatch):
    model = engine.model.model
    other, memory = random_memory(engine), random_memory(engine, seed=1)
    num_bytes = make_ready(other, model).num_bytes
    memories = ReadyMemories(model)
    monkeypatch.setattr(ready_module, "fits_on_device", Device(memories, 2.5 * num_bytes).fits)
    get(memories, other)
    get(memories, memory)
    assert len(memories) == 2
    grow(memory, 5)
    assert not get(memories, memory).is_on_host
    assert len(memories) == 1
