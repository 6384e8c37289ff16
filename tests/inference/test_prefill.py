"""The prefill: the released logits, those of every family, and no plan for a new length."""

import pytest
import torch
from transformers import DynamicCache

from conftest import GOLDEN
from hourllava.inference.rows.prefill import prefill
from hourllava.model import attention
from hourllava.model import attention_kernels as kernels
from hourllava.model.checkpoint import load_model
from model.test_attention import naive
from model.test_backbones import CASES, pair
from parity.check import TOLERANCE, Case, listed_cases


@pytest.mark.parametrize("family", ["tiny_features", "tiny_pixels"])
def test_logits_are_the_released_ones(family):
    """Each golden prompt that ends with a token and not with padding."""
    names = [name for name, model in listed_cases(GOLDEN).items() if model == family]
    model, _ = load_model(GOLDEN / family)
    num_prompts = 0
    for case in (Case(GOLDEN / f"{name}.safetensors") for name in names):
        rows = zip(case["expected_inputs_embeds"], case["expected_attention_mask"], case["expected_logits_tail"])
        for embeds_LD, mask_L, logits_TV in rows:
            if mask_L.all():
                num_prompts += 1
                error = (prefill(model, embeds_LD).logits_V - logits_TV[-1]).abs().max()
                assert error < TOLERANCE, (case.name, error)
    assert num_prompts >= 2


@pytest.mark.parametrize(("family", "fields"), CASES)
def test_logits_keys_and_values_are_the_families_own(family, fields):
    own, ours = pair(family, fields)
    ids = torch.randint(0, 100, (23,), generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        expected = own(ids[None]).logits[0, -1]
        plain = ours(ids[None], past_key_values=DynamicCache(), use_cache=True).past_key_values
        logits, keys, values, _ = prefill(ours, ours.get_input_embeddings()(ids))
    torch.testing.assert_close(logits, expected, atol=1e-5, rtol=1e-5)
    for layer, key, value in zip(plain.layers, keys, values, strict=True):
        torch.testing.assert_close(key, layer.keys[0])
        torch.testing.assert_close(value, layer.values[0])


@pytest.mark.parametrize("min_scores", [2**60, 1])
def test_prompts_of_neighbouring_lengths_share_a_plan(model, monkeypatch, min_scores):
    """Whether cuDNN serves prefills is one constant; rounded up or not, the logits are the same."""
    lengths = []

    def noted(query, key, value, causal, scale):
        lengths.append(query.shape[2])
        parts = (part[0].transpose(0, 1) for part in (query, key, value))
        return naive(*parts, causal=causal).transpose(0, 1)[None]

    prompts = torch.randn(50, model.config.text_config.hidden_size, dtype=model.dtype)
    expected = [prefill(model, prompts[:length]).logits_V for length in range(33, 41)]
    monkeypatch.setattr(attention, "MIN_PREFILL_SCORES_FOR_CUDNN", min_scores)
    monkeypatch.setattr(attention, "TOKENS_OF_A_PLAN", 8)
    monkeypatch.setattr(attention, "MIN_SCORES_ALONE", 1)
    monkeypatch.setattr(kernels, "can_flash", lambda query: True)
    monkeypatch.setattr(kernels, "can_cudnn", lambda query: True)
    monkeypatch.setattr(kernels, "cudnn", noted)
    monkeypatch.setattr(kernels, "flash", noted)
    for length, logits in zip(range(33, 41), expected):
        torch.testing.assert_close(prefill(model, prompts[:length]).logits_V, logits)
    assert set(lengths) == ({40} if min_scores == 1 else set(range(33, 41)))
