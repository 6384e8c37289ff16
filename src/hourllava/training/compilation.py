"""`torch.compile` for what a model repeats: layers of the decoder and the vision tower, MemAug blocks and their keys.

A small model's step is bound by the launches of its thousands of small kernels; compiled, those between two matrix
products become one. Each kind of layer is compiled once, for all its layers and for any length: no two packed batches
have the same shape. Attention over packed samples stays as it is (`packed_attention` chooses among kernels by lengths
that differ in every step), so a decoder layer is two compiled parts and a MemAug block three.

In evaluation mode nothing runs compiled: a cache that grows would be compiled again and again.
"""

import inspect
import types
from collections.abc import Callable
from typing import Any

import torch
import torch._dynamo
from torch import nn
from transformers.modeling_layers import GradientCheckpointingLayer

from hourllava.model.memaug import MemAug

Function = Callable[..., Any]


def compile_layers(model: nn.Module, backend: str | Function = "inductor") -> None:
    """Compile what a model in training mode repeats; before FSDP2's `fully_shard` and DDP. Parameters keep their names.

    The first step takes a minute or two longer. Not for models that compute activations again in the backward pass.

    Args:
        model: any module of transformers' layers.
        backend: of `torch.compile`.
    """
    # A break inside an attention module would otherwise break the layer around it too: five parts instead of two.
    torch._dynamo.config.nested_graph_breaks = True
    # DDP's gradient buckets need whole-model graphs to be split up; ours are layers already.
    torch._dynamo.config.optimize_ddp = False
    compiled: dict[type[nn.Module], Function] = {}
    for module in model.modules():
        if isinstance(module, GradientCheckpointingLayer):
            method = "forward"
        elif isinstance(module, MemAug):
            method = "keys_values"
        else:
            continue
        kind = type(module)
        if kind not in compiled:
            compiled[kind] = _compiled_in_training(getattr(kind, method), backend)
        setattr(module, method, types.MethodType(compiled[kind], module))


def _compiled_in_training(method: Function, backend: str | Function) -> Function:
    """A method that is compiled, used in training mode only."""
    # Without what transformers wraps around each `forward`, one function for all kinds: torch counts compilations, of
    # which 8 are allowed, by function.
    plain = inspect.unwrap(method)
    compiled = torch.compile(plain, dynamic=True, backend=backend)

    def in_either_mode(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        return (compiled if self.training else plain)(self, *args, **kwargs)

    return in_either_mode
