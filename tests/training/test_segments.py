"""Questions of a record as samples that share one memory have the gradients of separate samples."""

import pytest
import torch

from conftest import tiny_config, tiny_model
from hourllava.data.batches.samples import RowEncoder
from hourllava.inference.memories.encoder import EncoderIdentity
from hourllava.inference.memories.memory import Memory, WatchedSource
from hourllava.model.config import MemAugConfig
from hourllava.model.processor import HourLlavaProcessor

NUM_FRAMES, NUM_TOKENS, WIDTH = 20, 16, 24  # of the tiny model
QUESTIONS = [("<image>\nWhat happens first?", "Rain."), ("And then?", "The sun comes out."), ("Where?", "At sea.")]
EVIDENCE = [[[0.0, 3.0]], [[5.0, 6.0], [9.0, 11.0]], None]


def gradients(model, processor, *rows):
    """Summed loss of micro-batches, and its gradients."""
    model.zero_grad()
    total = torch.zeros((), dtype=torch.float64)
    for samples in rows:
        output = model(**processor.collate_packed(samples), grounding_weight=0.7, num_items_in_batch=1)
        output.loss.backward()
        total += output.loss.detach()
    return total, {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize(
    "memaug", [{}, {"recall": "question", "recall_tokens": 3}, {"recall": "question", "recall_tokens": 0}]
)
def test_questions_that_share_a_memory_have_the_gradients_of_questions_apart(memaug, tokenizer, tmp_path):
    torch.manual_seed(0)
    features = torch.randn(NUM_FRAMES, NUM_TOKENS, WIDTH).bfloat16()
    times = torch.arange(NUM_FRAMES).double().numpy()
    Memory(features, times, times, fps=1.0, duration_seconds=float(NUM_FRAMES), source=WatchedSource("v.mp4"),
           encoder=EncoderIdentity("d", WIDTH, 4)).save(tmp_path / "v.safetensors")  # fmt: skip
    turns = [{"from": speaker, "value": text} for pair in QUESTIONS for speaker, text in zip(("human", "gpt"), pair)]
    for answer, evidence in zip(turns[1::2], EVIDENCE):
        answer["evidence"] = evidence
    config = tiny_config(memaug=MemAugConfig(**memaug))
    model, processor = tiny_model(config), HourLlavaProcessor(tokenizer, config)
    encoder = RowEncoder(processor, tmp_path, questions="segments")
    shared = encoder({"video": "v.safetensors", "text": {"id": "r", "conversations": turns}}, seed=3)
    apart = [
        encoder({"video": "v.safetensors", "text": {"id": "r", "conversations": pair}}, seed=3)
        for pair in ([turns[0], turns[1]], question(turns, 1), question(turns, 2))
    ]

    visuals = processor.collate_packed(shared)["visuals"]
    assert visuals.memory_segments.lengths == (NUM_FRAMES * (NUM_TOKENS + 1),)
    assert visuals.evidence.entry_segments.lengths == (3 * (NUM_TOKENS + 1), 3 * (NUM_TOKENS + 1))
    loss, together = gradients(model, processor, shared)
    expected_loss, expected = gradients(model, processor, *apart)
    torch.testing.assert_close(loss, expected_loss)
    assert together.keys() == expected.keys()
    for name, gradient in together.items():
        torch.testing.assert_close(
            gradient, expected[name], atol=1e-9, rtol=1e-6, msg=lambda text, n=name: f"{n}: {text}"
        )


def question(turns, number):
    asked, answer = turns[2 * number : 2 * number + 2]
    return [asked | {"value": f"<image>\n{asked['value']}"}, answer]
