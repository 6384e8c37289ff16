"""Attention of tokens behind a prefix that many prompts share: the prefix lies there once, for all rows.

The kept tokens of an hour take 0.3 GB of keys and values with the 3B model; a copy for each of 32 rows would be 10 GB.
The numbers are those of one sequence, without a copy, in two ways:

Rows have one token each. Their scores with the prefix and with their own tokens are written out side by side, under one
softmax. These are few: 9 MB a layer for 32 rows of an hour and the 3B model.

Prompts have many tokens: the scores of 512 would be 146 MB. On a GPU the flash kernel attends to the prefix, in pieces,
and to the prompts' own tokens; the parts are merged by their log-sum-exp. Elsewhere scores are written out, too.

Shapes: R rows, Q queries of a row, P tokens of the prefix, K own tokens of a row, H query heads, G key/value heads, N
query heads of each of these, X queries of a group's heads, C pieces of the prefix, S = P + K, E head width.
"""

import dataclasses

import torch
from torch import Tensor

from hourllava.model import attention_kernels as kernels
from hourllava.model.attention import cut_into_chunks
from hourllava.model.attention_kernels import MAX_WRITTEN_SCORES


class Prompts:
    """Where prompts and the prefix before them lie. The places are read on the device: one graph serves all of them.

    Args:
        own_offsets: int32, start of each prompt among the own tokens, and the end of the last one.
            Prompts cover all own tokens; one may be empty. A token sees those of its own prompt up to itself.
        prefix_offsets: [C + 1] int32, bounds of the pieces in which the prefix is read. No piece is empty.
    """

    def __init__(self, own_offsets: Tensor, prefix_offsets: Tensor) -> None:
        self.own_offsets, self.prefix_offsets = own_offsets, prefix_offsets
        self._biases: tuple[Tensor, Tensor] | None = None

    def biases(self, like: Tensor, num_prefix: int, num_own: int) -> tuple[Tensor, Tensor]:
        """[1, P] and [1, 1, Q, Q] 0 for tokens that are seen, -inf for others; made once, for all layers."""
        if self._biases is None:
            place_P, place_Q = (torch.arange(length, device=like.device) for length in (num_prefix, num_own))
            is_seen_P = (place_P >= self.prefix_offsets[0]) & (place_P < self.prefix_offsets[-1])
            prompt_Q = torch.bucketize(place_Q, self.own_offsets[1:], right=True)
            is_seen_QQ = (prompt_Q[:, None] == prompt_Q) & (place_Q[:, None] >= place_Q)
            of_prefix, of_own = (
                torch.where(is_seen, 0.0, -torch.inf).to(like.dtype) for is_seen in (is_seen_P, is_seen_QQ)
            )
            self._biases = of_prefix[None], of_own[None, None]
        return self._biases


@dataclasses.dataclass(frozen=True)
class Prefixed:
    """Keys or values of a prefix, and those of each row behind it.

    Attributes:
        prefix_GPE: of the prefix; several prefixes may lie in there.
        own_RGKE: of the rows.
        bias_RP: added to a row's scores with the prefix, -inf for what is none of its own; None if all of it counts.
        prompts: in the only row, and their prefix; then there is no bias.
    """

    prefix_GPE: Tensor
    own_RGKE: Tensor
    bias_RP: Tensor | None = None
    prompts: Prompts | None = None


def attention_behind_prefix(
    query_RHQE: Tensor, keys: Prefixed, values: Prefixed, mask_R1QK: Tensor | None, scale: float | None
) -> Tensor:
    """[R, Q, H, E] attention of each row to the prefix and to its own tokens.

    There is no gradient.

    Args:
        query_RHQE: queries of the rows.
        keys, values: with the same prefix.
        mask_R1QK: of a row's own tokens: added to the scores, or boolean, true for what is seen; None: all of them. It
            has no effect if the keys have prompts.
        scale: of the scores; 1 / sqrt(E) if None.
    """
    scale = query_RHQE.shape[-1] ** -0.5 if scale is None else scale
    num_rows, num_heads, num_queries, _ = query_RHQE.shape
    if keys.prompts is not None:
        if kernels.can_flash(query_RHQE):
            return _attend_in_parts(query_RHQE, keys, values, keys.prompts, scale)
        bias_1P, mask_R1QK = keys.prompts.biases(query_RHQE, keys.prefix_GPE.shape[1], num_queries)
        keys = dataclasses.replace(keys, bias_RP=bias_1P)
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


def _attend_in_parts(query_1HQE: Tensor, keys: Prefixed, values: Prefixed, prompts: Prompts, scale: float) -> Tensor:
    """[1, Q, H, E] attention of prompts by the flash kernel: to the prefix, in pieces, and to their own tokens."""
    num_groups, num_prefix, _ = keys.prefix_GPE.shape
    num_queries, num_pieces = query_1HQE.shape[2], len(prompts.prefix_offsets) - 1
    query_QHE, own_key_KGE, own_value_KGE = (
        part[0].transpose(0, 1) for part in (query_1HQE, keys.own_RGKE, values.own_RGKE)
    )
    query_1GXE = kernels.fold_heads(query_QHE, num_groups)
    num_folded = query_1GXE.shape[2]
    piece_offsets = torch.arange(num_pieces + 1, dtype=torch.int32, device=query_1HQE.device) * num_folded
    from_prefix, prefix_lse = kernels.varlen(
        query_1GXE.transpose(1, 2).expand(num_pieces, -1, -1, -1).flatten(0, 1),
        keys.prefix_GPE.transpose(0, 1),
        values.prefix_GPE.transpose(0, 1),
        piece_offsets,
        prompts.prefix_offsets,
        num_folded,
        num_prefix,
        scale=scale,
        return_lse=True,
    )
    from_own_QHE, own_lse_HQ = kernels.varlen(
        query_QHE,
        own_key_KGE,
        own_value_KGE,
        prompts.own_offsets,
        prompts.own_offsets,
        num_queries,
        num_queries,
        causal=True,
        scale=scale,
        return_lse=True,
    )
    prefix_CGXE = from_prefix.unflatten(0, (num_pieces, -1)).transpose(1, 2)
    prefix_lse_CGX = prefix_lse.unflatten(1, (num_pieces, -1)).transpose(0, 1)
    own_1GXE, own_lse_1GX = kernels.fold_heads(from_own_QHE, num_groups), own_lse_HQ.reshape(1, num_groups, -1)
    output_GXE = kernels.merged([prefix_CGXE, own_1GXE], [prefix_lse_CGX, own_lse_1GX])
    return kernels.unfold_heads(output_GXE[None], num_queries).to(query_1HQE.dtype)[None]
