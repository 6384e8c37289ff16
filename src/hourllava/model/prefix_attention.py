"""Attention of tokens behind a prefix that many prompts share: the prefix lies there once, for all rows.

The kept tokens of an hour take 0.3 GB of keys and values with the 3B model; a copy for each of 32 rows would be 10 GB.
Scores with the prefix and with a row's own tokens are written out side by side, under one softmax. So the numbers are
those of one sequence, without a copy. The scores of a question of 100 tokens with an hour are 28 MB a layer.

Shapes: R rows, Q queries of a row, P tokens of the prefix, K own tokens of a row, H query heads, G key/value heads, N
query heads of each of these, X queries of a group's heads, S = P + K, E head width.
"""

import dataclasses

import torch
from torch import Tensor

from hourllava.model.attention import cut_into_chunks
from hourllava.model.attention_kernels import MAX_WRITTEN_SCORES


@dataclasses.dataclass(frozen=True)
class Prefixed:
    """Keys or values of a prefix, and those of each row behind it.

    Attributes:
        prefix_GPE: of the prefix; several prefixes may lie in there.
        own_RGKE: of the rows.
        bias_RP: added to a row's scores with the prefix, -inf for what is none of its own; None if all of it counts.
    """

    prefix_GPE: Tensor
    own_RGKE: Tensor
    bias_RP: Tensor | None = None


def attention_behind_prefix(
    query_RHQE: Tensor, keys: Prefixed, values: Prefixed, mask_R1QK: Tensor | None, scale: float | None
) -> Tensor:
    """[R, Q, H, E] attention of each row to the prefix and to its own tokens.

    Args:
        query_RHQE: queries of the rows.
        keys, values: with the same prefix.
        mask_R1QK: of a row's own tokens: added to the scores, or boolean, true for what is seen; None: all of them.
        scale: of the scores; 1 / sqrt(E) if None.
    """
    scale = query_RHQE.shape[-1] ** -0.5 if scale is None else scale
    num_rows, num_heads, num_queries, _ = query_RHQE.shape
    num_keys = keys.prefix_GPE.shape[1] + keys.own_RGKE.shape[2]
    chunk = max(1, MAX_WRITTEN_SCORES // (num_rows * num_heads * num_keys))
    outputs = []
    for part in cut_into_chunks(num_queries, chunk):
        mask = mask_R1QK if mask_R1QK is None or mask_R1QK.shape[2] == 1 else mask_R1QK[:, :, part]
        outputs.append(_attend(query_RHQE[:, :, part] * scale, keys, values, mask))
    return outputs[0] if len(outputs) == 1 else torch.cat(outputs, 1)


def _attend(query_RHQE: Tensor, keys: Prefixed, values: Prefixed, mask_R1QK: Tensor | None) -> Tensor:
    num_groups, num_prefix, _ = keys.prefix_GPE.shape
    query_RGNQE = query_RHQE.unflatten(1, (num_groups, -1))
    num_rows, _, num_shared, num_queries, _ = query_RGNQE.shape
    to_prefix_GXP = query_RGNQE.transpose(0, 1).flatten(1, 3) @ keys.prefix_GPE.transpose(-1, -2)
    if keys.bias_RP is not None:
        to_prefix_GXP = (to_prefix_GXP.unflatten(1, (num_rows, -1)) + keys.bias_RP[:, None]).flatten(1, 2)
    to_own_RGXK = query_RGNQE.flatten(2, 3) @ keys.own_RGKE.transpose(-1, -2)
    if mask_R1QK is not None:
        is_bias = mask_R1QK.dtype != torch.bool
        bias_R1QK = mask_R1QK if is_bias else torch.where(mask_R1QK, 0.0, -torch.inf).to(to_own_RGXK.dtype)
        by_head_RGNQK = to_own_RGXK.unflatten(2, (num_shared, num_queries)) + bias_R1QK[:, :, None]
        to_own_RGXK = by_head_RGNQK.flatten(2, 3)
    scores_GXS = torch.cat([to_prefix_GXP, to_own_RGXK.transpose(0, 1).flatten(1, 2)], -1)
    weights_GXS = scores_GXS.softmax(-1, dtype=torch.promote_types(scores_GXS.dtype, torch.float32))
    weights_GXS = weights_GXS.to(values.own_RGKE.dtype)
    from_prefix_GXE = weights_GXS[..., :num_prefix] @ values.prefix_GPE
    own_weights_RGXK = weights_GXS[..., num_prefix:].unflatten(1, (num_rows, -1)).transpose(0, 1)
    output_RGXE = own_weights_RGXK @ values.own_RGKE + from_prefix_GXE.unflatten(1, (num_rows, -1)).transpose(0, 1)
    return output_RGXE.unflatten(2, (num_shared, num_queries)).flatten(1, 2).transpose(1, 2)
