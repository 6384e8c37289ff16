"""Evidence: attention mass against the written-out softmax, and spans with known answers."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from conftest import examples
from hourllava.inference.memories.shown import shown_from_seconds
from hourllava.inference.questions import evidence
from hourllava.inference.questions.evidence import WatchedQueries, evidence_spans, share_of_frames, shares_of_runs
from hourllava.model.attention_share import KeyRuns
from hourllava.model.memaug import MemoryKeysValues


def shares_of(watched, runs, num_frames=None):
    return share_of_frames(shares_of_runs([watched], runs)[0].numpy(), runs, num_frames)


@pytest.mark.parametrize("num_chunks", [1, 3])
def test_shares_of_frames_are_the_mean_attention_of_the_kept_tokens(num_chunks):
    generator = torch.Generator().manual_seed(0)
    query, key = torch.randn(2, 9, 4, 8, generator=generator), torch.randn(30, 2, 8, generator=generator)
    rows = torch.tensor([2, 3, 7])
    watched = WatchedQueries(rows)
    chunks = list(key.tensor_split(num_chunks))
    for block in query:
        watched.observe(block, MemoryKeysValues(chunks, chunks))
    scores = torch.einsum("bqhe,khe->bhqk", query[:, rows], key.repeat_interleave(2, 1)).double() / 8**0.5
    expected = scores.softmax(-1).mean((0, 1, 2)).unflatten(0, (10, 3)).sum(1)
    shares = shares_of(watched, KeyRuns(np.arange(30) // 3), 12)  # the last two frames have no entry
    np.testing.assert_allclose(shares, [*expected, 0, 0], atol=1e-6)
    assert shares.sum() == pytest.approx(1, abs=1e-5)


def test_of_many_kept_tokens_some_are_watched(monkeypatch):
    monkeypatch.setattr(evidence, "MAX_QUERIES", 5)
    generator = torch.Generator().manual_seed(0)
    query, key = torch.randn(40, 4, 8, generator=generator), torch.randn(30, 2, 8, generator=generator)
    rows = torch.arange(3, 37)
    few, again = WatchedQueries(rows), WatchedQueries(rows)
    assert few.rows.tolist() == again.rows.tolist()
    assert len(set(few.rows.tolist()) & set(rows.tolist())) == 5
    few.observe(query, MemoryKeysValues([key], [key]))
    assert [kept.shape for kept, _ in few.blocks] == [(5, 4, 8)]  # the others are not kept in memory
    assert few.blocks[0][0].untyped_storage().nbytes() == 5 * 4 * 8 * 4
    scores = torch.einsum("qhe,khe->hqk", query[few.rows], key.repeat_interleave(2, 1)) / 8**0.5
    np.testing.assert_allclose(shares_of(few, KeyRuns(np.arange(30))), scores.softmax(-1).mean((0, 1)), rtol=1e-4)


def test_a_model_without_memaug_looks_at_nothing():
    assert shares_of(WatchedQueries(torch.arange(3)), KeyRuns(np.arange(8) // 2)).tolist() == [0, 0, 0, 0]


def test_a_picture_that_stays_is_one_picture():
    """Slides at 0, 5 and 10 s, sampled once a second; peaks amid the first and the last one, the end at 12.5 s."""
    starts = np.repeat([0.0, 5.0, 10.0], [5, 5, 3])
    share = np.zeros(13)
    share[2], share[11] = 0.6, 0.4
    spans = evidence_spans(share, starts, 12.5)
    assert [(span.start_seconds, span.end_seconds) for span in spans] == [(0, 5), (10, 12.5)]
    assert [span.weight for span in spans] == pytest.approx([0.6, 0.4])


@pytest.mark.parametrize("end_seconds", [9.0, 10.0])
def test_a_frame_that_appears_at_the_end_counts_with_the_one_before(end_seconds):
    (span,) = evidence_spans(np.array([0.0, 0.1, 0.9]), np.array([0.0, 4.0, 10.0]), end_seconds, max_spans=1)
    assert (span.start_seconds, span.end_seconds, span.weight) == (4.0, pytest.approx(end_seconds), pytest.approx(1.0))


def test_a_picture_that_stays_for_long_is_cut_every_minute():
    samples = np.arange(200.0)
    shown = np.where(samples < 10, samples, 9.5)  # from 9.5 s on nothing changes
    starts = shown_from_seconds(np.sort(shown), samples)
    assert sorted(set(starts)) == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9.5, 70, 130, 190]
    share = np.zeros(200)
    share[100] = 1
    (span,) = evidence_spans(share, starts, 200.0)
    assert (span.start_seconds, span.end_seconds) == (70, 130)


def test_spans_grow_around_peaks_to_half_their_height():
    share = np.array([0, 0.1, 0.3, 0.2, 0, 0, 0.25, 0, 0.1, 0.05])
    spans = evidence_spans(share, np.arange(10.0) * 2, 20.0, max_spans=2)
    assert [(span.start_seconds, span.end_seconds) for span in spans] == [(4, 8), (12, 14)]
    assert [span.weight for span in spans] == pytest.approx([0.5, 0.25])


def test_spans_are_a_minute_at_most():
    spans = evidence_spans(np.full(300, 1 / 300), np.arange(300.0), 300.0)
    assert len(spans) == 3
    assert all(span.end_seconds - span.start_seconds <= 60 for span in spans)


def test_spans_keep_real_times():
    """A video of variable frame rate: frames at 0, 0.4 and 7.25 s, the last until 9 s."""
    spans = evidence_spans(np.array([0.1, 0.1, 0.8]), np.array([0.0, 0.4, 7.25]), 9.0, max_spans=1)
    assert (spans[0].start_seconds, spans[0].end_seconds) == (7.25, 9.0)


@examples(80)
@given(
    frames=st.lists(
        st.tuples(st.floats(0, 1), st.one_of(st.just(0.0), st.floats(0.1, 90))), min_size=1, max_size=60
    ).filter(lambda frames: sum(share for share, _ in frames) > 0),
    last=st.floats(0.1, 30),
    count=st.integers(1, 6),
)
def test_spans_do_not_overlap_and_weigh_what_they_hold(frames, last, count):
    """Some frames show the picture of the one before them: their times are equal."""
    share = np.array([share for share, _ in frames]) / sum(share for share, _ in frames)
    times = np.cumsum([step for _, step in frames])
    spans = evidence_spans(share, times, times[-1] + last, max_spans=count)
    assert 1 <= len(spans) <= count
    pictures = [*np.unique(times), times[-1] + last]
    for span in spans:
        assert span.start_seconds < span.end_seconds
        assert {span.start_seconds, span.end_seconds} <= set(pictures)
        is_one = pictures.index(span.end_seconds) == pictures.index(span.start_seconds) + 1
        assert is_one or span.end_seconds - span.start_seconds <= evidence.MAX_SPAN_SECONDS
    assert [span.weight for span in spans] == sorted((span.weight for span in spans), reverse=True)
    ordered = sorted(spans, key=lambda span: span.start_seconds)
    assert all(a.end_seconds <= b.start_seconds for a, b in itertools.pairwise(ordered))
    for span in spans:
        inside = (times >= span.start_seconds) & (times < span.end_seconds)
        assert span.weight == pytest.approx(share[inside].sum())
    whole = [share[times == time].sum() for time in pictures[:-1]]
    assert any(span.start_seconds <= pictures[int(np.argmax(whole))] < span.end_seconds for span in spans)
