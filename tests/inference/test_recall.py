"""Asking a model with recall tokens: the engine answers as the model alone, and evidence is what recall tokens see."""

import numpy as np
import pytest
import torch

from conftest import tiny_config, tiny_model
from hourllava.inference.engine import HourLlava
from hourllava.inference.memories.ready import make_ready
from hourllava.inference.questions.evidence import WatchedQueries
from hourllava.inference.questions.prompt import Context, PromptMaker
from hourllava.model.config import MemAugConfig
from hourllava.model.kept_prefix import can_keep_prefix
from hourllava.model.messages import Video
from hourllava.model.processor import HourLlavaProcessor
from inference.memories import random_memory

NUM_TOKENS = 5


@pytest.fixture(scope="module", params=[NUM_TOKENS, 0])
def engine(request, tokenizer):
    config = tiny_config(memaug=MemAugConfig(recall="question", recall_tokens=request.param))
    return HourLlava(tiny_model(config).float(), HourLlavaProcessor(tokenizer, config))


def generated(engine, memory, *texts):
    """What the model alone answers to turns of a conversation, the last of them the question."""
    video = Video(memory.duration_seconds, features=memory.features, num_frames=len(memory))
    first = [{"type": "video", "video": video}, {"type": "text", "text": texts[0]}]
    messages = [{"role": "user", "content": first}]
    for number, text in enumerate(texts[1:], 1):
        messages.append({"role": "assistant" if number % 2 else "user", "content": text})
    sample = engine.processor.encode(messages, add_generation_prompt=True, seed=memory.snapshot().content_seed)
    inputs = engine.processor.collate([sample], for_generation=True)
    stops = list(engine.processor.stop_ids)
    ids = engine.model.generate(**inputs, max_new_tokens=12, do_sample=False, eos_token_id=stops, pad_token_id=stops[0])
    return engine.processor.decode(ids[0, inputs["input_ids"].shape[1] :])


def test_the_engine_answers_as_the_model_alone(engine):
    memory = random_memory(engine, 40)
    questions = ["What happens?", "Who sleeps on the sofa, and when?", "Why?"]
    answers = [answer.text for answer in engine.ask_all(memory, questions, max_new_tokens=12)]
    assert answers == [generated(engine, memory, question) for question in questions]
    history = [("What happens?", answers[0])]
    followed = engine.ask(memory, "Why?", history=history, max_new_tokens=12).text
    assert followed == generated(engine, memory, "What happens?", answers[0], "Why?")


def told(engine, memory):
    answer = engine.ask(memory, "What?", max_new_tokens=8)
    return answer.text, answer.evidence


def test_answers_about_a_growing_memory_are_those_about_one_watched_at_once(engine):
    growing, whole = random_memory(engine, 30), random_memory(engine, 30)
    later = random_memory(engine, 20, seed=1)
    before = told(engine, growing)
    for memory in (growing, whole):
        times = 30 + np.arange(20.0)
        memory.append(later.features, times, times, duration_seconds=50.0)
    assert told(engine, growing) == told(engine, whole)
    assert told(engine, random_memory(engine, 30)) == before


def test_evidence_is_what_recall_tokens_look_at(engine, monkeypatch):
    watched = []
    observe = WatchedQueries.observe
    monkeypatch.setattr(
        WatchedQueries, "observe", lambda self, query, memory: watched.append(self) or observe(self, query, memory)
    )
    memory = random_memory(engine, 40)
    assert engine.ask(memory, "What?", max_new_tokens=1).evidence
    ready = make_ready(memory.snapshot(), engine.model.model)
    assert len(watched[0].rows) == (engine.model.config.memaug.num_recall_tokens or len(ready.layout.kept_index))


def test_a_prompt_is_the_published_one_with_recall_tokens(engine, tokenizer):
    published = HourLlava(tiny_model().float(), HourLlavaProcessor(tokenizer, tiny_config()))
    lengths, texts = [], []
    for one in (engine, published):
        ready = make_ready(random_memory(one, 40).snapshot(), one.model.model)
        for keeps_prefix in {False, can_keep_prefix(one.model.config)}:
            prompts = PromptMaker(one.model, one.processor)
            prompts.keeps_prefix = keeps_prefix
            prompt = prompts.prompt(ready, "What?", "What?", Context())
            lengths.append(prompt.num_tokens)
            texts.append(prompt.num_tokens - prompt.num_video_tokens)  # recall tokens are no text
    assert len(set(texts)) == 1
    assert set(lengths[:-1]) == {lengths[-1] + engine.model.config.memaug.num_recall_tokens}


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_a_thinned_memory_is_asked_too(engine, share):
    memory = random_memory(engine, 40)
    thin = make_ready(memory.snapshot(), engine.model.model, share)
    prompts = PromptMaker(engine.model, engine.processor)
    whole, thinned = (
        prompts.prompt(ready, "What?", "What?", Context()).take_embeds()
        for ready in (make_ready(memory.snapshot(), engine.model.model), thin)
    )
    assert whole.shape == thinned.shape
    assert not torch.allclose(whole, thinned, atol=1e-3)
