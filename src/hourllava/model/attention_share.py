"""The share of attention that falls on keys: measured for the evidence of an answer, and taught by grounding.

Both ask for the same number, the softmax weights of some keys added up. Evidence needs it for all frames of a memory
and without a gradient, so the attention kernel adds the weights up. Grounding needs it with a gradient and for few
keys, so it is the ratio of two softmax denominators, which the kernels give.

Shapes: N sets of Q queries, K keys, H query heads, G key/value heads (H a multiple of G), X queries of a group's heads,
E head width, S segments of keys.
"""

import functools
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from hourllava.model import attention_kernels as kernels
from hourllava.model.attention import Segments, log_sum_exp
from hourllava.model.devices import to_device

# Attention gives at most this many bytes at a time: for the 3B model and 256 queries, those of nine hours.
MAX_OUTPUT_BYTES = 2**28


class KeyRuns:
    """Runs of neighbouring keys with one label; all blocks and questions of a memory share them.

    Args:
        label_of_key: [K], such as the frame of each memory entry.

    Attributes:
        run_of_key: [K] number of each key's run, from 0 on.
        label_of_run: [R].
    """

    def __init__(self, label_of_key: npt.NDArray[np.int64]) -> None:
        is_new = np.diff(label_of_key, prepend=label_of_key[:1] - 1) != 0
        self.run_of_key: npt.NDArray[np.int64] = is_new.cumsum() - 1
        self.label_of_run: npt.NDArray[np.int64] = label_of_key[is_new]
        # Values of keys in segments, which later blocks and questions need again: 60 kB for an hour of one frame size.
        self._segments = functools.lru_cache(maxsize=4)(self._make_segments)

    def __len__(self) -> int:
        """R."""
        return len(self.label_of_run)

    def segments(
        self, start: int, stop: int, length: int, width: int, device: torch.device
    ) -> list[tuple[slice, Tensor, Tensor]]:
        """Keys from `start` to `stop` in segments of this length, and a shorter rest.

        Returns:
            for each of the two its keys, counted from `start`; `width` runs from the first one of each segment on,
            [S, E]; and the place of each key's run among those of its segment, [S, 1, K, 1] or, if all segments are
            alike, [1, 1, K, 1].
        """
        return self._segments(start, stop, length, width, device)

    def _make_segments(
        self, start: int, stop: int, length: int, width: int, device: torch.device
    ) -> list[tuple[slice, Tensor, Tensor]]:
        whole = (stop - start) // length * length
        made = []
        for keys in (slice(whole), slice(whole, stop - start)):
            runs = self.run_of_key[start:stop][keys]
            if not runs.size:
                continue
            run_SK = runs.reshape(-1, min(length, len(runs)))
            place_SK = run_SK - run_SK[:, :1]
            if (place_SK == place_SK[0]).all():  # runs of one length: one set of values serves all segments
                place_SK = place_SK[:1]
            runs_SE = run_SK[:, :1] + np.arange(width)
            made.append((keys, to_device(runs_SE, device), to_device(place_SK, device)[:, None, :, None]))
        return made

    @functools.cached_property
    def min_length(self) -> int:
        """Keys of the shortest run."""
        return int(np.bincount(self.run_of_key).min())


def share_of_each_run(query_NQHE: Tensor, keys: Sequence[Tensor], runs: KeyRuns) -> Tensor:
    """[N, R] share of each run of keys in the attention of N sets of queries, a mean over queries and heads.

    Attention sums the weights itself: keys are cut into segments of at most E runs, and the value of a key is 1 in the
    place of its run. So the output of a segment holds the share of each of its runs, and the log-sum-exp of its scores
    tells the share of the segment. Scores are never written out, and there is no gradient. On the device this takes 30
    MB for an hour of the 3B model and each set, at most `MAX_OUTPUT_BYTES`; and a copy of the keys of one head if runs
    differ in length.

    Args:
        query_NQHE: queries of each set.
        keys: one [K, G, E] tensor, or several that follow one another. One that needs no more than `MAX_OUTPUT_BYTES`
            is read once. Otherwise each is copied to the device of the queries twice.
        runs: of these keys.

    Returns:
        [N, R], float64, on the device of the queries.
    """
    num_sets, num_queries, num_heads, width = query_NQHE.shape
    query_1GXE = kernels.fold_heads(query_NQHE.flatten(0, 1), keys[0].shape[1])
    # A segment touches no more than E runs wherever it begins: its first and last may be cut, the others are whole.
    length = max(1, runs.min_length * (width - 1))
    num_bytes = query_NQHE.numel() * query_NQHE.itemsize
    if len(keys) == 1:  # they lie on the device: as many sets go into one pass as its output may take
        of_a_set = num_bytes // num_sets * -(-len(keys[0]) // length)
        if (at_once := max(1, MAX_OUTPUT_BYTES // of_a_set)) < num_sets:
            return torch.cat([share_of_each_run(some, keys, runs) for some in query_NQHE.split(at_once)])
    pieces, start = [], 0
    for chunk in keys:
        for piece in chunk.split(length * max(1, MAX_OUTPUT_BYTES // num_bytes)):
            pieces.append((piece, start))
            start += len(piece)
    total_GX = None
    if len(pieces) > 1:
        totals = [_log_sum_exp(_attend(query_1GXE, *piece, runs, length)) for piece in pieces]
        total_GX = torch.stack(totals).logsumexp(0)
    weights_NR = query_NQHE.new_zeros(num_sets, len(runs) + width, dtype=torch.float64)
    is_own_NN = torch.eye(num_sets, dtype=query_NQHE.dtype, device=query_NQHE.device)
    for piece in pieces:
        parts = _attend(query_1GXE, *piece, runs, length)
        of_all_GX = _log_sum_exp(parts) if total_GX is None else total_GX
        for runs_SE, output_SGXE, lse_SGX in parts:
            weights_SGX = (lse_SGX - of_all_GX).exp().to(output_SGXE.dtype)
            # One product adds up the queries of each set: those of others weigh nothing.
            weights_S1GHNQ = weights_SGX.unflatten(2, (-1, num_sets, num_queries))[:, None]
            weights_SNX = (weights_S1GHNQ * is_own_NN[:, None, None, :, None]).flatten(2)
            sums_NSE = (weights_SNX @ output_SGXE.flatten(1, 2)).transpose(0, 1)
            weights_NR.index_add_(1, runs_SE.flatten(), sums_NSE.flatten(1).double())
    return weights_NR[:, : len(runs)] / (num_queries * num_heads)


_Part = tuple[Tensor, Tensor, Tensor]
"""Runs of each segment [S, E]; sums of their weights [S, G, X, E]; log-sum-exp of the segment's scores [S, G, X]."""


def _attend(query_1GXE: Tensor, key_KGE: Tensor, start: int, runs: KeyRuns, length: int) -> list[_Part]:
    """Attention to keys, the first of which is number `start` of all, in segments of this length, and to the rest."""
    key_KGE = key_KGE.to(query_1GXE.device)
    width = key_KGE.shape[-1]
    parts = []
    for keys, runs_SE, place_S1K1 in runs.segments(start, start + len(key_KGE), length, width, key_KGE.device):
        key_SGKE = key_KGE[keys].unflatten(0, (len(runs_SE), -1)).transpose(1, 2)
        value_S1KE = key_SGKE.new_zeros(*place_S1K1.shape[:3], width).scatter_(3, place_S1K1, 1)
        query_SGXE = query_1GXE.expand(len(runs_SE), -1, -1, -1)
        parts.append((runs_SE, *kernels.with_lse(query_SGXE, key_SGKE, value_S1KE.expand_as(key_SGKE))))
    return parts


def _log_sum_exp(parts: Sequence[_Part]) -> Tensor:
    """[G, X] log-sum-exp of the scores of all segments."""
    return torch.cat([lse_SGX for _, _, lse_SGX in parts]).logsumexp(0)


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
