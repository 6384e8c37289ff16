"""Watching and asking: repeatable, cached, streamed, in batches, incrementally; and what mistakes get."""

import dataclasses

import numpy as np
import pytest
import torch

from conftest import tiny_config, tiny_model
from hourllava.choices import CHOICE_INSTRUCTION, choice_prompt
from hourllava.errors import InputError, MemoryFileError, VideoError
from hourllava.inference.chat import Chat
from hourllava.inference.engine import HourLlava
from hourllava.inference.memories import ready
from hourllava.inference.memories.cache import MemoryCache
from hourllava.inference.memories.memory import Memory, WatchedSource
from hourllava.inference.memories.ready import make_ready
from hourllava.inference.questions.subtitles import Cue
from hourllava.model.config import ForgettingConfig
from hourllava.model.processor import HourLlavaProcessor
from inference.memories import random_memory
from video.clips import write_clip


def ask(engine, memory, question="What happens?", **options):
    return engine.ask(memory, question, **{"max_new_tokens": 6, **options})


def test_the_same_question_gets_the_same_answer_always(engine, tokenizer):
    memory = random_memory(engine)
    first = ask(engine, memory)
    ask(engine, memory, "Something else?")
    assert ask(engine, memory).text == first.text
    fresh = HourLlava(tiny_model().float(), HourLlavaProcessor(tokenizer, tiny_config()))
    assert ask(fresh, random_memory(fresh)).text == first.text
    assert first.num_new_tokens > 0
    assert first.num_prompt_tokens > 50
    assert 0 < first.first_token_seconds <= first.total_seconds


def test_the_answer_is_the_models_own(engine):
    """Engine against processor and transformers' generate, without memory reuse or our token loop."""
    from hourllava.model.layout import video_layout
    from hourllava.model.messages import Video
    from hourllava.model.visuals import Visuals

    memory = random_memory(engine)
    config = engine.model.config
    layout = video_layout(40, config, seed=memory.content_seed)
    video = Video(memory.duration_seconds, layout=layout, num_frames=40)
    content = [{"type": "video", "video": video}, {"type": "text", "text": "What happens?"}]
    inputs = engine.processor([[{"role": "user", "content": content}]], add_generation_prompt=True)
    projected = engine.model.model.remember(Visuals(inputs["visuals"], features={"video": memory.features}))
    end = engine.processor.tokenizer.convert_tokens_to_ids("<|im_end|>")
    output = engine.model.generate(
        **inputs, memory=projected, max_new_tokens=6, do_sample=False, eos_token_id=[end, 401], pad_token_id=401
    )
    expected = engine.processor.decode(output[0, inputs["input_ids"].shape[1] :])
    assert ask(engine, memory).text == expected


def test_many_questions_get_the_answers_that_each_gets_alone(engine):
    memory = random_memory(engine)
    questions = ["What happens?", "Who is it, and why does he not say so?", "When?"]
    seen = []
    together = engine.ask_all(memory, questions, max_new_tokens=6, on_answer=seen.append)
    assert seen == together
    for question, answer in zip(questions, together, strict=True):
        alone = ask(engine, memory, question)
        times = {"first_token_seconds": 0, "total_seconds": 0}
        assert dataclasses.replace(answer, **times) == dataclasses.replace(alone, **times)
    assert engine.ask_all(memory, []) == []


def test_text_is_streamed_as_it_comes(engine):
    memory = random_memory(engine)
    pieces = []
    answer = ask(engine, memory, max_new_tokens=30, on_text=pieces.append)
    assert "".join(pieces) == answer.text
    assert pieces


def test_keys_and_values_are_made_once_per_memory(engine):
    made = []

    def counted(memory, model):
        made.append(memory)
        return make_ready(memory, model)

    engine = engine.with_ready(counted)
    memory = random_memory(engine, seed=1)
    for question in ("What?", "Who?", "When?"):
        ask(engine, memory, question)
    assert len(made) == 1
    memory.append(torch.zeros(1, 16, 24), [40.0], [40.0])
    ask(engine, memory)
    ask(engine, random_memory(engine, seed=2))
    assert len(made) == 3


@pytest.mark.parametrize("temporal", ["uniform", "random", "keyframe", "question"])
@pytest.mark.parametrize("entries", [2**18, 100])
def test_all_ways_of_forgetting_and_memories_in_chunks(tokenizer, temporal, entries, monkeypatch):
    monkeypatch.setattr(ready, "ENTRIES_PER_CHUNK", 2**18)
    config = tiny_config(forgetting=ForgettingConfig(temporal=temporal))
    engine = HourLlava(tiny_model(config).float(), HourLlavaProcessor(tokenizer, config))

    def answers():
        memory = random_memory(engine)
        return [ask(engine, memory, question).text for question in ("What happens?", "Why?")]

    expected = answers()
    monkeypatch.setattr(ready, "ENTRIES_PER_CHUNK", entries)
    assert answers() == expected
    monkeypatch.setattr(ready, "fits_on_device", lambda *args: False)
    assert answers() == expected


def test_evidence_points_at_what_the_question_attends_to(engine):
    """Frames 20 to 22 get keys that every query of the question likes; nothing else changes."""

    def with_large_keys(memory, model):
        ready = make_ready(memory, model)
        entries = np.flatnonzero(np.isin(ready.frame_of_entry, [20, 21, 22]))
        for block in ready.keys_values:
            keys = block.keys[0].clone()
            keys[entries] *= 40  # some head's query fits each of them
            block.keys = [keys]
        return ready

    engine = engine.with_ready(with_large_keys)
    span = ask(engine, random_memory(engine)).evidence[0]
    assert span.start_seconds >= 20
    assert span.end_seconds <= 23


def test_evidence_keeps_real_times(engine):
    times = np.array([3.2, 4.1, 9.7, 10.0])
    memory = Memory(
        torch.randn(4, 16, 24).bfloat16(),
        times,
        np.arange(3.0, 7.0),
        fps=1.0,
        duration_seconds=7.0,
        source=WatchedSource("clip"),
        encoder=engine.encoder,
    )
    spans = ask(engine, memory).evidence
    assert spans
    for span in spans:
        assert span.start_seconds in times
        assert span.end_seconds in (*times, 7.0, 10.0)


def test_chat_remembers_earlier_answers(engine):
    memory = random_memory(engine)
    chat = Chat(engine, memory)
    first = chat.ask("What happens?", max_new_tokens=8)
    second = chat.ask("And then?", max_new_tokens=8)
    assert chat.history == [("What happens?", first.text), ("And then?", second.text)]
    assert second.num_prompt_tokens > first.num_prompt_tokens + 8
    alone = ask(engine, memory, "And then?", max_new_tokens=8)
    assert second.num_prompt_tokens > alone.num_prompt_tokens
    again = ask(engine, memory, "And then?", history=[("What happens?", first.text)], max_new_tokens=8)
    assert again.text == second.text
    with pytest.raises(InputError):
        chat.ask("  ")
    assert len(chat.history) == 2


def test_multiple_choice_scores_the_letters(engine):
    memory = random_memory(engine)
    options = ["a dog", "a cat", "a tree"]
    choice = engine.choose(memory, "What is it?", options)
    assert sum(choice.probabilities) == pytest.approx(1)
    assert choice.option == options[int(np.argmax(choice.probabilities))]
    assert choice.letter == "ABC"[int(np.argmax(choice.probabilities))]
    assert len(choice.evidence) >= 1
    assert engine.choose(memory, "What is it?", options) == choice
    prompt = choice_prompt("What is it?", options)
    assert prompt == f"What is it?\nA. a dog\nB. a cat\nC. a tree\n{CHOICE_INSTRUCTION}"
    for wrong in ([], ["one"], ["x"] * 27):
        with pytest.raises(InputError, match="2 to 26 options"):
            engine.choose(memory, "What is it?", wrong)


def test_subtitles_go_into_the_prompt_within_their_budget(engine):
    memory = random_memory(engine)
    cues = [Cue(float(n), n + 1.0, f"line number {n}") for n in range(40)]
    plain = ask(engine, memory)
    few = ask(engine, memory, subtitles=cues, subtitle_tokens=60)
    many = ask(engine, memory, subtitles=cues, subtitle_tokens=2000)
    assert plain.num_prompt_tokens < few.num_prompt_tokens <= plain.num_prompt_tokens + 60 + 40
    assert many.num_prompt_tokens > few.num_prompt_tokens + 100
    assert 0 < plain.num_video_tokens == few.num_video_tokens == many.num_video_tokens < plain.num_prompt_tokens
    assert engine.ask(None, "What is it?", max_new_tokens=1).num_video_tokens == 0
    assert many.evidence == plain.evidence  # where the question looks, not where the subtitles do
    assert ask(engine, memory, subtitles=cues, subtitle_tokens=0).text == plain.text


@pytest.mark.parametrize("question", ["", "  \n"])
def test_no_question(engine, question):
    with pytest.raises(InputError, match="ask something"):
        ask(engine, random_memory(engine), question)


def test_a_question_longer_than_the_context(tokenizer):
    config = tiny_config(max_sequence_tokens=150)
    short = HourLlava(tiny_model(config).float(), HourLlavaProcessor(tokenizer, config))
    with pytest.raises(InputError, match="the model takes 150"):
        ask(short, random_memory(short), "why " * 200)


def test_memories_of_another_encoder_are_refused(engine, tokenizer):
    other = HourLlava(tiny_model(seed=1).float(), HourLlavaProcessor(tokenizer, tiny_config()))
    with pytest.raises(MemoryFileError, match="made by another vision encoder"):
        ask(engine, random_memory(other))


# -------------------------------------------------------------------------------------------------- watching


def test_watch_keeps_what_is_on_screen_at_each_second(engine, tmp_path):
    clip = write_clip(tmp_path / "clip.mp4", num_frames=60, fps=10)
    memory = engine.watch(clip, progress=False)
    assert memory.num_frames == 6
    np.testing.assert_allclose(memory.timestamps_seconds, np.arange(6), atol=0.06)
    assert memory.duration_seconds == pytest.approx(6, abs=0.11)
    assert memory.features.dtype == torch.bfloat16
    part = engine.watch(clip, start_seconds=2, end_seconds=4, progress=False)
    np.testing.assert_array_equal(part.sample_seconds, [2, 3])
    assert part.duration_seconds == pytest.approx(2)
    assert torch.equal(part.features, memory.features[2:4])
    twice = engine.watch(clip, fps=2, progress=False)
    assert torch.equal(twice.features[::2], memory.features)


def test_watch_uses_the_cache(engine, tmp_path, monkeypatch):
    clip = write_clip(tmp_path / "clip.mp4", num_frames=30, fps=10)
    cache = MemoryCache(tmp_path / "cache")
    first = engine.watch(clip, cache=cache, progress=False)
    reads = []
    monkeypatch.setattr("hourllava.inference.watching.growing.read_frames", lambda *a, **k: reads.append(a))
    again = engine.watch(clip, cache=cache, progress=False)
    assert torch.equal(again.features, first.features)
    assert not reads
    monkeypatch.undo()
    assert engine.watch(clip, cache=cache, fps=2, progress=False).num_frames == 6
    write_clip(clip, num_frames=40, fps=10)
    assert engine.watch(clip, cache=cache, progress=False).num_frames == 4
    assert len(cache.entries()) == 3


def test_a_cache_that_cannot_be_written_costs_no_answer(engine, tmp_path, caplog):
    clip = write_clip(tmp_path / "clip.mp4", num_frames=30, fps=10)
    (tmp_path / "file").touch()
    memory = engine.watch(clip, cache=MemoryCache(tmp_path / "file" / "cache"), progress=False)
    assert memory.num_frames == 3
    assert "is not kept for the next time" in caplog.text


def test_a_growing_video_is_appended(engine, tmp_path):
    clip = tmp_path / "clip.mp4"
    write_clip(clip, num_frames=35, fps=10)
    memory = engine.watch(clip, progress=False)
    before = ask(engine, memory)
    write_clip(clip, num_frames=78, fps=10)
    longer = engine.watch(clip, memory=memory, progress=False)
    assert longer is memory
    whole = engine.watch(clip, progress=False)
    np.testing.assert_array_equal(memory.sample_seconds, whole.sample_seconds)
    assert torch.equal(memory.features[4:], whole.features[4:])
    after, of_whole = ask(engine, memory), ask(engine, whole)
    assert after.num_prompt_tokens == of_whole.num_prompt_tokens
    assert [span.start_seconds for span in after.evidence] == [span.start_seconds for span in of_whole.evidence]
    assert after.evidence != before.evidence
    with pytest.raises(MemoryFileError, match="1 frames per second, asked for were 2"):
        engine.watch(clip, memory=memory, fps=2, progress=False)
    unchanged = engine.watch(clip, memory=memory, progress=False)
    assert unchanged.num_frames == whole.num_frames


def test_a_stream_can_be_asked_while_it_is_watched(engine, tmp_path):
    clip = write_clip(tmp_path / "clip.mp4", num_frames=700, fps=10)
    lengths, answers = [], []
    for memory in engine.follow(clip):
        lengths.append(memory.num_frames)
        answers.append(ask(engine, memory, max_new_tokens=4))
    assert lengths[-1] == 70
    assert len(lengths) > 1
    assert len(answers) == len(lengths)


def test_frames_of_ones_own(engine):
    frames = np.random.default_rng(0).integers(0, 256, (5, 20, 30, 3), dtype=np.uint8)
    memory = engine.remember_frames(frames, [0, 0.5, 1, 1.5, 2])
    assert (memory.fps, memory.duration_seconds, memory.num_frames) == (2, 2.5, 5)
    assert ask(engine, memory).evidence[0].end_seconds <= 2.5
    with pytest.raises(InputError, match="5 frames and 2 times"):
        engine.remember_frames(frames, [0, 1])


@pytest.mark.usefixtures("nothing_left")
def test_a_part_that_shows_nothing(engine, tmp_path):
    clip = write_clip(tmp_path / "clip.mp4", num_frames=30, fps=10)
    with pytest.raises(VideoError, match="shows nothing from 100 s to its end"):
        engine.watch(clip, start_seconds=100, progress=False)


def test_damage_is_reported_in_the_memory(engine, tmp_path):
    clip = write_clip(tmp_path / "clip.mp4", num_frames=600, fps=10)
    content = bytearray(clip.read_bytes())
    place = content.index(b"mdat") + 3000
    content[place : place + 300] = bytes(300)
    clip.write_bytes(content)
    memory = engine.watch(clip, progress=False)
    assert memory.num_frames == 60
    assert memory.gaps
    start, end, reason = memory.gaps[0]
    assert 0 < start < end <= 60
    assert reason
