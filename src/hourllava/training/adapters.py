"""Low-rank adapters (LoRA, through peft), put into a model in place and merged when it is written."""

import re

from torch import Tensor, nn

from hourllava.errors import ConfigError
from hourllava.training.recipe import LoraRecipe

_ADAPTER = "default"
_BASE, _DOWN, _UP = ".base_layer.", f".lora_A.{_ADAPTER}.weight", f".lora_B.{_ADAPTER}.weight"


def add_adapters(model: nn.Module, recipe: LoraRecipe) -> None:
    """Put adapters beside the linear layers that the recipe's expression names in full.

    Their parameters are called `....lora_A.default.weight` and `....lora_B.default.weight`.

    Raises:
        ConfigError: peft is not installed, or no layer fits.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise ConfigError("adapters need peft; pip install 'hourllava[lora]'") from error
    targets = [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and re.fullmatch(recipe.targets, name)
    ]
    if not targets:
        raise ConfigError(
            f"lora.targets {recipe.targets!r} fits no linear layer; one of this model's is "
            "model.language_model.layers.0.self_attn.q_proj"
        )
    config = LoraConfig(r=recipe.rank, lora_alpha=recipe.alpha, target_modules=targets, lora_dropout=0.0)
    inject_adapter_in_model(config, model, adapter_name=_ADAPTER)


def merged(model: nn.Module, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights without adapters: what these add is added to the layers they sit on, in float32."""
    scales = {name: module.scaling[_ADAPTER] for name, module in model.named_modules() if hasattr(module, "lora_A")}
    plain = {name.replace(_BASE, "."): tensor for name, tensor in weights.items() if ".lora_" not in name}
    for layer, scale in scales.items():
        name = f"{layer}.weight"
        delta = weights[layer + _UP].float() @ weights[layer + _DOWN].float() * scale
        plain[name] = (plain[name].float() + delta).to(plain[name].dtype)
    return plain
