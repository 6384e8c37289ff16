"""The two measures of attention shares: against the softmax written out, and against each other."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from conftest import examples
from hourllava.model import attention_kernels as kernels
from hourllava.model import attention_share
from hourllava.model.attention import Segments
from hourllava.model.attention_share import KeyRuns, share_of_each_run, share_of_marked_keys


def heads(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


def softmax_shares(query, key, num_runs, run_of_key):
    """Written out in float64."""
    key = key.double().repeat_interleave(query.shape[1] // key.shape[1], 1)
    scores = torch.einsum("qhe,khe->hqk", query.double(), key) / query.shape[-1] ** 0.5
    return torch.zeros(num_runs, dtype=torch.float64).index_add(0, run_of_key, scores.softmax(-1).mean((0, 1)))


@examples(150)
@given(
    lengths=st.one_of(
        st.lists(st.integers(1, 9), min_size=1, max_size=30),
        st.builds(lambda length, number: [length] * number, st.integers(1, 9), st.integers(1, 60)),
    ),
    sizes=st.sampled_from([(1, 1, 1, 8), (9, 4, 2, 8), (5, 6, 1, 3), (3, 2, 2, 1), (4, 2, 1, 2)]),
    num_chunks=st.integers(1, 4),
    max_bytes=st.sampled_from([1, 3000, 2**28]),
    spread=st.sampled_from([0.1, 1.0, 30.0]),
)
def test_shares_of_runs_are_the_softmax_written_out(lengths, sizes, num_chunks, max_bytes, spread):
    """Runs of any length, cut anywhere by chunks, whatever fits at a time."""
    num_queries, num_heads, num_groups, width = sizes
    run_of_key = np.repeat(np.arange(len(lengths)), lengths)
    query, key = heads(num_queries, num_heads, width) * spread, heads(len(run_of_key), num_groups, width)
    chunks = [chunk for chunk in key.tensor_split(num_chunks) if len(chunk)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(attention_share, "MAX_OUTPUT_BYTES", max_bytes)
        shares = share_of_each_run(query[None], chunks, KeyRuns(run_of_key))[0]
    expected = softmax_shares(query, key, len(lengths), torch.from_numpy(run_of_key))
    torch.testing.assert_close(shares, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_shares_in_other_dtypes(dtype):
    query, key = heads(9, 4, 8).to(dtype), heads(340, 2, 8).to(dtype)
    run_of_key = np.arange(340) // 17
    shares = share_of_each_run(query[None], [key], KeyRuns(run_of_key))[0]
    expected = softmax_shares(query, key, 20, torch.from_numpy(run_of_key))
    torch.testing.assert_close(shares, expected, atol=1e-9 if dtype == torch.float64 else 1e-3, rtol=0)


@pytest.mark.parametrize("num_chunks", [1, 3])
@pytest.mark.parametrize("max_bytes", [1, 4_000, 2**28])
def test_sets_of_queries_have_the_shares_that_each_has_alone(num_chunks, max_bytes, monkeypatch):
    monkeypatch.setattr(attention_share, "MAX_OUTPUT_BYTES", max_bytes)
    query, key = heads(3 * 5, 4, 8).unflatten(0, (3, 5)), heads(340, 2, 8)
    query[1] *= 9
    runs = KeyRuns(np.arange(340) // 17)
    together = share_of_each_run(query, list(key.tensor_split(num_chunks)), runs)
    alone = [share_of_each_run(one[None], [key], runs)[0] for one in query]
    torch.testing.assert_close(together, torch.stack(alone), atol=1e-6, rtol=0)
    assert (together[0] - together[1]).abs().max() > 0.01


class CountedKeys(torch.Tensor):
    """Keys that count how often they are copied."""

    copies = 0

    def to(self, *args, **kwargs):
        CountedKeys.copies += 1
        return super().to(*args, **kwargs).as_subclass(torch.Tensor)


@pytest.mark.parametrize(("num_chunks", "most"), [(1, 1), (2, 4), (7, 14)])
def test_chunks_are_copied_at_most_twice_however_many_queries(num_chunks, most):
    """A memory of a day has 90 chunks on the host: they must not be copied for each few queries."""
    CountedKeys.copies = 0
    query, key = heads(50, 4, 8), heads(70, 2, 8)
    chunks = [part.as_subclass(CountedKeys) for part in key.tensor_split(num_chunks)]
    shares = share_of_each_run(query[None], chunks, KeyRuns(np.arange(70)))[0]
    torch.testing.assert_close(shares, softmax_shares(query, key, 70, torch.arange(70)), atol=1e-5, rtol=0)
    assert CountedKeys.copies <= most


def test_no_more_is_held_than_was_said(monkeypatch):
    """Outputs of attention at a time: as many bytes as allowed, or one segment's."""
    held = []
    attend = kernels.with_lse

    def noted(*args):
        output, lse = attend(*args)
        held.append(output.nbytes)
        return output, lse

    monkeypatch.setattr(kernels, "with_lse", noted)
    query, key = heads(50, 4, 8), heads(7 * 600, 2, 8)
    of_a_segment = 50 * 4 * 8 * 4
    for allowed in (1, 3 * of_a_segment, 2**28):
        held.clear()
        monkeypatch.setattr(attention_share, "MAX_OUTPUT_BYTES", allowed)
        share_of_each_run(query[None], [key], KeyRuns(np.arange(7 * 600) // 7))
        assert max(held) <= max(allowed, of_a_segment)
        assert sum(held) >= 600 // 8 * of_a_segment


@pytest.mark.gpu
@pytest.mark.parametrize("num_chunks", [1, 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_cuda_shares_are_the_softmax_written_out(dtype, num_chunks):
    query, key = heads(200, 8, 64).to(dtype) * 2, heads(65 * 300, 2, 64).to(dtype)
    lengths = [65] * 200 + [17] * 200 + [65] * 100
    run_of_key = np.repeat(np.arange(500), lengths)[: len(key)]
    for runs in (np.arange(len(key)) // 65, run_of_key):
        chunks = key.tensor_split(num_chunks) if num_chunks > 1 else [key.cuda()]
        shares = share_of_each_run(query.cuda()[None], chunks, KeyRuns(runs)).cpu()[0]
        expected = softmax_shares(query, key, runs[-1] + 1, torch.from_numpy(runs))
        error = ((shares - expected).norm() / expected.norm()).item()
        assert error < (1e-5 if dtype == torch.float32 else 0.02), error


def test_marked_keys_have_the_share_that_each_of_them_has():
    """Two segments; some keys of each are marked."""
    query, key = heads(9, 4, 8), heads(30, 2, 8)
    marked = torch.tensor([2, 3, 11, 20, 29])
    queries = Segments((5, 4))
    shares_QH = share_of_marked_keys(query, key, marked, (queries, queries), Segments((12, 18)), Segments((3, 2)))
    first, second = shares_QH.mean(1).split((5, 4))
    in_first = share_of_each_run(query[:5][None], [key[:12]], KeyRuns(np.arange(12))).float()[0]
    in_second = share_of_each_run(query[5:][None], [key[12:]], KeyRuns(np.arange(18))).float()[0]
    torch.testing.assert_close(first.mean(), in_first[[2, 3, 11]].sum())
    torch.testing.assert_close(second.mean(), in_second[[8, 17]].sum())
