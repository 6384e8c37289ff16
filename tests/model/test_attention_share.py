"""The two measures of attention shares: against the softmax written out, and against each other."""

import pytest
import torch

from hourllava.model import attention_share
from hourllava.model.attention import Segments
from hourllava.model.attention_share import share_of_each_key, share_of_marked_keys


def heads(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


@pytest.mark.parametrize("num_chunks", [1, 4])
@pytest.mark.parametrize("max_scores", [2**25, 1])
def test_share_of_each_key_is_the_mean_softmax_weight(num_chunks, max_scores, monkeypatch):
    monkeypatch.setattr(attention_share, "MAX_SCORES", max_scores)
    query, key = heads(9, 4, 8), heads(30, 2, 8)
    scores = torch.einsum("qhe,khe->hqk", query, key.repeat_interleave(2, 1)) / 8**0.5
    shares = share_of_each_key(query, key.tensor_split(num_chunks))
    torch.testing.assert_close(shares, scores.softmax(-1).mean((0, 1)))


def test_marked_keys_have_the_share_that_each_of_them_has():
    """Two segments; some keys of each are marked."""
    query, key = heads(9, 4, 8), heads(30, 2, 8)
    marked = torch.tensor([2, 3, 11, 20, 29])
    queries = Segments((5, 4))
    shares_QH = share_of_marked_keys(query, key, marked, (queries, queries), Segments((12, 18)), Segments((3, 2)))
    first, second = shares_QH.mean(1).split((5, 4))
    in_first, in_second = share_of_each_key(query[:5], [key[:12]]), share_of_each_key(query[5:], [key[12:]])
    torch.testing.assert_close(first.mean(), in_first[[2, 3, 11]].sum())
    torch.testing.assert_close(second.mean(), in_second[[8, 17]].sum())
