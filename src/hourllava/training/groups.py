"""Learning rates by patterns of parameter names.

    learning_rates:
      "*": 2e-5                             # everything
      "model.vision_tower.*": 0             # except the vision tower
      "model.memaug.*": 1e-4                # the last matching pattern decides

A rate of 0 freezes. A pattern that decides for no parameter is an error: it is misspelt, or later patterns hide it.
"""

import fnmatch
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from hourllava.errors import ConfigError
from hourllava.model.vision import BypassedLayerNorm


@dataclass(frozen=True)
class Group:
    """Parameters with one learning rate.

    Attributes:
        pattern: the pattern that chose them.
        learning_rate: the highest rate of the schedule; 0 if they are frozen.
        names: their names.
        num_parameters: how many numbers they hold.
    """

    pattern: str
    learning_rate: float
    names: tuple[str, ...]
    num_parameters: int


def freeze_and_group(model: nn.Module, learning_rates: Mapping[str, float]) -> list[Group]:
    """Set `requires_grad` of every parameter, and return the groups.

    Unused weights (the vision tower's bypassed norm) are frozen regardless of the patterns.

    Raises:
        ConfigError: a pattern decides for no parameter, a parameter matches no pattern, or everything is frozen.
    """
    unused = {id(p) for module in model.modules() if isinstance(module, BypassedLayerNorm) for p in module.parameters()}
    chosen: dict[str, list[str]] = {pattern: [] for pattern in learning_rates}
    parameters = dict(model.named_parameters())
    for name, parameter in parameters.items():
        fitting = [pattern for pattern in learning_rates if fnmatch.fnmatchcase(name, pattern)]
        if not fitting:
            raise ConfigError(f'learning_rates have no pattern for {name}; add one that matches it, such as "*": 0')
        chosen[fitting[-1]].append(name)
        parameter.requires_grad_(learning_rates[fitting[-1]] > 0 and id(parameter) not in unused)
    idle = [pattern for pattern, names in chosen.items() if not names]
    if idle:
        parts = sorted({".".join(name.split(".")[:2]) for name in parameters})
        raise ConfigError(
            f"the learning rate of {idle[0]!r} applies to no parameter: no name matches the pattern, or a later "
            f"pattern also matches all its names; parts of this model: {', '.join(parts)}"
        )
    if not any(parameter.requires_grad for parameter in parameters.values()):
        raise ConfigError(f"learning_rates {dict(learning_rates)} freeze everything; give a pattern a rate above 0")
    return [
        Group(pattern, learning_rates[pattern], tuple(names), sum(parameters[name].numel() for name in names))
        for pattern, names in chosen.items()
    ]


def optimizer_groups(model: nn.Module, groups: list[Group], weight_decay: float) -> list[dict[str, Any]]:
    """Groups for torch optimizers. Matrices get weight decay; norms, biases and other vectors do not."""
    parameters = dict(model.named_parameters())
    result = []
    for group in groups:
        trained = [parameters[name] for name in group.names if parameters[name].requires_grad]
        for decay, members in (
            (weight_decay, [p for p in trained if p.ndim > 1]),
            (0.0, [p for p in trained if p.ndim <= 1]),
        ):
            if members:
                result.append({"params": members, "lr": group.learning_rate, "weight_decay": decay})
    return result
