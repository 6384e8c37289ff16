"""Attention behind a common prefix equals attention over prefix and own tokens as one sequence."""

import functools
import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from conftest import examples
from hourllava.model import attention_kernels as kernels
from hourllava.model import prefix_attention
from hourllava.model.prefix_attention import Prefixed, Prompts, attention_behind_prefix
from model.test_attention import naive


@examples(60)
@given(
    rows=st.integers(1, 3), queries=st.integers(1, 9), prefix=st.integers(1, 12), more=st.integers(0, 4),
    groups=st.integers(1, 3), shared=st.integers(1, 3), hidden=st.integers(0, 5), most=st.sampled_from([1, 60, 2**26]),
)  # fmt: skip
def test_attention_behind_a_prefix_is_that_over_both(rows, queries, prefix, more, groups, shared, hidden, most):
    generator = torch.Generator().manual_seed(rows + 10 * queries + 100 * prefix)
    make = functools.partial(torch.randn, generator=generator, dtype=torch.float64)
    own = queries + more
    query = make(rows, groups * shared, queries, 4)
    prefixes, own_key, own_value = make(2, groups, prefix, 4), make(rows, groups, own, 4), make(rows, groups, own, 4)
    causal = torch.ones(queries, own, dtype=torch.bool).tril(more).expand(rows, 1, -1, -1)
    bias = torch.zeros(rows, prefix, dtype=torch.float64)
    bias[0, : min(hidden, prefix)] = -torch.inf
    keys, values = (
        torch.cat([prefixes[role].expand(rows, -1, -1, -1), tensor], 2).repeat_interleave(shared, 1)
        for role, tensor in enumerate((own_key, own_value))
    )
    scores = (query @ keys.transpose(-1, -2)) / 2
    scores[..., :prefix] += bias[:, None, None]
    scores[..., prefix:] = scores[..., prefix:].masked_fill(~causal, -torch.inf)
    expected = (scores.softmax(-1) @ values).transpose(1, 2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prefix_attention, "MAX_WRITTEN_SCORES", most)
        for mask in (causal, torch.where(causal, 0.0, -torch.inf).double()):
            actual = attention_behind_prefix(
                query, Prefixed(prefixes[0], own_key, bias), Prefixed(prefixes[1], own_value, bias), mask, None
            )
            torch.testing.assert_close(actual, expected)


def prompts_behind(prefix, lengths, num_own, num_pieces, heads, groups, width=4, dtype=torch.float64):
    """Prompts behind `prefix`, a slice of a buffer, filled up to `num_own` tokens.

    Returns:
        query, keys, values and what each prompt gets by the formula, [L, H, E].
    """
    generator = torch.Generator().manual_seed(num_own + 10 * sum(lengths))
    make = functools.partial(torch.randn, generator=generator, dtype=dtype)
    query = make(1, heads, num_own, width)
    buffers, own = make(2, groups, prefix.stop + 3, width), make(2, 1, groups, num_own, width)
    ends = list(itertools.accumulate(lengths))
    own_offsets = torch.tensor([0, *ends, num_own, num_own], dtype=torch.int32)
    prefix_offsets = torch.linspace(prefix.start, prefix.stop, num_pieces + 1).int()
    prompts = Prompts(own_offsets, prefix_offsets)
    expected = []
    for start, end in itertools.pairwise([0, *ends]):
        parts = ((buffers[role][:, prefix], own[role, 0, :, start:end]) for role in range(2))
        key, value = (torch.cat(part, 1).transpose(0, 1).double() for part in parts)
        expected.append(naive(query[0, :, start:end].transpose(0, 1).double(), key, value, causal=True))
    keys, values = (Prefixed(buffer, tensor, prompts=prompts) for buffer, tensor in zip(buffers, own))
    return query, keys, values, expected


def varlen_by_formula(query, key, value, query_offsets, key_offsets, max_queries, max_keys, *, causal=False, **options):
    outputs, lses = torch.full_like(query, torch.nan), query.new_full(query.shape[:2], torch.nan)
    group = query.shape[1] // key.shape[1]
    for queries, keys in zip(*map(itertools.pairwise, (query_offsets.tolist(), key_offsets.tolist()))):
        queries, keys = slice(*queries), slice(*keys)
        assert queries.stop - queries.start <= max_queries
        assert keys.stop - keys.start <= max_keys
        outputs[queries] = naive(query[queries], key[keys], value[keys], causal)
        scores = torch.einsum("qhe,khe->hqk", query[queries], key[keys].repeat_interleave(group, 1)) * options["scale"]
        if causal:
            scores = scores.masked_fill(torch.ones_like(scores).triu(1).bool(), -torch.inf)
        lses[queries] = scores.logsumexp(-1).transpose(0, 1)
    return outputs, lses.transpose(0, 1)


@examples(60)
@given(
    lengths=st.lists(st.integers(1, 6), min_size=1, max_size=4), filler=st.integers(0, 5), start=st.integers(0, 5),
    size=st.integers(4, 12), pieces=st.integers(1, 4), groups=st.integers(1, 3), shared=st.integers(1, 3),
    flash=st.booleans(), most=st.sampled_from([1, 60, 2**26]),
)  # fmt: skip
def test_prompts_behind_a_prefix_see_it_and_themselves(
    lengths, filler, start, size, pieces, groups, shared, flash, most
):
    """In parts, with the formula in place of the kernel, and written out."""
    query, keys, values, expected = prompts_behind(
        slice(start, start + size), lengths, sum(lengths) + filler, pieces, groups * shared, groups
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prefix_attention, "MAX_WRITTEN_SCORES", most)
        patch.setattr(kernels, "can_flash", lambda query: flash)
        patch.setattr(kernels, "varlen", varlen_by_formula)
        actual = attention_behind_prefix(query, keys, values, None, None)
    for one, wanted in zip(actual[0].split([*lengths, filler]), expected):
        torch.testing.assert_close(one, wanted)
    assert not actual.isnan().any()


@pytest.mark.gpu
@pytest.mark.parametrize("pieces", [1, 3, 16])
@pytest.mark.parametrize(("heads", "groups"), [(16, 2), (28, 4), (4, 4)])
def test_prompts_behind_a_prefix_on_cuda(pieces, heads, groups):
    lengths = (100, 1, 37)
    query, keys, values, expected = prompts_behind(
        slice(700, 3000), lengths, 256, pieces, heads, groups, 64, torch.bfloat16
    )
    on_cuda = Prompts(keys.prompts.own_offsets.cuda(), keys.prompts.prefix_offsets.cuda())
    keys, values = (Prefixed(one.prefix_GPE.cuda(), one.own_RGKE.cuda(), prompts=on_cuda) for one in (keys, values))
    assert kernels.can_flash(query.cuda())
    actual = attention_behind_prefix(query.cuda(), keys, values, None, None)
    for one, wanted in zip(actual[0].split([*lengths, 256 - sum(lengths)]), expected):
        error = (one.double().cpu() - wanted).norm() / wanted.norm()
        assert error < 1e-2, error
