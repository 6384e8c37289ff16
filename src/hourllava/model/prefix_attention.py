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

    There is no gradient.

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
    query_GXE = query_RGNQE.transpose(0, 1).flatten(1, 3)
    scores_GXS = query_GXE.new_empty(*query_GXE.shape[:2], num_prefix + keys.own_RGKE.shape[2])
    # Biases are added while scores are put side by side: each pass over them costs as much as a matrix product.
    scores_GRNQS = scores_GXS.unflatten(1, (num_rows, num_shared, num_queries))
    to_prefix_GRNQP = (query_GXE @ keys.prefix_GPE.transpose(-1, -2)).view_as(scores_GRNQS[..., :num_prefix])
    _put(scores_GRNQS[..., :num_prefix], to_prefix_GRNQP, None if keys.bias_RP is None else keys.bias_RP[:, None, None])
    to_own_RGXK = query_RGNQE.flatten(2, 3) @ keys.own_RGKE.transpose(-1, -2)
    to_own_RGNQK = to_own_RGXK.unflatten(2, (num_shared, num_queries))
    if mask_R1QK is not None and mask_R1QK.dtype == torch.bool:
        mask_R1QK = torch.where(mask_R1QK, 0.0, -torch.inf).to(scores_GXS.dtype)
    own_RGNQK = scores_GRNQS[..., num_prefix:].transpose(0, 1)
    _put(own_RGNQK, to_own_RGNQK, None if mask_R1QK is None else mask_R1QK[:, :, None])
    weights_GXS = scores_GXS.softmax(-1)  # which computes in float32 also where scores are shorter
    from_prefix_GXE = weights_GXS[..., :num_prefix] @ values.prefix_GPE
    own_weights_RGXK = weights_GXS[..., num_prefix:].unflatten(1, (num_rows, -1)).transpose(0, 1)
    output_RGXE = own_weights_RGXK @ values.own_RGKE + from_prefix_GXE.unflatten(1, (num_rows, -1)).transpose(0, 1)
    return output_RGXE.unflatten(2, (num_shared, num_queries)).flatten(1, 2).transpose(1, 2)


def _put(target: Tensor, scores: Tensor, bias: Tensor | None) -> None:
    if bias is None:
        target.copy_(scores)
    else:
        torch.add(scores, bias, out=target)
