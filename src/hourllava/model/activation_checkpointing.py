"""Activation checkpointing: which results of the forward pass a training step keeps, and which it computes again.

    checkpoint_activations(model, "selective")

Three modes apply to decoder layers of any transformers model, MemAug blocks and the projector:

- `none` keeps everything. It is the fastest, for short sequences: an hour of video takes 53 GB instead of 20 (3B).
- `full` keeps the input of each layer and computes the layer again in the backward pass.
- `selective` also keeps the results of attention. They are small (one vector a token, and the log-sum-exp) and costly:
  MemAug's attention to the memory of an hour takes 30 ms per block (3B, H100). Figures: docs/benchmarks.md.

All three give the same gradients. transformers' own switch is not used: it makes the embeddings' output require
gradients, so a backward pass would run through a frozen vision tower.
"""

import functools
from typing import Any, Literal, get_args

import torch
import torch.nn.attention.varlen  # defines its operator
from torch import nn
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts
from transformers.modeling_layers import GradientCheckpointingLayer

from hourllava.errors import ConfigError

Checkpointing = Literal["none", "full", "selective"]

# Each returns output and log-sum-exp, which its backward kernel needs besides queries, keys and values.
_ATTENTION_OPERATORS = frozenset(
    {
        torch.ops.aten._scaled_dot_product_cudnn_attention.default,
        torch.ops.aten._scaled_dot_product_efficient_attention.default,
        torch.ops.aten._scaled_dot_product_flash_attention.default,
        torch.ops.aten._scaled_dot_product_flash_attention_for_cpu.default,
        torch.ops.torch_attn._varlen_attn.default,
    }
)


def checkpoint_activations(model: nn.Module, mode: Checkpointing) -> None:
    """Set the checkpointing mode of a model in training mode; another call sets another mode.

    Works before or after FSDP2's `fully_shard` and around LoRA layers; does not change `requires_grad`.

    Args:
        model: any module with transformers' layers.
        mode: see the module.

    Raises:
        ConfigError: unknown mode, or no layer of the model can be computed again.
    """
    if mode not in get_args(Checkpointing):
        raise ConfigError(f"checkpointing is {mode!r}; choose one of {', '.join(get_args(Checkpointing))}")
    layers = [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
    if not layers:
        raise ConfigError(
            f"{type(model).__name__} has no layers that can be computed again; its decoder must be one of transformers'"
        )
    contexts: dict[str, Any] = {"context_fn": _keep_attention} if mode == "selective" else {}
    for layer in layers:
        layer.gradient_checkpointing = mode != "none"
        layer._gradient_checkpointing_func = functools.partial(checkpoint, use_reentrant=False, **contexts)


def _keep_attention() -> Any:
    return create_selective_checkpoint_contexts(_policy)


def _policy(context: Any, operator: Any, *args: Any, **kwargs: Any) -> CheckpointPolicy:
    return CheckpointPolicy.MUST_SAVE if operator in _ATTENTION_OPERATORS else CheckpointPolicy.PREFER_RECOMPUTE
