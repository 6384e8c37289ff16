"""The one attention function: packed segments, grouped-query heads, full or causal, with or without a window.

MemAug and the decoder both use it. Large segments get a call each of the fastest kernel for them: on an H100 with 8,900
queries x 234,000 keys cuDNN reaches 575 TFLOP/s, `varlen_attn` 326. Small neighbouring segments, on CUDA in half
precision, share a call of `varlen_attn`, because launches would dominate: 64 segments of 300 tokens take 0.66 ms
together, 4.7 ms separately. Keys and values too large for one pass are attended in chunks, and the partial results are
merged by their log-sum-exp.

Shapes: Q queries and K keys of all segments together, H query heads, G key/value heads (H a multiple of G), E head
width.
"""

import dataclasses
import functools
import itertools
import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention.bias import causal_lower_right

from hourllava.model import attention_kernels as kernels
from hourllava.model.devices import to_device

# Segments with more scores (queries x keys x heads) than this get their own call. H100, 16 heads: eight of
# 2,000 x 2,000 take 0.47 ms separately, 0.79 ms through varlen_attn; sixteen of 1,000 x 1,000 take 0.98 and 0.61 ms.
MIN_SCORES_ALONE = 2**25

# cuDNN's kernels are the fastest. But cuDNN plans every new shape first: 60 to 90 ms of CPU time, and 75 to 145 ms for
# the backward pass. Packed samples all differ in length, so cuDNN serves only segments that gain more than the plan
# costs: at 9,000 x 234,000 and 16 heads flash takes 48 and 134 ms, cuDNN 30 and 76, in each MemAug block.
MIN_SCORES_FOR_CUDNN = 2**32
# The same for a causal segment without a gradient, the prefill of a prompt. An hour's takes 122 ms in the 3B model, 135
# with flash (H200); prompts of the same 512 lengths share a plan.
MIN_PREFILL_SCORES_FOR_CUDNN = 2**30
# The same for full attention without a gradient, MemAug's look into a memory, which also needs so many queries. Eight
# questions about an hour, 900 queries of 16 heads, take 3.0 ms in each block, 5.0 with flash; one takes 3.0 and 0.7
# (H200).
MIN_FULL_SCORES_FOR_CUDNN = 2**31
MIN_FULL_QUERIES_FOR_CUDNN = 384
# Without a gradient, lengths are rounded up to a multiple of this, so that one plan serves many of them.
TOKENS_OF_A_PLAN = 512

# Few queries with many keys keep few multiprocessors busy: one for each 128 queries of a key head. Keys are then cut
# into pieces, of at least so many keys, until there are about as many blocks as this, eight for each multiprocessor.
# 450 queries x 234,000 keys and 16 heads take 2.8 ms in 16 pieces, 3.4 in two, 3.0 in one (H200).
BLOCKS_OF_FEW_QUERIES = 1024
QUERIES_OF_A_BLOCK = 128
MIN_KEYS_OF_A_PIECE = 4096

# On the CPU, PyTorch's kernel takes queries in larger blocks from 192 and from 768 of them on, and is then faster for
# each: 158 queries x 39,000 keys take 103 ms of one core, 192 take 84. Fewer queries, but at least so many, are filled
# up.
CPU_BLOCKS = {192: 136, 768: 656}

# Queries that share one pass through a sliding window: their mask has this many rows, and as many columns more than the
# window has.
QUERIES_OF_A_WINDOW = 1024


@dataclasses.dataclass  # not frozen: torch 2.11 compiles functions anew when a field of a frozen argument has changed
class Segments:
    """Lengths of the samples of a packed tensor, in which they follow one another."""

    lengths: tuple[int, ...]

    def __post_init__(self) -> None:
        assert all(length >= 0 for length in self.lengths)

    @functools.cached_property
    def offsets(self) -> tuple[int, ...]:
        """The start of each segment, and the end of the last one."""
        return tuple(itertools.accumulate(self.lengths, initial=0))

    @property
    def num_tokens(self) -> int:
        """Tokens of all segments together."""
        return self.offsets[-1]

    @functools.cached_property
    def _offsets_by_device(self) -> dict[torch.device, Tensor]:
        return {}

    def offsets_on(self, device: torch.device) -> Tensor:
        """[S + 1] int32 offsets on a device, as the kernels need them; copied once, for all layers."""
        known = self._offsets_by_device
        if device not in known:
            # Later batches use them again, and a backward pass cannot save tensors made in inference mode.
            with torch.inference_mode(False):
                known[device] = to_device(np.array(self.offsets, np.int32), device)
        return known[device]


@torch.compiler.disable  # type: ignore[untyped-decorator]  # it branches on lengths, which differ in every batch
def packed_attention(
    query_QHE: Tensor,
    key_KGE: Tensor,
    value_KGE: Tensor,
    query_segments: Segments,
    key_segments: Segments,
    *,
    causal: bool = False,
    window: int | None = None,
    scale: float | None = None,
) -> Tensor:
    """Attention within each pair of segments.

    Args:
        query_QHE: queries of all segments.
        key_KGE, value_KGE: keys and values of all segments.
        query_segments, key_segments: their lengths, pair by pair; an empty key segment needs an empty query segment.
        causal: a query sees the keys up to its own place, counted from the ends of both segments.
        window: with `causal`, the number of these keys that a query sees, the last ones; all of them if None.
        scale: of the scores; 1 / sqrt(E) if None.

    Returns:
        [Q, H, E]
    """
    assert window is None or causal, "a window ends at the query's own place"
    assert len(query_segments.lengths) == len(key_segments.lengths)
    # Tokens outside every segment would give silent NaN gradients (pytorch#176793).
    assert query_segments.num_tokens == query_QHE.shape[0]
    assert key_segments.num_tokens == key_KGE.shape[0] == value_KGE.shape[0]
    min_scores: float = 0
    if kernels.can_flash(query_QHE):  # varlen_attn knows windows, the kernels for a segment alone do not
        min_scores = MIN_SCORES_ALONE if window is None else math.inf
    runs = _runs(query_segments.lengths, key_segments.lengths, min_scores, query_QHE.shape[1])
    sizes = [(queries.num_tokens, keys.num_tokens) for queries, keys in runs]
    query_sizes, key_sizes = ([size[role] for size in sizes] for role in range(2))
    parts = zip(query_QHE.split(query_sizes), key_KGE.split(key_sizes), value_KGE.split(key_sizes))
    outputs = [
        _varlen(*part, *run, causal=causal, window=window, scale=scale)
        if len(run[0].lengths) > 1 or min_scores == math.inf
        else _one_segment(*part, causal, window, scale)
        for part, run in zip(parts, runs)
    ]
    output = outputs[0] if len(outputs) == 1 else torch.cat(outputs)
    return output.contiguous()  # always laid out alike, so that nothing behind it is compiled anew


@functools.lru_cache(maxsize=8)  # every layer needs the same runs, whose offsets lie on the device already
def _runs(
    query_lengths: tuple[int, ...], key_lengths: tuple[int, ...], min_scores: float, num_heads: int
) -> list[tuple[Segments, Segments]]:
    """Runs of segments for one kernel call each: neighbouring small segments together, large ones alone."""
    runs: list[list[tuple[int, int]]] = []
    was_small = False
    for num_queries, num_keys in zip(query_lengths, key_lengths):
        is_small = num_queries * num_keys * num_heads < min_scores
        if not (is_small and was_small):
            runs.append([])
        runs[-1].append((num_queries, num_keys))
        was_small = is_small
    return [(Segments(tuple(queries for queries, _ in run)), Segments(tuple(keys for _, keys in run))) for run in runs]


def _one_segment(
    query_QHE: Tensor, key_KGE: Tensor, value_KGE: Tensor, causal: bool, window: int | None, scale: float | None
) -> Tensor:
    num_queries, num_keys = query_QHE.shape[0], key_KGE.shape[0]
    if num_queries == 0:
        return torch.empty_like(query_QHE)
    if window is not None and window < num_keys:
        return _windowed_segment(query_QHE, key_KGE, value_KGE, window, scale)
    is_cudnn = _goes_to_cudnn(query_QHE, num_keys, causal)
    if is_cudnn and not torch.is_grad_enabled():
        query_QHE = _round_up(query_QHE)
        if causal:  # no query sees the keys after it; without causality, further keys would count
            key_KGE, value_KGE = _round_up(key_KGE), _round_up(value_KGE)
    query_1HQE, key_1GKE, value_1GKE = (part.transpose(0, 1)[None] for part in (query_QHE, key_KGE, value_KGE))
    if is_cudnn:
        output_1HQE = kernels.cudnn(query_1HQE, key_1GKE, value_1GKE, causal, scale)
    elif kernels.can_flash(query_QHE):
        num_pieces = 1
        if not causal and not torch.is_grad_enabled():
            num_pieces = num_pieces_of_keys(num_queries, query_QHE.shape[1], key_KGE.shape[1], BLOCKS_OF_FEW_QUERIES)
            num_pieces = min(num_pieces, num_keys // MIN_KEYS_OF_A_PIECE)
        if num_pieces > 1:
            return split_attention(query_QHE, key_KGE, value_KGE, num_pieces, scale)
        output_1HQE = kernels.flash(query_1HQE, key_1GKE, value_1GKE, causal, scale)
    elif not causal and query_QHE.device.type == "cpu":
        return _full_on_cpu(query_QHE, key_1GKE, value_1GKE, scale)
    else:
        lower_right = causal_lower_right(num_queries, num_keys) if causal and num_queries != num_keys else None
        output_1HQE = F.scaled_dot_product_attention(
            query_1HQE,
            key_1GKE,
            value_1GKE,
            attn_mask=lower_right,
            is_causal=causal and lower_right is None,
            scale=scale,
            enable_gqa=True,
        )
    return output_1HQE[0].transpose(0, 1)[:num_queries]


def _full_on_cpu(query_QHE: Tensor, key_1GKE: Tensor, value_1GKE: Tensor, scale: float | None) -> Tensor:
    """[Q, H, E] full attention of one segment, with the heads of a group as further queries."""
    query_1GXE = kernels.fold_heads(query_QHE, key_1GKE.shape[1])
    num_folded = query_1GXE.shape[2]
    filled = next((block for block, least in CPU_BLOCKS.items() if least <= num_folded < block), num_folded)
    query_1GXE = F.pad(query_1GXE, (0, 0, 0, filled - num_folded))
    output_1GXE = F.scaled_dot_product_attention(query_1GXE, key_1GKE, value_1GKE, scale=scale)
    return kernels.unfold_heads(output_1GXE[:, :, :num_folded], query_QHE.shape[0])


def _goes_to_cudnn(query_QHE: Tensor, num_keys: int, causal: bool) -> bool:
    if not kernels.can_cudnn(query_QHE) or (causal and query_QHE.shape[0] != num_keys):
        return False
    least, num_queries = MIN_SCORES_FOR_CUDNN, query_QHE.shape[0]
    if not torch.is_grad_enabled():
        least = MIN_PREFILL_SCORES_FOR_CUDNN if causal else MIN_FULL_SCORES_FOR_CUDNN
        if not causal and num_queries < MIN_FULL_QUERIES_FOR_CUDNN:
            return False
    return num_queries * num_keys * query_QHE.shape[1] >= least


def _round_up(heads_NHE: Tensor) -> Tensor:
    return F.pad(heads_NHE, (0, 0, 0, 0, 0, -heads_NHE.shape[0] % TOKENS_OF_A_PLAN))


def _windowed_segment(
    query_QHE: Tensor, key_KGE: Tensor, value_KGE: Tensor, window: int, scale: float | None
) -> Tensor:
    """Causal attention of one segment through a sliding window, without a mask of all its queries and keys."""
    num_queries, num_keys = query_QHE.shape[0], key_KGE.shape[0]
    outputs = []
    for chunk in cut_into_chunks(num_queries, QUERIES_OF_A_WINDOW):
        own_Q = torch.arange(chunk.start, chunk.stop, device=query_QHE.device) + (num_keys - num_queries)
        keys = slice(max(0, chunk.start + num_keys - num_queries - window + 1), chunk.stop + num_keys - num_queries)
        distance_QK = own_Q[:, None] - torch.arange(keys.start, keys.stop, device=query_QHE.device)
        output_1HQE = F.scaled_dot_product_attention(
            query_QHE[chunk].transpose(0, 1)[None],
            key_KGE[keys].transpose(0, 1)[None],
            value_KGE[keys].transpose(0, 1)[None],
            attn_mask=(distance_QK >= 0) & (distance_QK < window),
            scale=scale,
            enable_gqa=True,
        )
        outputs.append(output_1HQE[0].transpose(0, 1))
    return torch.cat(outputs)


def _varlen(
    query_QHE: Tensor,
    key_KGE: Tensor,
    value_KGE: Tensor,
    query_segments: Segments,
    key_segments: Segments,
    **options: Any,
) -> Any:
    """`kernels.varlen`, which says what the options are, with segments for offsets."""
    return kernels.varlen(
        query_QHE,
        key_KGE,
        value_KGE,
        query_segments.offsets_on(query_QHE.device),
        key_segments.offsets_on(key_KGE.device),
        max(query_segments.lengths),
        max(key_segments.lengths),
        **options,
    )


def chunked_attention(
    query_QHE: Tensor, key_value_chunks: Iterable[tuple[Tensor, Tensor]], *, scale: float | None = None
) -> Tensor:
    """Full attention of one segment over keys and values in chunks, for instance from host memory.

    The result equals one pass over all keys: each chunk counts by its share of the softmax denominator.

    Args:
        query_QHE: queries.
        key_value_chunks: pairs of [K, G, E] keys and values, at least one; each moves to the queries' device.
        scale: of the scores; 1 / sqrt(E) if None.

    Returns:
        [Q, H, E]
    """
    num_queries = query_QHE.shape[0]
    total_1GXE: Tensor | None = None
    total_lse_1GX = query_QHE.new_empty(0)
    for key_KGE, value_KGE in key_value_chunks:
        key_1GKE, value_1GKE = (
            part.to(query_QHE.device, non_blocking=True).transpose(0, 1)[None] for part in (key_KGE, value_KGE)
        )
        query_1GXE = kernels.fold_heads(query_QHE, key_1GKE.shape[1])
        output_1GXE, lse_1GX = kernels.with_lse(query_1GXE, key_1GKE, value_1GKE, scale)
        output_1GXE = output_1GXE.to(lse_1GX.dtype)
        if total_1GXE is None:
            total_1GXE, total_lse_1GX = output_1GXE, lse_1GX
            continue
        merged_lse_1GX = torch.logaddexp(total_lse_1GX, lse_1GX)
        old, new = (torch.exp(part - merged_lse_1GX)[..., None] for part in (total_lse_1GX, lse_1GX))
        total_1GXE, total_lse_1GX = total_1GXE * old + output_1GXE * new, merged_lse_1GX
    assert total_1GXE is not None, "at least one chunk is needed"
    return kernels.unfold_heads(total_1GXE, num_queries).to(query_QHE.dtype)


def num_pieces_of_keys(num_queries: int, num_heads: int, num_groups: int, max_blocks: int) -> int:
    """Pieces into which keys are cut: as many as give at most so many blocks of work, but at least one."""
    num_blocks = -(-num_queries * (num_heads // num_groups) // QUERIES_OF_A_BLOCK) * num_groups
    return max(1, max_blocks // num_blocks)


def split_attention(
    query_QHE: Tensor, key_KGE: Tensor, value_KGE: Tensor, num_pieces: int, scale: float | None = None
) -> Tensor:
    """[Q, H, E] full attention of one segment, without a gradient, to pieces of the keys side by side.

    Args:
        query_QHE: few queries.
        key_KGE, value_KGE: many keys and values.
        num_pieces: of equal length; the rest of the keys is one more.
        scale: of the scores; 1 / sqrt(E) if None.
    """
    query_1GXE = kernels.fold_heads(query_QHE, key_KGE.shape[1])
    whole = key_KGE.shape[0] // num_pieces * num_pieces
    outputs, lses = [], []
    for part, num_parts in ((slice(whole), num_pieces), (slice(whole, None), 1)):
        if not key_KGE[part].shape[0]:
            continue
        key_CGKE, value_CGKE = (
            tensor[part].unflatten(0, (num_parts, -1)).transpose(1, 2) for tensor in (key_KGE, value_KGE)
        )
        output_CGXE, lse_CGX = kernels.with_lse(query_1GXE.expand(num_parts, -1, -1, -1), key_CGKE, value_CGKE, scale)
        outputs.append(output_CGXE)
        lses.append(lse_CGX)
    output_GXE = kernels.merged(outputs, lses)
    return kernels.unfold_heads(output_GXE[None], query_QHE.shape[0]).to(query_QHE.dtype)


def log_sum_exp(query_QHE: Tensor, key_KGE: Tensor, query_segments: Segments, key_segments: Segments) -> Tensor:
    """[Q, H] logarithm of the softmax denominator of full packed attention, at least float32, with a gradient.

    exp(log-sum-exp of some keys - log-sum-exp of all keys) is the share of these keys in a query's attention. All keys
    must fit into one pass.

    Args:
        query_QHE, key_KGE: queries and keys of all segments.
        query_segments, key_segments: their lengths, pair by pair.
    """
    scale = query_QHE.shape[-1] ** -0.5
    if not kernels.can_flash(query_QHE):
        group = query_QHE.shape[1] // key_KGE.shape[1]
        keys_KHE = key_KGE.repeat_interleave(group, 1)
        parts = zip(query_QHE.split(query_segments.lengths), keys_KHE.split(key_segments.lengths))
        scores = [torch.einsum("qhe,khe->qhk", query * scale, key) for query, key in parts]
        dtype = torch.promote_types(query_QHE.dtype, torch.float32)
        return torch.cat([scores_QHK.to(dtype).logsumexp(-1) for scores_QHK in scores])
    # The kernels return the log-sum-exp without a gradient. Its gradient for a query is the attention-weighted mean
    # key, and for a key the weighted sum of queries. So we run attention with the keys as values.
    mean_key_QHE, lse_HQ = _varlen(
        query_QHE.detach(), key_KGE.detach(), key_KGE, query_segments, key_segments, return_lse=True
    )
    mean_key_QHE, query_QHE = mean_key_QHE.float(), query_QHE.float()
    with_gradient_QH = (query_QHE * mean_key_QHE.detach() + query_QHE.detach() * mean_key_QHE).sum(-1) * scale
    return lse_HQ.detach().transpose(0, 1) + (with_gradient_QH - with_gradient_QH.detach())


def cut_into_chunks(num_items: int, chunk_items: int) -> Sequence[slice]:
    """Slices of at most `chunk_items` that cover `num_items`."""
    return [slice(start, min(start + chunk_items, num_items)) for start in range(0, num_items, chunk_items)]
