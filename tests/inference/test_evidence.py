"""Evidence: attention mass against the written-out softmax, and spans with known answers."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hourllava.inference import evidence
from hourllava.inference.evidence import AttentionMass, spans_of
from hourllava.model.memaug import MemoryKeysValues


@pytest.mark.parametrize("num_chunks", [1, 3])
@pytest.mark.parametrize("max_scores", [2**25, 100])
def test_mass_is_the_mean_attention_of_the_kept_tokens(num_chunks, max_scores, monkeypatch):
    monkeypatch.setattr(evidence, "MAX_SCORES", max_scores)
    generator = torch.Generator().manual_seed(0)
    query, key = torch.randn(9, 4, 8, generator=generator), torch.randn(30, 2, 8, generator=generator)
    rows = torch.tensor([2, 3, 7])
    mass = AttentionMass(rows, 30)
    chunks = list(key.tensor_split(num_chunks))
    for _ in range(2):  # two blocks alike
        mass.observe(query, MemoryKeysValues(chunks, chunks))
    scores = torch.einsum("qhe,khe->hqk", query[rows], key.repeat_interleave(2, 1)) / 8**0.5
    torch.testing.assert_close(mass.mass_M / 2, scores.softmax(-1).mean((0, 1)))
    shares = mass.per_frame(10, np.arange(30) // 3)
    assert shares.sum() == pytest.approx(1, abs=1e-5)
    np.testing.assert_allclose(shares[4], scores.softmax(-1).mean((0, 1))[12:15].sum(), rtol=1e-4)


def test_of_many_kept_tokens_some_are_watched(monkeypatch):
    monkeypatch.setattr(evidence, "MAX_QUERIES", 5)
    generator = torch.Generator().manual_seed(0)
    query, key = torch.randn(40, 4, 8, generator=generator), torch.randn(30, 2, 8, generator=generator)
    rows = torch.arange(3, 37)
    few, again = AttentionMass(rows, 30), AttentionMass(rows, 30)
    assert few.queries.tolist() == again.queries.tolist()
    assert len(set(few.queries.tolist()) & set(rows.tolist())) == 5
    few.observe(query, MemoryKeysValues([key], [key]))
    scores = torch.einsum("qhe,khe->hqk", query[few.queries], key.repeat_interleave(2, 1)) / 8**0.5
    torch.testing.assert_close(few.mass_M, scores.softmax(-1).mean((0, 1)))


def test_spans_grow_around_peaks_to_half_their_height():
    share = np.array([0, 0.1, 0.3, 0.2, 0, 0, 0.25, 0, 0.1, 0.05])
    spans = spans_of(share, np.arange(10.0) * 2, 20.0, max_spans=2)
    assert [(span.start_seconds, span.end_seconds) for span in spans] == [(4, 8), (12, 14)]
    assert [span.weight for span in spans] == pytest.approx([0.5, 0.25])


def test_spans_are_a_minute_at_most():
    spans = spans_of(np.full(300, 1 / 300), np.arange(300.0), 300.0)
    assert len(spans) == 3
    assert all(span.end_seconds - span.start_seconds <= 60 for span in spans)


def test_spans_keep_real_times():
    """A video of variable frame rate: frames at 0, 0.4 and 7.25 s, the last until 9 s."""
    spans = spans_of(np.array([0.1, 0.1, 0.8]), np.array([0.0, 0.4, 7.25]), 9.0, max_spans=1)
    assert (spans[0].start_seconds, spans[0].end_seconds) == (7.25, 9.0)


@settings(max_examples=100)
@given(
    shares=st.lists(st.floats(0, 1), min_size=1, max_size=200).filter(lambda part: sum(part) > 0),
    step=st.floats(0.1, 30),
    count=st.integers(1, 6),
)
def test_spans_do_not_overlap_and_weigh_what_they_hold(shares, step, count):
    share = np.array(shares) / sum(shares)
    times = np.arange(len(share)) * step
    spans = spans_of(share, times, times[-1] + step, max_spans=count)
    assert 1 <= len(spans) <= count
    assert [span.weight for span in spans] == sorted((span.weight for span in spans), reverse=True)
    ordered = sorted(spans, key=lambda span: span.start_seconds)
    assert all(a.end_seconds <= b.start_seconds for a, b in itertools.pairwise(ordered))
    for span in spans:
        inside = (times >= span.start_seconds) & (times < span.end_seconds)
        assert span.weight == pytest.approx(share[inside].sum())
    assert any(span.start_seconds <= times[share.argmax()] < span.end_seconds for span in spans)
