"""The share of attention that falls on keys: measured for the evidence of an answer, and taught by grounding.

Both ask for the same number, the softmax weights of some keys added up. Evidence needs it for every key and without a
gradient, so scores are written out, a few queries at a time. Grounding needs it with a gradient and for few keys, so it
is the ratio of two softmax denominators, which the kernels give.

Shapes: Q queries, K keys, H query heads, G key/value heads (H a multiple of G), N = H / G, E head width.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from hourllava.model.attention import Segments, cut_into_chunks, log_sum_exp

# Scores are made for at most this many (query, head, key) triples at a time: 128 MiB.
MAX_SCORES = 2**25


def share_of_each_key(query_QHE: Tensor, keys: Sequence[Tensor]) -> Tensor:
    """[K] share of each key in the attention of one segment, a mean over queries and heads; on the CPU, no gradient.

    Args:
        query_QHE: queries.
        keys: one [K, G, E] tensor, or several that follow one another. Several are copied twice each to the device of
            the queries.
    """
    normalizer_GQN = None
    if len(keys) > 1:
        parts = [torch.cat([scores.logsumexp(-1) for _, scores in _scores(query_QHE, key)], 1) for key in keys]
        normalizer_GQN = torch.stack(parts).logsumexp(0)
    totals = []
    for key_KGE in keys:
        total_K = torch.zeros(len(key_KGE), device=query_QHE.device)
        for queries, scores_GQNK in _scores(query_QHE, key_KGE):
            if normalizer_GQN is None:
                weights_GQNK = scores_GQNK.softmax(-1)
            else:
                weights_GQNK = torch.exp(scores_GQNK - normalizer_GQN[:, queries, :, None])
            total_K += weights_GQNK.sum((0, 1, 2))
        totals.append(total_K.cpu())
    return torch.cat(totals) / (query_QHE.shape[0] * query_QHE.shape[1])


def share_of_marked_keys(
    query_QHE: Tensor,
    key_KGE: Tensor,
    marked_index: Tensor,
    query_segments: tuple[Segments, Segments],
    key_segments: Segments,
    marked_segments: Segments,
) -> Tensor:
    """[Q, H] share of the marked keys in each query's attention, with a gradient.

    Args:
        query_QHE: queries of all segments.
        key_KGE: keys of all segments.
        marked_index: the marked keys, segment by segment.
        query_segments: lengths to pair with `key_segments`, and lengths to pair with `marked_segments`.
        key_segments: keys that each segment's queries attend to.
        marked_segments: marked keys of each segment.
    """
    of_all, of_marked = query_segments
    all_QH = log_sum_exp(query_QHE, key_KGE, of_all, key_segments)
    marked_QH = log_sum_exp(query_QHE, key_KGE.index_select(0, marked_index), of_marked, marked_segments)
    return (marked_QH - all_QH).exp()


def _scores(query_QHE: Tensor, key_KGE: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Scores [G, some of Q, N, K] (float32) of some queries at a time, with the slice of these queries."""
    num_keys, num_groups, width = key_KGE.shape
    heads_per_group = query_QHE.shape[1] // num_groups
    key_GEK = key_KGE.to(query_QHE.device).permute(1, 2, 0)
    for queries in cut_into_chunks(len(query_QHE), max(1, MAX_SCORES // (query_QHE.shape[1] * num_keys))):
        query_GQNE = query_QHE[queries].unflatten(1, (num_groups, heads_per_group)).transpose(0, 1)
        scores_GXK = query_GQNE.flatten(1, 2) @ key_GEK
        yield queries, scores_GXK.float().unflatten(1, (-1, heads_per_group)) * width**-0.5
