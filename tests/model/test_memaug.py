"""MemAug alone: what the lengths of its inputs' vectors do."""

import pytest
import torch
import torch.nn.functional as F

from conftest import tiny_config, tiny_model
from hourllava.model.attention import Segments
from hourllava.model.config import MemAugConfig

WIDTH = 32
QUERIES, TOKENS = 7, 20
CLOSE = {"atol": 1e-4, "rtol": 1e-4}


@pytest.fixture
def inputs():
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(count, WIDTH, generator=generator, dtype=torch.float64) for count in (QUERIES, TOKENS)]


def augmented(memaug, queries_QD, tokens_PD):
    memory = memaug.keys_values(tokens_PD, torch.arange(TOKENS), torch.arange(TOKENS))
    queries, entries = Segments((QUERIES,)), Segments((TOKENS,))
    return memaug(queries_QD, torch.arange(QUERIES), memory, queries, queries, entries)


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
