"""`torch.compile` for the layers a model repeats: decoder layers, layers of the vision tower, MemAug blocks, projector.

A small model's step is bound by the launches of its thousands of small kernels; compiled, those between two matrix
products become one. Each kind of layer is compiled once, for all its layers and for any length: no two packed batches
have the same shape. Attention over packed samples stays as it is (`packed_attention` chooses among kernels by lengths
that differ in every step), so a decoder layer is two compiled parts and a MemAug block three.

In evaluation mode layers run uncompiled: a cache that grows would be compiled again and again.
"""

import inspect
import types
from collections.abc import Callable
from typing import Any

import torch
import torch._dynamo
from torch import nn
from transformers.modeling_layers import GradientCheckpointingLayer


def compile_layers(model: nn.Module, backend: str | Callable[..., Any] = "inductor") -> None:
    """Compile what a model in training mode repeats; before FSDP2's `fully_shard` and DDP. Parameters keep their names.

    The first step takes a minute longer for it. Not for models that compute activations again in the backward pass.

    Args:
        model: any module of transformers' layers.
        backend: of `torch.compile`.
    """
    # A break inside an attention module would otherwise break the layer around it too: five parts instead of two.
    torch._dynamo.config.nested_graph_breaks = True
    # DDP's gradient buckets need whole-model graphs to be split up; ours are layers already.
    torch._dynamo.config.optimize_ddp = False
    by_kind: dict[type[nn.Module], Callable[..., Any]] = {}
    for layer in model.modules():
        if isinstance(layer, GradientCheckpointingLayer):
            kind = type(layer)
            if kind not in by_kind:
                by_kind[kind] = _compiled_in_training(kind, backend)
            layer.forward = types.MethodType(by_kind[kind], layer)


def _compiled_in_training(kind: type[nn.Module], backend: str | Callable[..., Any]) -> Callable[..., Any]:
    """A `forward` of layers of one kind."""
    # Without what transformers wraps around each `forward`, one function for all kinds: torch counts compilations, of
    # which 8 are allowed, by function.
    forward = inspect.unwrap(kind.forward)
    compiled = torch.compile(forward, dynamic=True, backend=backend)

    def forward_in_either_mode(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        return (compiled if self.training else forward)(self, *args, **kwargs)

    return forward_in_either_mode
