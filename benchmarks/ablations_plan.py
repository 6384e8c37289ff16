"""The plan of `ablations.py`: variants, seeds and evaluations, and the commands that they need."""

import json
import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from hourllava.errors import ConfigError
from hourllava.evaluation.results import SCORES_NAME
from hourllava.training.recipe import load_recipe

MEMAUG_PATTERN = "memaug"


class Variant(BaseModel):
    """A variant: other settings of the recipes, another way to ask a trained variant, or a model as it is."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    name: str
    set: dict[str, Any] = {}  # recipe settings, with dots in their names
    of: str | None = None  # the trained variant whose model is asked
    model: str | None = None  # a model that is asked without training
    ask: str = ""  # more options of `hourllava eval world`

    @property
    def folder(self) -> str:
        """The name as a file name."""
        return re.sub(r"[^\w.]+", "-", self.name).strip("-")

    @property
    def is_trained(self) -> bool:
        """Whether the unit trains a model of its own."""
        return self.of is None and self.model is None


class Plan(BaseModel):
    """A plan file; `ablations.py` explains the fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    out: Path
    seeds: list[int]
    recipes: list[str]
    common: dict[str, Any] = {}
    evaluations: dict[str, str]
    variants: list[Variant]

    @model_validator(mode="after")
    def _names_are_known(self) -> "Plan":
        trained = {variant.name for variant in self.variants if variant.is_trained}
        for variant in self.variants:
            if variant.of is not None and (variant.of not in trained or variant.set):
                raise ValueError(
                    f"{variant.name!r} is of {variant.of!r}; `of` must be a trained variant, and `set` empty"
                )
            if variant.model is not None and (variant.of is not None or variant.set):
                raise ValueError(f"{variant.name!r} asks {variant.model}; `of` and `set` must be empty")
        if len({variant.folder for variant in self.variants}) < len(self.variants):
            raise ValueError("two variants have the same name")
        return self


@dataclass(frozen=True)
class Step:
    """A command, and the file or folder that exists once it has succeeded."""

    variant: Variant
    seed: int
    result: Path  # exists once the step is done
    command: list[str]


def load_plan(path: Path, *, out: Path | None = None, settings: Sequence[str] = ()) -> Plan:
    """The plan in a file.

    Args:
        path: of the file.
        out: in place of the plan's.
        settings: `name=value`, settings of all stages and variants.

    Raises:
        ConfigError: the file is no plan, or a setting has no value.
    """
    try:
        plan = Plan.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
        common = dict(plan.common)
        for setting in settings:
            name, sign, value = setting.partition("=")
            if not sign:
                raise ConfigError(f"--set {setting} needs a value: NAME=VALUE")
            common[name] = yaml.safe_load(value)
        return plan.model_copy(update={"out": out or plan.out, "common": common})
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, ValidationError) as error:
        raise ConfigError(f"{path} is not a plan: {' '.join(str(error).split())}") from error


def steps_of(plan: Plan, variant: Variant, seed: int) -> Iterator[Step]:
    """The steps of a unit in order: trainings, then evaluations."""
    model = unit_folder(plan, plan.variants[_index(plan, variant.of or variant.name)], seed)
    stages = _stages(plan, variant) if variant.is_trained else []
    previous: Path | None = None
    for number, recipe, rates in stages:
        out = model / f"stage-{number}"
        settings = plan.common | variant.set | {"out": str(out), "seed": seed}
        if previous is not None:
            settings["start.checkpoint"] = str(previous)
        if rates is not None:
            settings["learning_rates"] = rates
        previous = out / "final"
        overrides = [part for key, value in settings.items() for part in ("--set", f"{key}={json.dumps(value)}")]
        yield Step(variant, seed, previous, ["train", recipe, *overrides])
    origin = variant if variant.of is None else plan.variants[_index(plan, variant.of)]
    asked = variant.model or str(model / f"stage-{_stages(plan, origin)[-1][0]}" / "final")
    for name, options in plan.evaluations.items():
        out = evaluation_folder(plan, variant, seed, name)
        command = ["eval", "world", "--model", asked, "--out", str(out)]
        yield Step(variant, seed, out / SCORES_NAME, [*command, *shlex.split(options), *shlex.split(variant.ask)])


def _stages(plan: Plan, variant: Variant) -> list[tuple[int, str, dict[str, float] | None]]:
    """(number, recipe, learning rates or None for the recipe's own). Without MemAug, its rates are left out."""
    settings = plan.common | variant.set
    without = settings.get("start.model.memaug.num_blocks") == 0
    stages: list[tuple[int, str, dict[str, float] | None]] = []
    for number, recipe in enumerate(plan.recipes):
        rates = None
        if without:
            rates = {
                pattern: rate
                for pattern, rate in settings.get("learning_rates", load_recipe(recipe).learning_rates).items()
                if MEMAUG_PATTERN not in pattern
            }
            if not any(rates.values()):
                continue  # this stage trains only MemAug
        stages.append((number, recipe, rates))
    return stages


def _index(plan: Plan, name: str) -> int:
    return [variant.name for variant in plan.variants].index(name)


def unit_folder(plan: Plan, variant: Variant, seed: int) -> Path:
    return plan.out / f"{variant.folder}-{seed}"


def evaluation_folder(plan: Plan, variant: Variant, seed: int, name: str) -> Path:
    return unit_folder(plan, variant, seed) / f"eval-{name}"
