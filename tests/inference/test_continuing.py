"""Watching on: a growing video goes on, another one is refused; and on which clock parts and evidence are."""

import json

import numpy as np
import pytest
import torch

from hourllava.cli.session import describe_memory
from hourllava.errors import ConfigError, InputError, MemoryFileError, VideoError
from hourllava.inference.memories.memory import Memory
from hourllava.inference.memories.snapshot import WatchedSource
from hourllava.inference.watching.frame_encoder import FrameEncoder
from hourllava.video import Gap
from inference.memories import changed


def watch(engine, clip, **options):
    return engine.watch(clip, progress=False, **options)


@pytest.mark.parametrize("before", ["short", "single"])
@pytest.mark.parametrize("after", ["long", "again"])
def test_a_video_that_has_grown_goes_on(engine, clips, before, after):
    """Also a copy in another container and codec: what counts is the pictures."""
    memory, whole = watch(engine, clips[before]), watch(engine, clips[after])
    assert watch(engine, clips[after], memory=memory) is memory
    np.testing.assert_array_equal(memory.sample_seconds, whole.sample_seconds)
    assert memory.duration_seconds == pytest.approx(whole.duration_seconds)
    assert memory.gaps == ()
    num_frames, version = len(memory), memory.version
    watch(engine, clips[after], memory=memory)  # nothing new
    watch(engine, clips[after], memory=memory, end_seconds=2.0)
    assert (len(memory), memory.version) == (num_frames, version)


@pytest.mark.parametrize(
    ("before", "after"), [("short", "other"), ("long", "short"), ("long", "single"), ("other", "long")]
)
def test_another_video_is_refused_and_the_memory_stays(engine, clips, before, after):
    memory = watch(engine, clips[before])
    features, source = memory.features.clone(), memory.source
    with pytest.raises(MemoryFileError, match="does not go on with this video"):
        watch(engine, clips[after], memory=memory)
    assert torch.equal(memory.features, features)
    assert memory.source == source


def test_a_saved_memory_goes_on(engine, clips, tmp_path):
    watch(engine, clips["short"]).save(tmp_path / "m")
    assert len(watch(engine, clips["long"], memory=Memory.load(tmp_path / "m"))) == 8


def test_a_part_goes_on_and_one_that_watched_nothing_begins(engine, clips):
    memory = watch(engine, clips["long"], start_seconds=2, end_seconds=4)
    watch(engine, clips["long"], memory=memory, end_seconds=6)
    np.testing.assert_array_equal(memory.sample_seconds, [2, 3, 4, 5])
    empty = Memory(
        torch.zeros(0, 16, 24), [], [], fps=1, duration_seconds=0, source=WatchedSource("x"), encoder=engine.encoder
    )
    assert len(watch(engine, clips["short"], memory=empty)) == 4


def test_what_lies_in_gaps_is_not_compared(engine, clips):
    memory = watch(engine, clips["short"])
    with torch.inference_mode():
        memory.features[3] = 0.5
    memory = changed(memory, gaps=[Gap(2.5, 3.4, "the file was cut short")])
    assert len(watch(engine, clips["long"], memory=memory)) == 8
    lost = changed(watch(engine, clips["short"]), gaps=[Gap(0.0, 3.4, "damage")])
    with pytest.raises(MemoryFileError, match="no frame of the memory is whole"):
        watch(engine, clips["long"], memory=lost)


def test_a_last_picture_of_another_time_may_differ(engine, clips):
    """A file that is being written can end before a picture that belongs in front of its last one."""
    memory = watch(engine, clips["short"])
    with torch.inference_mode():
        memory.features[3] = 0.5
    with pytest.raises(MemoryFileError, match="something else at 3 s"):
        watch(engine, clips["long"], memory=memory)
    memory = changed(memory, timestamps_seconds=memory.timestamps_seconds - [0, 0, 0, 0.1])
    assert len(watch(engine, clips["long"], memory=memory)) == 8


# ------------------------------------------------------------------------------------------------ the player's clock


def test_a_video_that_starts_after_its_sound(engine, clips, tmp_path):
    """The first picture is at 7 s of the player. The model counts from it; people count as the player."""
    memory = watch(engine, clips["late"])
    assert memory.player_offset_seconds == pytest.approx(7, abs=0.05)
    np.testing.assert_array_equal(memory.sample_seconds, np.arange(6))
    assert memory.duration_seconds == pytest.approx(6, abs=0.11)
    answer = engine.ask(memory, "What?", max_new_tokens=1)
    assert all(6.9 < span.start_seconds < span.end_seconds < 13.2 for span in answer.evidence)
    memory = changed(memory, gaps=[Gap(1.0, 2.0, "damage")])
    described = json.loads(json.dumps(describe_memory(memory, "late.mkv")))
    assert described["start_seconds"] == pytest.approx(7, abs=0.05)
    assert described["gaps"][0]["start_seconds"] == pytest.approx(8, abs=0.05)
    memory.save(tmp_path / "m")
    assert Memory.load(tmp_path / "m").player_offset_seconds == memory.player_offset_seconds
    (followed,) = engine.follow(clips["late"])
    assert followed.player_offset_seconds == memory.player_offset_seconds


def test_a_part_is_given_in_the_players_time(engine, clips):
    whole = watch(engine, clips["late"])
    part = watch(engine, clips["late"], start_seconds=9, end_seconds=11)
    np.testing.assert_array_equal(part.sample_seconds, [2, 3])
    assert torch.equal(part.features, whole.features[2:4])
    before = watch(engine, clips["late"], end_seconds=9)
    np.testing.assert_array_equal(before.sample_seconds, [0, 1])
    watch(engine, clips["late"], memory=before, end_seconds=12)
    np.testing.assert_array_equal(before.sample_seconds, [0, 1, 2, 3, 4])
    with pytest.raises(VideoError, match="shows nothing from 0 s to 5 s"):
        watch(engine, clips["late"], end_seconds=5)
    for start, end in ((-1, None), (float("nan"), None), (5, 3)):
        with pytest.raises(ConfigError):
            watch(engine, clips["late"], start_seconds=start, end_seconds=end)


# ------------------------------------------------------------------------------------------------ frames of one's own


def test_frames_are_encoded_in_batches(engine, monkeypatch):
    sizes = []
    tower, encode = engine.model.model, engine.model.model.get_video_features
    monkeypatch.setattr(tower, "get_video_features", lambda pixels: sizes.append(len(pixels)) or encode(pixels))
    frames = np.random.default_rng(0).integers(0, 256, (100, 20, 30, 3), dtype=np.uint8)
    memory = engine.remember_frames(frames, np.arange(100) / 2)
    assert max(sizes) <= 32
    assert sum(sizes) == 100
    whole = FrameEncoder(engine.model).launch(torch.as_tensor(frames)).wait()
    np.testing.assert_allclose(memory.features.float(), whole.float(), atol=0.02, rtol=0.02)


def test_the_length_of_ones_own_frames_counts_from_the_first(engine):
    frames = np.zeros((5, 20, 30, 3), np.uint8)
    memory = engine.remember_frames(frames, [100, 101, 102, 103, 104])
    assert memory.duration_seconds == 5
    assert engine.ask(memory, "What?", max_new_tokens=1).evidence[0].end_seconds <= 105


@pytest.mark.parametrize(
    "frames", [np.zeros((2, 4, 4, 3)), np.zeros((2, 4, 4), np.uint8), torch.zeros(2, 3, 4, 4, dtype=torch.uint8)]
)
def test_frames_of_another_form_are_refused(engine, frames):
    with pytest.raises(InputError, match=r"uint8 \[T, H, W, 3\]"):
        engine.remember_frames(frames, [0, 1])
