"""`torch.compile` for repeated modules: layers of the decoder and the vision tower, MemAug blocks and their keys.

A small model spends its step on launching thousands of small kernels. Compilation fuses all kernels between two matrix
products into one. Each kind of layer is compiled once, for all its layers and for any length, because no two
micro-batches have the same shape. Attention over packed samples is not compiled: `packed_attention` chooses its kernels
by the samples' lengths, which differ in every step. So a decoder layer has two compiled parts and a MemAug block three.

In evaluation mode nothing runs compiled, because a growing cache would be compiled again and again.
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
    """Compile the repeated layers of a model for training mode. Call it before FSDP2's `fully_shard` and before DDP.

    Parameters keep their names. The first step takes one or two minutes longer. Not for models with activation
    checkpointing.

    Args:
        model: a module that consists of transformers' layers.
        backend: the backend of `torch.compile`.
    """
    # Otherwise a graph break inside an attention module also breaks the layer around it: five parts instead of two.
    torch._dynamo.config.nested_graph_breaks = True
    # DDP splits graphs of a whole model for its gradient buckets; our graphs are single layers.
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
    """The method, compiled for training mode and plain in evaluation mode."""
    # transformers wraps every `forward` in the same function. torch allows 8 compilations of one function, so the
    # wrapper must go.
    plain = inspect.unwrap(method)
    compiled = torch.compile(plain, dynamic=True, backend=backend)

    def in_either_mode(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        return (compiled if self.training else plain)(self, *args, **kwargs)

    return in_either_mode
