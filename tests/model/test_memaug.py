"""MemAug alone: what the lengths of its inputs' vectors do, and where they stand."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from conftest import tiny_config, tiny_model
from hourllava.model.attention import Segments
from hourllava.model.config import MemAugConfig
from hourllava.model.memaug import MemoryKeysValues, PartialRotaryEmbedding

WIDTH = 32
QUERIES, TOKENS = 7, 20
CLOSE = {"atol": 1e-4, "rtol": 1e-4}


@pytest.fixture
def inputs():
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(count, WIDTH, generator=generator, dtype=torch.float64) for count in (QUERIES, TOKENS)]


def augmented(memaug, queries_QD, tokens_PD, *, shift=0):
    """What comes out if all stand `shift` positions further on."""
    memory = memaug.keys_values(tokens_PD, torch.arange(TOKENS), shift + torch.arange(TOKENS))
    queries, entries = Segments((QUERIES,)), Segments((TOKENS,))
    return memaug(queries_QD, shift + torch.arange(QUERIES), memory, queries, queries, entries)


def memaug_of(**settings):
    return tiny_model(tiny_config(memaug=MemAugConfig(**settings))).model.memaug


@torch.no_grad()
def test_normalized_inputs_count_alike_however_long_they_are(inputs):
    queries, tokens = inputs
    text = torch.cat([queries[:3], queries[3:] / 100])  # text's embeddings are short beside projected features
    memaug = memaug_of(normalize_inputs=True)
    torch.testing.assert_close(augmented(memaug, text, 100 * tokens), augmented(memaug, queries, tokens), **CLOSE)

    published = memaug_of()
    assert not torch.allclose(augmented(published, text, 100 * tokens), augmented(published, queries, tokens), **CLOSE)


@torch.no_grad()
def test_normalized_inputs_are_those_of_root_mean_square_one(inputs):
    queries, tokens = inputs
    expected = augmented(memaug_of(), *(F.rms_norm(vectors, [WIDTH]) for vectors in inputs))
    torch.testing.assert_close(augmented(memaug_of(normalize_inputs=True), queries, tokens), expected, **CLOSE)


@pytest.mark.parametrize("hours", [0, 1, 8, 24, 100])
@pytest.mark.parametrize("base", [1e4, 1e6])
def test_angles_are_exact_wherever_an_entry_stands(hours, base):
    """Against numpy in float64, and neighbours as far apart as at the start: 64 tokens and a newline a second."""
    rotary = PartialRotaryEmbedding(128, 0.5, base)
    first = hours * 3600 * 65
    cos, sin = rotary.angles(torch.arange(first, first + 200))
    assert cos.dtype == sin.dtype == torch.float32
    frequencies = base ** -(np.arange(0, 64, 2) / 64)
    expected = np.arange(first, first + 200, dtype=np.float64)[:, None] * frequencies
    np.testing.assert_allclose(cos[:, 0].numpy(), np.cos(expected), atol=1e-6, rtol=0)
    np.testing.assert_allclose(sin[:, 0].numpy(), np.sin(expected), atol=1e-6, rtol=0)
    steps = torch.complex(cos[1:, 0], sin[1:, 0]) * torch.complex(cos[:-1, 0], -sin[:-1, 0])
    np.testing.assert_allclose(steps.numpy(), np.exp(1j * frequencies)[None].repeat(199, 0), atol=1e-6, rtol=0)


@torch.no_grad()
def test_a_rotated_value_tells_how_far_from_the_query_it_lies(inputs):
    queries, tokens = inputs
    attention = memaug_of(rotate_values=True).blocks[0].cross_attn.double()
    rotary = attention.rotary

    def found(at, query_at):  # a memory of one token, so that attention has no choice
        key, value = attention.keys_values(tokens[:1], torch.zeros(1, dtype=int), rotary.angles(torch.tensor([at])))
        memory = MemoryKeysValues([key], [value])
        one = Segments((1,))
        return attention(queries[:1], rotary.angles(torch.tensor([query_at])), memory, one, one)

    torch.testing.assert_close(found(1005, 1000), found(5, 0), **CLOSE)
    assert not torch.allclose(found(6, 0), found(5, 0), **CLOSE)
    attention.rotates_values = False
    torch.testing.assert_close(found(6, 0), found(5, 0), **CLOSE)


@pytest.mark.parametrize("rotate_values", [False, True])
@torch.no_grad()
def test_only_distances_count(inputs, rotate_values):
    memaug = memaug_of(rotate_values=rotate_values)
    torch.testing.assert_close(augmented(memaug, *inputs, shift=1000), augmented(memaug, *inputs), **CLOSE)
