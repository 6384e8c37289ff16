"""Writing a model in training, sharded or with adapters, as a plain checkpoint.

Without adapters, weights are written in the precision of the computation, bf16 by default. Adapters change weights by
less than bf16 resolves: rounding lost 95 % of what 8 steps at the shipped rate had learnt, and 48 % after 96 steps. So
merged weights are written in float32, and the adapters beside them.
"""

import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hourllava.model.checkpoint import save_weights
from hourllava.model.processor import HourLlavaProcessor
from hourllava.training.adapters import merged, save_adapters, share_lost_in_bf16
from hourllava.training.checkpoints import gather_weights
from hourllava.training.ranks import is_main
from hourllava.training.recipe import Recipe

_NOTABLE_SHARE = 0.01
"""A line is printed if bf16 would lose more than this share of the adapters' change."""


def write_model(model: nn.Module, processor: HourLlavaProcessor, folder: Path, recipe: Recipe) -> None:
    """Write configuration, weights and tokenizer. All processes must call this together; the main process writes.

    Args:
        model: the trained model, without DDP's wrapper.
        processor: its processor.
        folder: an existing folder.
        recipe: the run's recipe.
    """
    weights: dict[str, Tensor] = gather_weights(model)
    if not is_main():
        return
    if recipe.lora is None:
        dtype = torch.bfloat16 if recipe.precision == "bf16" else torch.float32
        state = {name: tensor.to(dtype) for name, tensor in weights.items()}
    else:
        state = {name: tensor.float() for name, tensor in merged(model, weights).items()}
        lost_share = share_lost_in_bf16(weights, state)
        if lost_share > _NOTABLE_SHARE:
            line = f"adapters: merged in float32; bf16 weights would lose {lost_share:.0%} of what they learnt"
            print(line, file=sys.stderr, flush=True)
        save_adapters(model, weights, folder, recipe)
    save_weights(processor.config, state, folder)
    save_tokenizer(processor.tokenizer, folder)


def save_tokenizer(tokenizer: Any, folder: Path) -> None:
    """Write a tokenizer's files.

    Raises:
        OSError: they cannot be written.
    """
    try:
        tokenizer.save_pretrained(folder)
    except OSError:
        raise
    except Exception as error:  # the tokenizers library has no class of its own for system errors
        if "os error" not in str(error):
            raise
        raise OSError(str(error)) from error
