"""A model in training, sharded or with adapters, written as a plain checkpoint."""

from pathlib import Path

import torch
from torch import Tensor, nn

from hourllava.model.checkpoint import save_weights
from hourllava.model.processor import HourLlavaProcessor
from hourllava.training.adapters import merged
from hourllava.training.checkpoints import gather_weights, is_main


def write_model(model: nn.Module, processor: HourLlavaProcessor, folder: Path, dtype: torch.dtype) -> None:
    """Write configuration, weights and tokenizer; all processes take part, the main one writes.

    Args:
        model: the trained model, without DDP's wrapper.
        processor: of the model.
        folder: that exists.
        dtype: of the written weights.
    """
    weights: dict[str, Tensor] = gather_weights(model)
    if not is_main():
        return
    state = {name: tensor.to(dtype) for name, tensor in merged(model, weights).items()}
    save_weights(processor.config, state, folder)
    processor.tokenizer.save_pretrained(folder)
