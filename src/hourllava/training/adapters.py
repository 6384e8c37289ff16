"""Low-rank adapters (LoRA, through peft): added to a model in place, merged into its weights when it is written."""

import re
from pathlib import Path
from typing import TYPE_CHECKING

from safetensors.torch import save_file
from torch import Tensor, nn

from hourllava.errors import ConfigError
from hourllava.model.head import LanguageModelHead
from hourllava.training.recipe import LoraRecipe, Recipe

if TYPE_CHECKING:
    from peft import LoraConfig

ADAPTER = "adapter"
"""Folder beside the merged weights. It holds the adapters alone, for peft and the model that the run started from."""

_ADAPTER = "default"
_BASE, _DOWN, _UP = ".base_layer.", f".lora_A.{_ADAPTER}.weight", f".lora_B.{_ADAPTER}.weight"
_PEFT_PREFIX = "base_model.model."


def add_adapters(model: nn.Module, recipe: LoraRecipe) -> None:
    """Add adapters to the linear layers whose full name matches the recipe's regular expression.

    Parameter names end in `.lora_A.default.weight` and `.lora_B.default.weight`.

    Raises:
        ConfigError: peft is not installed, no layer matches, or a matching layer cannot have adapters.
    """
    try:
        from peft import inject_adapter_in_model
    except ImportError as error:
        raise ConfigError("adapters need peft; pip install 'hourllava[lora]'") from error
    targets = _targets(model, recipe)
    inject_adapter_in_model(_peft_config(recipe, targets), model, adapter_name=_ADAPTER)


def merged(model: nn.Module, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights without adapters. Each adapter's product is added, in float32, to the weight of its layer."""
    scales = {name: module.scaling[_ADAPTER] for name, module in model.named_modules() if hasattr(module, "lora_A")}
    plain = {name.replace(_BASE, "."): tensor for name, tensor in weights.items() if ".lora_" not in name}
    for layer, scale in scales.items():
        name = f"{layer}.weight"
        delta = weights[layer + _UP].float() @ weights[layer + _DOWN].float() * scale
        plain[name] = (plain[name].float() + delta).to(plain[name].dtype)
    return plain


def share_lost_in_bf16(weights: dict[str, Tensor], plain: dict[str, Tensor]) -> float:
    """Share of the adapters' change that rounding the merged weights to bf16 would lose.

    Args:
        weights: the model's weights, with adapters.
        plain: what `merged` made of them.
    """
    change = lost = 0.0
    for name, base in weights.items():
        if _BASE in name:
            new = plain[name.replace(_BASE, ".")]
            change += float((new - base).square().sum())
            lost += float((new.bfloat16() - new).square().sum())
    return (lost / change) ** 0.5 if change else 0.0


def save_adapters(model: nn.Module, weights: dict[str, Tensor], folder: Path, recipe: Recipe) -> None:
    """Write the adapters alone, in peft's format, into `folder/adapter`.

    Args:
        model: the model with adapters.
        weights: all its weights, on the CPU.
        folder: the checkpoint.
        recipe: the run's recipe.
    """
    assert recipe.lora is not None
    layers = [name for name, module in model.named_modules() if hasattr(module, "lora_A")]
    config = _peft_config(recipe.lora, layers)
    config.target_modules = layers  # peft keeps a set, whose order in the file would change from run to run
    config.base_model_name_or_path = recipe.start.checkpoint
    config.inference_mode = True
    target = folder / ADAPTER
    target.mkdir()
    config.save_pretrained(str(target))
    tensors = {}
    for layer in layers:
        for part, name in ((_DOWN, "lora_A"), (_UP, "lora_B")):
            tensors[f"{_PEFT_PREFIX}{layer}.{name}.weight"] = weights[layer + part].contiguous()
    save_file(tensors, target / "adapter_model.safetensors", metadata={"format": "pt"})


def _peft_config(recipe: LoraRecipe, targets: list[str]) -> "LoraConfig":
    from peft import LoraConfig

    return LoraConfig(r=recipe.rank, lora_alpha=recipe.alpha, target_modules=targets, lora_dropout=0.0)


def _targets(model: nn.Module, recipe: LoraRecipe) -> list[str]:
    """Names of the layers that get adapters."""
    fitting = {name: module for name, module in model.named_modules() if re.fullmatch(recipe.targets, name)}
    owners: dict[int, list[str]] = {}
    for name, module in model.named_modules():
        for parameter in module.parameters(recurse=False):
            owners.setdefault(id(parameter), []).append(name)
    for name, module in fitting.items():
        shared = [other for p in module.parameters(recurse=False) for other in owners[id(p)] if other != name]
        if isinstance(module, LanguageModelHead | nn.Embedding) or shared:
            what = f"shares its weight with {shared[0]}" if shared else "is an embedding or the head"
            raise ConfigError(
                f"lora.targets {recipe.targets!r} matches {name}, which {what} and cannot have adapters; match linear "
                r"layers only, such as model\.language_model\.layers\..*_proj"
            )
    targets = [name for name, module in fitting.items() if isinstance(module, nn.Linear)]
    if not targets:
        raise ConfigError(
            f"lora.targets {recipe.targets!r} matches no linear layer; this model has, for example, "
            "model.language_model.layers.0.self_attn.q_proj"
        )
    return targets
