"""Asking: each question has its own subtitles, evidence and room; what cannot be asked is refused."""

import logging
import weakref

import numpy as np
import pytest
import torch

from conftest import tiny_config, tiny_model
from hourllava.errors import ConfigError, InputError, MemoryFileError
from hourllava.inference.chat import Chat
from hourllava.inference.engine import HourLlava
from hourllava.inference.memories import ready
from hourllava.inference.memories.memory import Memory
from hourllava.inference.questions import evidence
from hourllava.inference.questions.evidence import Span
from hourllava.inference.questions.prompt import Context, PromptMaker
from hourllava.inference.questions.subtitles import Cue
from hourllava.inference.rows import decoder
from hourllava.model.config import ForgettingConfig
from hourllava.model.devices import fits_on_device, usable_dtype
from hourllava.model.processor import HourLlavaProcessor
from inference.memories import random_memory

NO_CONTEXT = Context((), (), 0)
CUES = [Cue(float(n), n + 1.0, f"line number {n}") for n in range(40)]


def spy(engine, monkeypatch):
    """The texts that the model is asked, in order."""
    texts = []
    encode = engine.processor.encode

    def noted(messages, **options):
        content = messages[-1]["content"]
        texts.append(content if isinstance(content, str) else content[-1]["text"])
        return encode(messages, **options)

    monkeypatch.setattr(engine.processor, "encode", noted)
    return texts


def test_each_question_of_a_batch_gets_its_own_subtitles(engine, monkeypatch):
    """The first looks at 30 s, the second at 5 s, the third at both ends."""
    looks = [[Span(30.0, 31.0, 0.5)], [Span(5.0, 6.0, 0.5)], [Span(0.2, 0.8, 0.3), Span(39.2, 39.8, 0.2)]]
    spans = []
    monkeypatch.setattr("hourllava.inference.questions.prompt.evidence_spans", lambda *args: spans.pop(0))
    questions = ["What happens?", "Who?", "Why, and where?"]
    memory, texts = random_memory(engine), spy(engine, monkeypatch)

    def asked(*numbers):
        spans[:] = [looks[n] for n in numbers]
        texts.clear()
        engine.ask_all(memory, [questions[n] for n in numbers], subtitles=CUES, subtitle_tokens=60, max_new_tokens=2)
        return texts[1::2]  # the second time, with subtitles

    together = asked(0, 1, 2)
    assert together == [asked(n)[0] for n in range(3)]
    assert "line number 30" in together[0]
    assert "line number 5\n" not in together[0]
    assert "line number 5\n" in together[1]
    assert "line number 30" not in together[1]
    assert "line number 0\n" in together[2]
    assert "line number 39\n" in together[2]


def count_evidence(monkeypatch):
    """Counts in a dictionary: `kept` blocks whose queries are kept, `measured` blocks whose attention is measured."""
    counts = dict.fromkeys(("kept", "measured"), 0)

    def counted(function, name):
        def count(*args):
            counts[name] += 1
            return function(*args)

        return count

    observe, measure = evidence.WatchedQueries.observe, evidence.share_of_each_run
    monkeypatch.setattr(evidence.WatchedQueries, "observe", counted(observe, "kept"))
    monkeypatch.setattr(evidence, "share_of_each_run", counted(measure, "measured"))
    return counts


def test_evidence_is_measured_when_it_is_asked_for(engine, monkeypatch):
    memory, counts = random_memory(engine), count_evidence(monkeypatch)
    prompts = PromptMaker(engine.model, engine.processor)
    num_blocks = engine.model.config.memaug.num_blocks
    prompt = prompts.prompt(ready.make_ready(memory, engine.model.model), "What?", "What?", NO_CONTEXT)
    assert counts == {"kept": num_blocks, "measured": 0}
    spans = prompt.evidence()
    assert prompt.evidence() == spans
    assert counts == {"kept": num_blocks, "measured": num_blocks}
    assert spans == engine.ask(memory, "What?", max_new_tokens=1).evidence
    assert prompts.prompt(None, "What?", "What?", NO_CONTEXT).evidence() == []


@pytest.mark.parametrize(
    ("temporal", "share"),
    [("uniform", 1.0), ("uniform", 0.25), ("random", 0.0), ("keyframe", 0.5), ("question", 1.0)],
)
@pytest.mark.parametrize("fits", [True, False])
def test_evidence_is_the_attention_written_out(tokenizer, temporal, share, fits, monkeypatch):
    """However frames are kept, whatever MemAug can look up, on the device and in chunks: against float64."""
    monkeypatch.setattr(ready, "fits_on_device", lambda *args: fits)
    monkeypatch.setattr(ready, "ENTRIES_PER_CHUNK", 2**18 if fits else 100)
    config = tiny_config(forgetting=ForgettingConfig(temporal=temporal))
    engine = HourLlava(tiny_model(config).float(), HourLlavaProcessor(tokenizer, config))
    memory, watched = random_memory(engine, 60), []
    monkeypatch.setattr(
        "hourllava.inference.questions.prompt.WatchedQueries",
        lambda rows: watched.append(evidence.WatchedQueries(rows)) or watched[0],
    )
    made = ready.make_ready(memory, engine.model.model, share)
    prompt = PromptMaker(engine.model, engine.processor).prompt(made, "What?", "What?", NO_CONTEXT)
    expected = np.zeros(60)
    for query, block in watched[0].blocks:
        key = torch.cat(list(block.keys)).double().repeat_interleave(2, 1)
        weights = (torch.einsum("qhe,khe->hqk", query.double(), key) / 8**0.5).softmax(-1).mean((0, 1))
        expected += np.bincount(made.frame_of_entry, weights.numpy(), 60) / len(watched[0].blocks)
    shares = evidence.shares_of_runs(watched[:1], made.runs_of_frames)[0].numpy()
    np.testing.assert_allclose(evidence.share_of_frames(shares, made.runs_of_frames, 60), expected, atol=1e-6)
    for span, wanted in zip(prompt.evidence(), evidence.evidence_spans(expected, np.arange(60.0), 60.0), strict=True):
        assert (span.start_seconds, span.end_seconds) == (wanted.start_seconds, wanted.end_seconds)
        assert span.weight == pytest.approx(wanted.weight, abs=1e-5)


def test_a_measured_prompt_lets_go_of_the_memory(engine):
    made = ready.make_ready(random_memory(engine), engine.model.model)
    prompt = PromptMaker(engine.model, engine.processor).prompt(made, "What?", "What?", NO_CONTEXT)
    keys = weakref.ref(made.keys_values[0])
    del made
    assert keys() is not None
    assert prompt.evidence()
    assert keys() is None


def test_subtitles_cost_one_pass_with_evidence(engine, monkeypatch, recwarn, caplog):
    counts = count_evidence(monkeypatch)
    with caplog.at_level(logging.WARNING):
        many = [Cue(n / 10, n / 10 + 1, f"line number {n} of very many") for n in range(4000)]
        engine.ask(random_memory(engine), "What?", subtitles=many, subtitle_tokens=60, max_new_tokens=1)
    assert set(counts.values()) == {engine.model.config.memaug.num_blocks}
    assert not caplog.records  # transformers warns of texts longer than the context
    assert not recwarn.list


@pytest.mark.parametrize(("max_tokens", "num_first"), [(60, 2), (4000, 1)])
def test_the_first_token_waits_for_no_pass_that_it_does_not_need(engine, monkeypatch, max_tokens, num_first):
    """Subtitles that all fit need not be chosen, so the bare question is not looked up before its evidence is read."""
    passes = []
    embed = engine.model.model.embed
    monkeypatch.setattr(engine.model.model, "embed", lambda *args: passes.append(args) or embed(*args))
    made = ready.make_ready(random_memory(engine), engine.model.model)
    prompts = PromptMaker(engine.model, engine.processor)
    prompt = prompts.prompt(made, "What?", "What?", Context((), CUES, max_tokens))
    assert len(passes) == num_first
    plain = prompts.prompt(made, "What?", "What?", NO_CONTEXT).evidence()
    passes.clear()
    assert prompt.evidence() == plain
    assert len(passes) == 2 - num_first


def test_tokens_of_subtitles_are_counted_once(engine, monkeypatch):
    """For all questions with the same cues, also if they come in another list."""
    prompts, calls = PromptMaker(engine.model, engine.processor), []
    made = ready.make_ready(random_memory(engine), engine.model.model)
    count = prompts._count_tokens
    monkeypatch.setattr(prompts, "_count_tokens", lambda texts: calls.append(len(texts)) or count(texts))
    for question in ("What?", "Who?", "Why?"):
        prompts.prompt(made, question, question, Context((), list(CUES), 60))
    assert [number for number in calls if number > 1] == [len(CUES)]
    for start in range(20):  # of many sets, the last ones stay
        prompts.prompt(None, "What?", "What?", Context((), CUES[start:], 60))
    calls.clear()
    prompts.prompt(None, "What?", "What?", Context((), CUES[19:], 60))
    assert set(calls) <= {1}
    prompts.prompt(None, "What?", "What?", Context((), CUES[1:], 60))
    assert len(CUES) - 1 in calls


def test_subtitles_without_a_memory_are_the_earliest(engine, monkeypatch):
    texts = spy(engine, monkeypatch)
    engine.ask(None, "What?", subtitles=CUES, subtitle_tokens=40, max_new_tokens=1)
    assert texts[0].startswith("Subtitles of the video:\n[0:00:00] line number 0\n")
    assert texts[0].endswith("\nWhat?")
    engine.choose(None, "What?", ["a", "b"], subtitles=CUES, subtitle_tokens=40)
    assert texts[1].startswith("Subtitles of the video:\n[0:00:00] line number 0\n")


@pytest.mark.parametrize("way", ["ask", "choose"])
def test_frames_are_kept_for_the_bare_question(tokenizer, way, monkeypatch):
    config = tiny_config(forgetting=ForgettingConfig(temporal="question"))
    engine = HourLlava(tiny_model(config).float(), HourLlavaProcessor(tokenizer, config))
    memory, descriptors = random_memory(engine), []
    keep = ready.keep_for_question
    monkeypatch.setattr(
        "hourllava.inference.questions.prompt.keep_for_question",
        lambda ready, model, descriptor: descriptors.append(descriptor) or keep(ready, model, descriptor),
    )
    engine.ask(memory, "What is it?", max_new_tokens=1)
    if way == "ask":
        engine.ask(memory, "What is it?", subtitles=CUES, max_new_tokens=1)
    else:
        engine.choose(memory, "What is it?", ["a dog", "a cat"], subtitles=CUES)
    assert len(descriptors) == 3
    for other in descriptors[1:]:
        np.testing.assert_array_equal(descriptors[0], other)


@pytest.mark.parametrize(
    ("start", "offset", "duration", "end"), [(0.0, 0.0, 5.2, 5.2), (10.0, 0.0, 5.2, 15.2), (3.0, 7.5, 6.0, 16.5)]
)
def test_evidence_lies_in_what_was_watched_on_the_players_clock(engine, start, offset, duration, end):
    memory = random_memory(
        engine, 6, start_seconds=start, duration_seconds=duration, player_offset_seconds=offset, seed=3
    )
    spans = [span for seed in range(5) for span in engine.ask(memory, f"What? {seed}", max_new_tokens=1).evidence]
    assert min(span.start_seconds for span in spans) >= start + offset
    assert max(span.end_seconds for span in spans) <= end
    every = {start + offset + n for n in range(6)} | {end}
    assert {time for span in spans for time in (span.start_seconds, span.end_seconds)} <= every


def test_the_model_sees_the_same_whatever_the_players_clock(engine):
    plain, later = random_memory(engine), random_memory(engine, player_offset_seconds=7.0)
    before, after = (engine.ask(memory, "What?", max_new_tokens=5) for memory in (plain, later))
    assert (before.text, before.num_prompt_tokens) == (after.text, after.num_prompt_tokens)
    for old, new in zip(before.evidence, after.evidence, strict=True):
        assert (new.start_seconds, new.end_seconds) == (old.start_seconds + 7, old.end_seconds + 7)


def test_both_dtypes_keep_the_same_tokens(tokenizer):
    """Features of the two are rounded otherwise; the frames are the caller's, or of a video."""
    frames = np.random.default_rng(0).integers(0, 256, (40, 20, 30, 3), dtype=np.uint8)
    layouts = []
    for dtype in (torch.float32, torch.bfloat16):
        engine = HourLlava(tiny_model().float().to(dtype), HourLlavaProcessor(tokenizer, tiny_config()))
        memory = engine.remember_frames(frames, np.arange(40.0))
        layouts.append(ready.make_ready(memory, engine.model.model).layout.kept_index)
    np.testing.assert_array_equal(*layouts)


# -------------------------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize("question", ["", "  \n", [], ["a?", " "], None, 5, ["a?", None], [["a?"]]])
def test_no_question(engine, question):
    with pytest.raises(InputError, match=r"ask something|must be text"):
        engine.ask(random_memory(engine), question)


@pytest.mark.parametrize("question", ["", "   ", None, ["a?", "b?"]])
def test_a_choice_without_a_question(engine, question):
    with pytest.raises(InputError, match=r"ask something|must be text"):
        engine.choose(random_memory(engine), question, ["a", "b"])


def test_an_empty_option(engine):
    with pytest.raises(InputError, match="an option is empty"):
        engine.choose(random_memory(engine), "What?", ["a", " "])


def test_a_conversation_takes_one_question_at_a_time(engine, monkeypatch):
    chat = Chat(engine, random_memory(engine))
    monkeypatch.setattr(engine, "ask", lambda *args, **options: pytest.fail("work was done for nothing"))
    for question in (["a?", "b?"], ("a?",), None):
        with pytest.raises(InputError, match="one question at a time"):
            chat.ask(question)
    assert chat.history == []


@pytest.mark.parametrize("number", [0, -5])
def test_an_answer_without_tokens(engine, number):
    with pytest.raises(InputError, match=f"max_new_tokens is {number}"):
        engine.ask(random_memory(engine), "What?", max_new_tokens=number)


@pytest.mark.parametrize("limits", [{"max_sequence_tokens": 130}, {"max_position_embeddings": 130}])
def test_an_answer_has_the_room_that_the_prompt_leaves(tokenizer, limits, monkeypatch):
    text = {**tiny_config().text_config.to_dict(), **limits}
    config = tiny_config(text_config=text) if "max_position_embeddings" in limits else tiny_config(**limits)
    engine = HourLlava(tiny_model(config).float(), HourLlavaProcessor(tokenizer, config))
    monkeypatch.setattr(engine.processor.tokenizer, "convert_tokens_to_ids", lambda token: 1)  # hardly ever ends
    answer = engine.ask(None, "What?", max_new_tokens=10**9)
    assert answer.num_new_tokens == 130 - answer.num_prompt_tokens
    assert answer.finish_reason == "length"
    monkeypatch.undo()
    with pytest.raises(InputError, match="the model takes 130"):
        engine.ask(None, "why " * 200)


def test_a_memory_without_frames(engine):
    with pytest.raises(InputError, match="holds no frames"):
        engine.ask(random_memory(engine, 0), "What?")


@pytest.mark.parametrize("dtype", ["float16", torch.float16, "half", "int8"])
def test_dtypes_that_are_too_small(dtype):
    with pytest.raises(ConfigError, match="choose float32 or bfloat16"):
        usable_dtype(dtype, torch.device("cpu"))


def test_bytes_that_are_no_text_become_replacement_characters(engine, monkeypatch):
    """As Python hands on bytes of the command line that are no UTF-8."""
    bad = "caf\udce9 \ud800?"
    texts = spy(engine, monkeypatch)
    memory = random_memory(engine)
    answer = engine.ask(memory, bad, max_new_tokens=2, history=[(bad, bad)], subtitles=[Cue(0, 1, bad)])
    assert answer.question == "caf\ufffd \ufffd?"
    choice = engine.choose(memory, bad, [bad, "tea"])
    assert choice.question == "caf\ufffd \ufffd?"
    assert choice.option in ("caf\ufffd \ufffd?", "tea")
    chat = Chat(engine, memory)
    chat.ask(bad, max_new_tokens=2)
    assert chat.history[0][0] == "caf\ufffd \ufffd?"
    assert "caf\ufffd \ufffd?" in texts
    assert not any("\ud800" <= letter <= "\udfff" for text in texts for letter in text)


def test_features_in_a_file_that_was_written_to_are_not_asked(engine, tmp_path, monkeypatch):
    monkeypatch.setattr("hourllava.inference.memories.memory.MAX_READ_BYTES", 0)
    random_memory(engine).save(tmp_path / "m")
    memory = Memory.load(tmp_path / "m")
    assert engine.ask(memory, "What?", max_new_tokens=1)
    (tmp_path / "m").write_bytes((tmp_path / "m").read_bytes()[:-100])
    with pytest.raises(MemoryFileError, match="was written to"):
        engine.ask(memory, "What?", max_new_tokens=1)


# -------------------------------------------------------------------------------------------- room on the device


def test_release_frees_keys_values_and_the_decoders_buffers(engine, monkeypatch):
    made = []

    def noted(make):
        def make_and_note(*args):
            thing = make(*args)
            made.append(weakref.ref(thing))
            return thing

        return make_and_note

    monkeypatch.setattr(decoder, "OwnRows", noted(decoder.OwnRows))
    engine = HourLlava(engine.model, engine.processor).with_ready(noted(ready.make_ready))
    memory = random_memory(engine)
    text = engine.ask(memory, "What?", max_new_tokens=4).text
    assert [type(thing()).__name__ for thing in made] == ["ReadyMemory", "OwnRows"]
    engine.release()
    assert [thing() for thing in made] == [None, None]
    assert engine.ask(memory, "What?", max_new_tokens=4).text == text
    assert len(made) == 4


@pytest.mark.parametrize(
    ("free", "reserved", "allocated", "fits"), [(10, 0, 0, True), (2, 9, 1, True), (2, 9, 9, False)]
)
def test_memory_that_pytorch_keeps_for_reuse_is_free(monkeypatch, free, reserved, allocated, fits):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free, 99))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: reserved)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: allocated)
    assert fits_on_device(5, torch.device("cuda")) is fits


def test_a_memory_that_stays_on_the_host_is_told(engine, monkeypatch, caplog):
    monkeypatch.setattr(ready, "fits_on_device", lambda *args: False)
    with caplog.at_level(logging.INFO):
        engine.ask(random_memory(engine, seed=5), "What?", max_new_tokens=1)
    assert "stay on the host" in caplog.text
