"""Ablations: variants of a recipe, trained with the same budget and seeds, evaluated alike, in one table.

    python benchmarks/ablations.py plan.yaml                      # goes on where it was stopped
    python benchmarks/ablations.py plan.yaml --seconds 500        # ends after that time, whatever runs then
    python benchmarks/ablations.py plan.yaml --only baseline --seed 0

A plan:

    out: runs/ablations
    seeds: [0, 1]
    recipes: [recipes/hourllava-nano/s2.yaml, recipes/hourllava-nano/s3.yaml]   # stages, each from the one before
    common: {schedule.max_steps: 2000}                     # settings of all stages and variants: the budget
    evaluations:                                           # name: options of `hourllava eval world`
      world: --videos 100 --minutes 3-60 --no-baselines
      needles-60: --needles --minutes 60 --videos 100 --formats choice
    variants:
      - {name: baseline}
      - {name: no MemAug, set: {start.model.memaug.num_blocks: 0}}
      - {name: memory 25 %, of: baseline, ask: --memory-share 0.25}             # not trained, asked differently

A unit is a variant with a seed: OUT/<variant>-<seed>/stage-K is its training, .../eval-<name> its evaluations. Both go
on where they were killed, and a unit that is done is not touched again, so the plan may be run in slices of any length,
and its units on several machines. The table, OUT/table.md, is written anew after every evaluation; it names the number
of seeds behind each figure, and gives their lowest and highest.

Training and evaluation run as `python -m hourllava`, a process each.
"""

import argparse
import json
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from hourllava.data.atomic import replacing
from hourllava.errors import ConfigError, HourLlavaError
from hourllava.evaluation.report import markdown_table
from hourllava.training.recipe import load_recipe

MEMAUG_PATTERN = "memaug"


class Variant(BaseModel):
    """What is done differently: settings of the recipes, or only how the model of another variant is asked."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    name: str
    set: dict[str, Any] = {}  # recipe settings, with dots
    of: str | None = None  # the variant whose model is asked
    ask: str = ""  # further options of `hourllava eval world`

    @property
    def folder(self) -> str:
        """The name as a file name."""
        return re.sub(r"[^\w.]+", "-", self.name).strip("-")


class Plan(BaseModel):
    """See the head of this file."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    out: Path
    seeds: list[int]
    recipes: list[str]
    common: dict[str, Any] = {}
    evaluations: dict[str, str]
    variants: list[Variant]

    @model_validator(mode="after")
    def _names_are_known(self) -> "Plan":
        trained = {variant.name for variant in self.variants if variant.of is None}
        for variant in self.variants:
            if variant.of is not None and (variant.of not in trained or variant.set):
                raise ValueError(
                    f"{variant.name!r} is of {variant.of!r}; that must be a trained variant, and set empty"
                )
        if len({variant.folder for variant in self.variants}) < len(self.variants):
            raise ValueError("two variants have the same name")
        return self


@dataclass(frozen=True)
class Step:
    """Something that is done or not, and the command that does it."""

    variant: Variant
    seed: int
    result: Path  # is there when it is done
    command: list[str]


def load_plan(path: Path) -> Plan:
    try:
        return Plan.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, ValidationError) as error:
        raise ConfigError(f"{path} is no plan: {' '.join(str(error).split())}") from error


def steps_of(plan: Plan, variant: Variant, seed: int) -> Iterator[Step]:
    """Trainings, then evaluations, of a unit; later ones need the earlier."""
    model = unit_folder(plan, plan.variants[_index(plan, variant.of or variant.name)], seed)
    stages = _stages(plan, variant) if variant.of is None else []
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
    last = _stages(plan, origin)[-1][0]
    for name, options in plan.evaluations.items():
        out = evaluation_folder(plan, variant, seed, name)
        command = ["eval", "world", "--model", str(model / f"stage-{last}" / "final"), "--out", str(out)]
        yield Step(variant, seed, out / "scores.json", [*command, *shlex.split(options), *shlex.split(variant.ask)])


def _stages(plan: Plan, variant: Variant) -> list[tuple[int, str, dict[str, float] | None]]:
    """(number, recipe, learning rates if they must change); a model without MemAug has none of it to train."""
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
                continue  # this stage trains MemAug alone
        stages.append((number, recipe, rates))
    return stages


def _index(plan: Plan, name: str) -> int:
    return [variant.name for variant in plan.variants].index(name)


def unit_folder(plan: Plan, variant: Variant, seed: int) -> Path:
    return plan.out / f"{variant.folder}-{seed}"


def evaluation_folder(plan: Plan, variant: Variant, seed: int, name: str) -> Path:
    return unit_folder(plan, variant, seed) / f"eval-{name}"


def hourllava(arguments: Sequence[str], seconds: float | None) -> bool:
    """Run a command of the library; False if it was killed because it took longer than `seconds`.

    Raises:
        HourLlavaError: it failed; what it said stands above.
    """
    command = [sys.executable, "-m", "hourllava", *arguments]
    try:
        code = subprocess.run(command, check=False, timeout=seconds).returncode
    except subprocess.TimeoutExpired:
        return False
    if code:
        raise HourLlavaError(f"`hourllava {shlex.join(arguments)}` ended with exit code {code}; see above")
    return True


def run_plan(plan: Plan, *, only: str | None = None, seed: int | None = None, seconds: float | None = None) -> bool:
    """Do what is missing; all variants of a seed before the next seed. False if time ran out before the end."""
    started = time.monotonic()
    steps = [
        step
        for one in plan.seeds
        for variant in plan.variants
        if only in (None, variant.name) and seed in (None, one)
        for step in steps_of(plan, variant, one)
    ]
    for number, step in enumerate(steps, 1):
        if step.result.exists():
            continue
        left = None if seconds is None else seconds - (time.monotonic() - started)
        if left is not None and left <= 0:
            return False
        print(f"[{number}/{len(steps)}] {step.variant.name}, seed {step.seed}: {step.command[0]}", file=sys.stderr)
        if not hourllava(step.command, left):
            return False
        write_table(plan)
    write_table(plan)
    return True


def write_table(plan: Plan) -> None:
    """OUT/table.md from all evaluations there are."""
    columns = [(name, format_) for name in plan.evaluations for format_ in ("choice", "open")]
    found = {
        variant.name: [_accuracies(plan, variant, seed, columns) for seed in plan.seeds] for variant in plan.variants
    }
    used = [column for column in columns if any(column in one for seeds in found.values() for one in seeds)]
    rows = [[name, *(_cell([one[column] for one in seeds if column in one]) for column in used)]
            for name, seeds in found.items()]  # fmt: skip
    heads = [
        "variant",
        *(f"{name}, {'multiple choice' if format_ == 'choice' else 'open-ended'}" for name, format_ in used),
    ]
    note = f"Mean of the seeds in percent (lowest-highest; seeds). Seeds {', '.join(map(str, plan.seeds))}."
    plan.out.mkdir(parents=True, exist_ok=True)
    with replacing(plan.out / "table.md") as temporary:
        temporary.write_text(f"{note}\n\n{markdown_table(heads, rows)}\n", encoding="utf-8")


def _accuracies(plan: Plan, variant: Variant, seed: int, columns: Sequence[tuple[str, str]]) -> dict[Any, float]:
    accuracies = {}
    for name, format_ in columns:
        path = evaluation_folder(plan, variant, seed, name) / "scores.json"
        if path.exists():
            cells = json.loads(path.read_text(encoding="utf-8"))["all"]["all"].get(format_)
            if cells:
                accuracies[name, format_] = 100 * cells["video"]["accuracy"]
    return accuracies


def _cell(values: Sequence[float]) -> str:
    if not values:
        return ""
    return f"{sum(values) / len(values):.1f} ({min(values):.1f}-{max(values):.1f}; {len(values)})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("plan", type=Path)
    parser.add_argument("--only", help="one variant")
    parser.add_argument("--seed", type=int, help="one of the seeds")
    parser.add_argument("--seconds", type=float, help="end after that time, whatever runs then")
    arguments = parser.parse_args()
    try:
        plan = load_plan(arguments.plan)
        done = run_plan(plan, only=arguments.only, seed=arguments.seed, seconds=arguments.seconds)
    except HourLlavaError as error:
        sys.exit(f"error: {error}")
    print((plan.out / "table.md").read_text(encoding="utf-8") if done else "not done yet: start the command again")


if __name__ == "__main__":
    main()
