"""What experiments need: a memory with fewer frames, a question without a video, videos that are drawn when read."""

import functools

import numpy as np
import pytest

from conftest import tiny_config
from hourllava.errors import ConfigError
from hourllava.inference.memories.ready import make_ready
from hourllava.inference.memories.thinning import check_share, thinned
from hourllava.model.config import ForgettingConfig
from hourllava.model.layout import NEWLINE, video_layout
from hourllava.video import probe, read_frames, source_digest
from hourllava.world import generate_script, render_frames
from hourllava.world.generate import DIFFICULTIES
from hourllava.world.reference import Reference


@pytest.fixture
def memory(engine):
    frames = np.random.default_rng(0).integers(0, 256, (40, 24, 24, 3), dtype=np.uint8)
    return engine.remember_frames(frames, np.arange(40.0))


def with_share(engine, share):
    return engine.with_ready(functools.partial(make_ready, share=share))


@pytest.mark.parametrize(("share", "num_whole_frames"), [(1.0, 40), (0.5, 20), (0.25, 10), (0.0, 0)])
def test_a_thinned_memory_keeps_places_and_kept_tokens(share, num_whole_frames):
    layout = video_layout(40, tiny_config(), seed=3)
    thin = thinned(layout, 16, share)
    assert np.array_equal(thin.kept_positions, layout.kept_positions)
    assert np.array_equal(thin.memory_index[thin.kept_index], layout.memory_index[layout.kept_index])
    # What is at a position is what was there before.
    assert np.array_equal(thin.memory_index, layout.memory_index[thin.memory_positions])
    patches = thin.memory_index[thin.memory_index != NEWLINE]
    assert (np.bincount(patches // 16, minlength=40) == 16).sum() == num_whole_frames
    assert share > 0 or len(thin.memory_index) == len(layout.kept_index)


def test_the_share_changes_what_is_looked_up_and_not_the_prompt(engine, memory):
    choices = [with_share(engine, share).choose(memory, "Which?", ["a", "b"]) for share in (1.0, 0.5, 0.0)]
    assert len({tuple(choice.probabilities) for choice in choices}) == 3
    assert choices[0].probabilities == engine.choose(memory, "Which?", ["a", "b"]).probabilities
    answers = [with_share(engine, share).ask(memory, "Which?", max_new_tokens=2) for share in (1.0, 0.0)]
    assert answers[0].num_prompt_tokens == answers[1].num_prompt_tokens


@pytest.mark.parametrize("num_frames", [40, 5])  # five are repeated to eight
def test_entries_know_their_frames(engine, num_frames):
    frames = np.zeros((num_frames, 24, 24, 3), np.uint8)
    memory = engine.remember_frames(frames, np.arange(float(num_frames)))
    whole = make_ready(memory, engine.model.model)
    thin = make_ready(memory, engine.model.model, 0.25)
    assert np.array_equal(thin.frame_of_entry, whole.frame_of_entry[thin.layout.memory_positions])
    assert np.array_equal(np.unique(whole.frame_of_entry), np.arange(num_frames))


@pytest.mark.parametrize("share", [-0.5, 1.5, float("nan")])
def test_a_share_outside_0_to_1_is_refused(engine, memory, share):
    with pytest.raises(ConfigError, match=f"memory_share is {share:g}"):
        with_share(engine, share).ask(memory, "What?")


def test_a_share_where_each_question_keeps_other_frames_is_refused():
    config = tiny_config(forgetting=ForgettingConfig(temporal="question"))
    with pytest.raises(ConfigError, match="same kept tokens for all questions"):
        check_share(0.5, config)
    check_share(1.0, config)


def test_without_a_video_the_language_model_answers_alone(engine):
    answer = engine.ask(None, "What?", max_new_tokens=8)
    inputs = engine.processor([[{"role": "user", "content": "What?"}]], add_generation_prompt=True)
    output = engine.model.generate(**inputs, max_new_tokens=8, do_sample=False)
    assert answer.text == engine.processor.decode(output[0, inputs["input_ids"].shape[1] :])
    assert answer.evidence == []
    several = engine.ask_all(None, ["What?", "And a longer one?"], max_new_tokens=8)
    assert several[0].text == answer.text
    assert len(engine.choose(None, "What?", ["a", "b"]).probabilities) == 2


def test_a_reference_is_a_video(engine, tmp_path):
    reference = Reference(
        seed=5, duration_seconds=70, split="test", density=DIFFICULTIES["normal"], needles=3, size_pixels=64
    )
    path = tmp_path / "v.world.json"
    path.write_text(reference.model_dump_json())
    script = generate_script(5, 70, split="test", needles=3)
    for fps, size in ((1, None), (2, (64, 64)), (0.5, None)):
        with read_frames(path, fps=fps, size_pixels=size, num_processes=2) as reader:
            batches = list(reader)
        times = np.arange(int(70 * fps)) / fps
        assert np.array_equal(np.concatenate([batch.frames for batch in batches]), render_frames(script, times, 64))
        assert np.array_equal(np.concatenate([batch.timestamps_seconds for batch in batches]), times)
    assert probe(path).duration_seconds == 70
    memory = engine.watch(path, start_seconds=10, end_seconds=20, progress=False)
    assert memory.timestamps_seconds.tolist() == list(range(10, 20))
    before = source_digest(path)
    path.write_text(reference.model_copy(update={"seed": 6}).model_dump_json())
    assert source_digest(path) != before
