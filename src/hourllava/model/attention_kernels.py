"""PyTorch's fused attention kernels, called by name.

`F.scaled_dot_product_attention` chooses its kernel by switches of the whole process, which other threads and other
libraries see. A call here names its kernel, so no switch is touched.

Shapes: B segments of one length, Q queries and K keys of a segment, H query heads, G key/value heads (H a multiple of
G), E head width.
"""

import functools
import inspect
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention.varlen import AuxRequest, varlen_attn

# torch < 2.13 has no grouped-query varlen_attn: there the keys' heads are repeated.
VARLEN_HAS_GQA = "enable_gqa" in inspect.signature(varlen_attn).parameters

HALF_DTYPES = (torch.float16, torch.bfloat16)
MAX_FLASH_WIDTH = 256
MAX_CUDNN_WIDTH = 128
# Hopper and Blackwell. On other GPUs, PyTorch itself prefers flash.
CUDNN_CAPABILITIES = ((9, 0), (10, 0))

# Attention that is written out makes at most this many scores (query, head, key) at a time: 256 MiB.
MAX_WRITTEN_SCORES = 64 * 2**20


def can_flash(query: Tensor) -> bool:
    """Whether `flash` and `varlen_attn` take queries of this device, dtype and head width."""
    return (
        query.is_cuda
        and query.dtype in HALF_DTYPES
        and query.shape[-1] % 8 == 0
        and query.shape[-1] <= MAX_FLASH_WIDTH
        and _capability(query.device) >= (8, 0)
    )


def can_cudnn(query: Tensor) -> bool:
    """Whether `cudnn` takes queries of this device, dtype and head width, and is the faster kernel for many."""
    is_served = can_flash(query) and query.shape[-1] <= MAX_CUDNN_WIDTH
    return is_served and _capability(query.device) in CUDNN_CAPABILITIES and torch.backends.cudnn.is_available()


@functools.cache
def _capability(device: torch.device) -> tuple[int, int]:
    return torch.cuda.get_device_capability(device)


def flash(query_BHQE: Tensor, key_BGKE: Tensor, value_BGKE: Tensor, causal: bool, scale: float | None) -> Tensor:
    """[B, H, Q, E] flash attention, with a gradient; needs no plan. `causal` counts from the ends of both lengths."""
    output: Tensor = torch.ops.aten._scaled_dot_product_flash_attention(
        query_BHQE, key_BGKE, value_BGKE, is_causal=causal, scale=scale
    )[0]
    return output


def cudnn(query_BHQE: Tensor, key_BGKE: Tensor, value_BGKE: Tensor, causal: bool, scale: float | None) -> Tensor:
    """[B, H, Q, E] attention by cuDNN, with a gradient. Each new shape costs a plan.

    `causal` counts from the starts of both lengths.
    """
    parts = query_BHQE, key_BGKE, value_BGKE
    has_gradient = torch.is_grad_enabled() and any(part.requires_grad for part in parts)
    output: Tensor = torch.ops.aten._scaled_dot_product_cudnn_attention(
        *parts, None, compute_log_sumexp=has_gradient, is_causal=causal, scale=scale
    )[0]
    return output


def with_lse(
    query_BGQE: Tensor, key_BGKE: Tensor, value_BGKE: Tensor, scale: float | None = None
) -> tuple[Tensor, Tensor]:
    """Full attention and the log-sum-exp of its scores, without a gradient.

    There are as many query heads as key heads; `fold_heads` makes queries of a group's heads. Values may be expanded.

    Returns:
        [B, G, Q, E], and [B, G, Q] in float32 or float64.
    """
    if can_flash(query_BGQE):
        return torch.ops.aten._scaled_dot_product_flash_attention(query_BGQE, key_BGKE, value_BGKE, scale=scale)[:2]
    if query_BGQE.device.type == "cpu":
        return torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(query_BGQE, key_BGKE, value_BGKE, scale=scale)
    return written_out_with_lse(query_BGQE, key_BGKE, value_BGKE, scale)


def written_out_with_lse(
    query_BGQE: Tensor, key_BGKE: Tensor, value_BGKE: Tensor, scale: float | None = None
) -> tuple[Tensor, Tensor]:
    """`with_lse` for devices and dtypes without such a kernel, some queries at a time."""
    scale = query_BGQE.shape[-1] ** -0.5 if scale is None else scale
    dtype = torch.promote_types(query_BGQE.dtype, torch.float32)
    key_BGEK, value_BGKE = key_BGKE.to(dtype).transpose(-1, -2), value_BGKE.to(dtype)
    outputs, lses = [], []
    for query in query_BGQE.split(max(1, MAX_WRITTEN_SCORES // key_BGKE[..., 0].numel()), 2):
        scores_BGQK = query.to(dtype) @ key_BGEK * scale
        lse_BGQ = scores_BGQK.logsumexp(-1)
        outputs.append(torch.exp(scores_BGQK - lse_BGQ[..., None]) @ value_BGKE)
        lses.append(lse_BGQ)
    return torch.cat(outputs, 2).to(query_BGQE.dtype), torch.cat(lses, 2)


def varlen(
    query_QHE: Tensor,
    key_KGE: Tensor,
    value_KGE: Tensor,
    query_offsets: Tensor,
    key_offsets: Tensor,
    max_queries: int,
    max_keys: int,
    *,
    causal: bool = False,
    window: int | None = None,
    scale: float | None = None,
    return_lse: bool = False,
) -> Any:
    """[Q, H, E] attention within each pair of segments in one call; needs no plan. Offsets are read on the device.

    Args:
        query_QHE: queries of all segments.
        key_KGE, value_KGE: keys and values; those outside all segments are not seen.
        query_offsets, key_offsets: [S + 1] int32, start of each segment, and the end of the last one.
        max_queries, max_keys: at least those of the longest segment.
        causal: it counts from the ends of both segments.
        window: with `causal`, the last keys that a query sees; all of them if None.
        scale: of the scores; 1 / sqrt(E) if None.
        return_lse: whether to give the log-sum-exp of the scores, too: [H, Q] float32, without a gradient.
    """
    options: dict[str, Any] = {"enable_gqa": True} if VARLEN_HAS_GQA else {}
    if not VARLEN_HAS_GQA:
        group = query_QHE.shape[1] // key_KGE.shape[1]
        key_KGE, value_KGE = key_KGE.repeat_interleave(group, 1), value_KGE.repeat_interleave(group, 1)
    return varlen_attn(
        query_QHE,
        key_KGE,
        value_KGE,
        query_offsets,
        key_offsets,
        max_queries,
        max_keys,
        window_size=(-1 if window is None else window - 1, 0 if causal else -1),
        scale=scale,
        return_aux=AuxRequest(lse=True) if return_lse else None,
        **options,
    )


def merged(outputs_CGXE: list[Tensor], lses_CGX: list[Tensor]) -> Tensor:
    """[G, X, E] attention to all keys. Attention to each part of them counts by its share of the softmax denominator.

    Args:
        outputs_CGXE: attention to some parts, C in each tensor.
        lses_CGX: log-sum-exp of their scores, whose dtype the result has.
    """
    share_CGX = torch.cat(lses_CGX).softmax(0)
    return (torch.cat(outputs_CGXE) * share_CGX[..., None]).sum(0)


def fold_heads(query_QHE: Tensor, num_groups: int) -> Tensor:
    """[Q, H, E] -> [1, G, N * Q, E]: the N heads that share keys become further queries of them."""
    return query_QHE.transpose(0, 1).unflatten(0, (num_groups, -1)).flatten(1, 2)[None]


def unfold_heads(output_1GXE: Tensor, num_queries: int) -> Tensor:
    """[1, G, N * Q, E] -> [Q, H, E], the inverse of `fold_heads`."""
    return output_1GXE[0].unflatten(1, (-1, num_queries)).flatten(0, 1).transpose(0, 1)
