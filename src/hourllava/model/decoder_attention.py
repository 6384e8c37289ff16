"""The attention of transformers' decoders: packed samples through `packed_attention`, tokens behind a common prefix
through `attention_behind_prefix`, everything else through SDPA.

Shapes: B rows, L tokens of a row, Q queries, K keys, H query heads, G key/value heads, N query heads of each of these,
E head width.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from hourllava.errors import InputError
from hourllava.model.attention import Segments, packed_attention
from hourllava.model.prefix_attention import Prefixed, attention_behind_prefix

PACKED_ATTENTION = "hourllava_packed"
"""Name under which transformers' decoders find `decoder_attention`."""


@dataclasses.dataclass(frozen=True)
class Ragged:
    """Keys or values of rows of different lengths.

    Attributes:
        rows: [1, G, K, E] of each row, or these behind the row's prefix.
    """

    rows: Sequence[Tensor | Prefixed]


def decoder_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor | Ragged | Prefixed,
    value: Tensor | Ragged | Prefixed,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    segments: Segments | None = None,
    sliding_window: int | None = None,
    window_mask: Tensor | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """The function that transformers' decoders call: packed causal attention with `segments`, else their own SDPA.

    Args:
        module: the decoder's attention layer.
        query: [B, H, Q, E]; with `segments`, B is 1.
        key, value: [B, G, K, E], alone or behind a prefix; or ragged rows, of which each query sees all. There may be
            fewer ragged rows than queries.
        attention_mask: mask that transformers made; has no effect with `segments`.
        scaling: of the scores.
        segments: of the packed sequence.
        sliding_window: number of last tokens that a layer sees; families without windows do not give it.
        window_mask: with fixed buffers, the mask for layers with a window; `attention_mask` is then for all others.
        **kwargs: everything else that a decoder passes on.

    Returns:
        [B, Q, H, E] and None.
    """
    extras = [name for name in ("softcap", "position_bias", "cache") if kwargs.get(name) is not None]
    if extras:  # SDPA would ignore them silently
        raise InputError(f"the decoder's layers ask for {', '.join(extras)}, which is not served here")
    if isinstance(key, Ragged) or isinstance(value, Ragged):
        assert isinstance(key, Ragged)
        assert isinstance(value, Ragged)
        return _one_token_each(query, key, value, sliding_window, scaling), None
    if isinstance(key, Prefixed) or isinstance(value, Prefixed):
        assert isinstance(key, Prefixed)
        assert isinstance(value, Prefixed)
        assert sliding_window is None, "decoders with windows are not asked behind a prefix"
        return attention_behind_prefix(query, key, value, attention_mask, scaling), None
    if sliding_window is not None and window_mask is not None:
        attention_mask = window_mask
    if segments is None and query.shape[2] == 1 and not torch.is_grad_enabled():
        return _one_token(query, key, value, attention_mask, scaling), None
    if segments is None:
        output, _ = sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **kwargs)
        return output, None
    # Under autocast, rotary positions leave queries and keys in float32.
    query_QHE, key_KGE, value_KGE = (part[0].transpose(0, 1).to(value.dtype) for part in (query, key, value))
    output_QHE = packed_attention(
        query_QHE, key_KGE, value_KGE, segments, segments, causal=True, window=sliding_window, scale=scaling
    )
    return output_QHE[None], None


def _one_token(
    query_BH1E: Tensor, key_BGKE: Tensor, value_BGKE: Tensor, mask_B11K: Tensor | None, scale: float | None
) -> Tensor:
    """[B, 1, H, E] attention of one new token per row: two small matrix products, spread over all keys.

    SDPA's masked kernels use one multiprocessor for each row and key head, and all others of the GPU stay idle.
    """
    scale = query_BH1E.shape[-1] ** -0.5 if scale is None else scale
    query_BGNE = query_BH1E[:, :, 0].unflatten(1, (key_BGKE.shape[1], -1))
    scores_BGNK = (query_BGNE * scale) @ key_BGKE.transpose(-1, -2)
    if mask_B11K is not None:
        is_bias = mask_B11K.dtype != torch.bool
        scores_BGNK = scores_BGNK + mask_B11K if is_bias else scores_BGNK.masked_fill(~mask_B11K, -torch.inf)
    weights_BGNK = scores_BGNK.softmax(-1, dtype=torch.promote_types(scores_BGNK.dtype, torch.float32))
    weights_BGNK = weights_BGNK.to(value_BGKE.dtype)
    return (weights_BGNK @ value_BGKE).flatten(1, 2)[:, None]


def _one_token_each(
    query_BH1E: Tensor, keys: Ragged, values: Ragged, window: int | None, scale: float | None
) -> Tensor:
    """[B, 1, H, E] attention of one new token per row to that row's keys; zeros for queries without a row."""
    seen = slice(None if window is None else -window, None)
    output_B1HE = query_BH1E.new_zeros(query_BH1E.shape).transpose(1, 2)
    for row, (key, value) in enumerate(zip(keys.rows, values.rows)):
        query = query_BH1E[row, None]
        if isinstance(key, Prefixed):
            assert isinstance(value, Prefixed)
            output_B1HE[row, None] = attention_behind_prefix(query, key, value, None, scale)
            continue
        assert not isinstance(value, Prefixed)
        output_B1HE[row, None] = _one_token(query, key[:, :, seen], value[:, :, seen], None, scale)
    return output_B1HE


def packed_positions(tokens_1L: Tensor, segments: Segments) -> tuple[Tensor, Tensor]:
    """What a decoder needs for packed samples besides `segments`: positions [1, L] and a placeholder mask.

    Args:
        tokens_1L: ids, or embeddings [1, L, D].
        segments: the samples in them.

    Raises:
        InputError: the samples are not one row.
    """
    if tokens_1L.shape[:2] != (1, segments.num_tokens):
        raise InputError(
            f"packed samples of {segments.num_tokens} tokens must form one row, got {list(tokens_1L.shape[:2])}"
        )
    if len(segments.lengths) == 1:  # made there: a copy would wait for all queued GPU work
        positions = torch.arange(segments.num_tokens, device=tokens_1L.device)[None]
    else:
        starts = torch.tensor(segments.offsets[:-1]).repeat_interleave(torch.tensor(segments.lengths))
        positions = (torch.arange(segments.num_tokens) - starts)[None].to(tokens_1L.device)
    return positions, placeholder_mask(tokens_1L.device)


def placeholder_mask(device: torch.device) -> Tensor:
    """A mask for calls of a decoder whose attention needs none.

    Decoders keep a 4-D mask as it is. Without one they would build L x L entries from the positions (1 GiB at 32k).
    """
    return torch.ones(1, 1, 1, 1, dtype=torch.bool, device=device)


AttentionInterface.register(PACKED_ATTENTION, decoder_attention)
AttentionMaskInterface.register(PACKED_ATTENTION, sdpa_mask)
