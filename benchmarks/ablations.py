"""Ablations: variants of a recipe, trained with the same budget and seeds, evaluated alike, in one table.

    python benchmarks/ablations.py plan.yaml                      # goes on where it was stopped
    python benchmarks/ablations.py plan.yaml --seconds 500        # ends after that time, whatever runs then
    python benchmarks/ablations.py plan.yaml --only baseline --seed 0
    python benchmarks/ablations.py plan.yaml --devices 0,1,2,3 --at-once 3

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

A unit is a variant with a seed: OUT/<variant>-<seed>/stage-K is its training, .../eval-<name> its evaluations, and
.../log.txt what both said. They go on where they were killed, and a unit that is done is not touched again, so the plan
may be run in slices of any length, and its units on several machines. The table, OUT/table.md, is written anew after
every step: of each variant the mean of its seeds, their lowest and highest, and the difference from the plan's first
variant, question by question, with one interval over videos and one over seeds.

Training and evaluation run as `python -m hourllava`, a process each. A small model's step is bound by the launches of
its kernels, so several units share a GPU well while their memory fits. A unit that fails does not stop the others.
"""

import argparse
import itertools
import json
import os
import re
import shlex
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from hourllava.errors import ConfigError, HourLlavaError, PartlyDoneError
from hourllava.evaluation.intervals import difference_of, mean_interval
from hourllava.evaluation.report import markdown_table
from hourllava.evaluation.results import ANSWERS_NAME, SCORES_NAME, read_answers
from hourllava.evaluation.scores import AnsweredQuestion
from hourllava.files import replacing
from hourllava.training.recipe import load_recipe

MEMAUG_PATTERN = "memaug"
LOG_NAME = "log.txt"
SECONDS_BETWEEN_LINES = 30


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
        yield Step(variant, seed, out / SCORES_NAME, [*command, *shlex.split(options), *shlex.split(variant.ask)])


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


def hourllava(arguments: Sequence[str], seconds: float | None, device: str | None, log: Path) -> bool:
    """Run a command of the library; False if it was killed because it took longer than `seconds`.

    Args:
        arguments: of `hourllava`.
        seconds: it may take.
        device: number of the GPU it sees; all of them if None.
        log: gets what it says.

    Raises:
        HourLlavaError: it failed.
    """
    command = [sys.executable, "-m", "hourllava", *arguments]
    environment = os.environ if device is None else os.environ | {"CUDA_VISIBLE_DEVICES": device}
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as said:
        try:
            run = subprocess.run(command, check=False, timeout=seconds, env=environment, stdout=said, stderr=said)
        except subprocess.TimeoutExpired:
            return False
    if run.returncode:
        raise HourLlavaError(
            f"`hourllava {shlex.join(arguments)}` ended with exit code {run.returncode}, see {log}: {last_line(log)}"
        )
    return True


def last_line(log: Path) -> str:
    """The newest line of a log; a progress bar's newest state."""
    lines = re.split(r"[\r\n]+", log.read_text(encoding="utf-8", errors="replace").rstrip()) if log.exists() else [""]
    return lines[-1]


class Run:
    """Does what is missing of some units, several at once.

    Args:
        plan: they belong to.
        units: variants with seeds, a trained variant before those that ask its model.
        seconds: until everything that runs is killed.
    """

    def __init__(self, plan: Plan, units: Sequence[tuple[Variant, int]], seconds: float | None) -> None:
        self.plan, self.seconds = plan, seconds
        self.failures: list[str] = []
        self._waiting = iter(units)
        self._total, self._begun = len(units), itertools.count(1)
        self._started = time.monotonic()
        self._lock = threading.Lock()
        self._logs: dict[str, Path] = {}  # of what runs now
        self._trained = {(v.name, seed): threading.Event() for v, seed in units if v.of is None}

    def lane(self, device: str | None) -> bool:
        """Do one unit after the other; False if time ran out."""
        while True:
            with self._lock:
                variant, seed = next(self._waiting, (None, 0))
            if variant is None:
                return True
            try:
                if not self._unit(variant, seed, device):
                    return False
            except HourLlavaError as error:
                self.failures.append(str(error))
            finally:
                if variant.of is None:
                    self._trained[variant.name, seed].set()

    def _unit(self, variant: Variant, seed: int, device: str | None) -> bool:
        asked = self._trained.get((variant.of or "", seed))
        if asked is not None:
            asked.wait()
        name = f"[{next(self._begun)}/{self._total}] {variant.name}, seed {seed}"
        self._logs[name] = log = unit_folder(self.plan, variant, seed) / LOG_NAME
        try:
            for step in steps_of(self.plan, variant, seed):
                if step.command[0] == "eval" and variant.of is None:
                    self._trained[variant.name, seed].set()
                if step.result.exists():
                    continue
                left = None if self.seconds is None else self.seconds - (time.monotonic() - self._started)
                if left is not None and left <= 0:
                    return False
                print(f"{name}: {step.command[0]}", file=sys.stderr)
                if not hourllava(step.command, left, device, log):
                    return False
                with self._lock:
                    write_table(self.plan)
        finally:
            del self._logs[name]
        return True

    def tell(self, finished: threading.Event) -> None:
        """Print now and then what runs."""
        while not finished.wait(SECONDS_BETWEEN_LINES):
            for name, log in list(self._logs.items()):
                print(f"{name}: {last_line(log)}", file=sys.stderr)


def run_plan(
    plan: Plan,
    *,
    only: str | None = None,
    seed: int | None = None,
    seconds: float | None = None,
    devices: Sequence[str | None] = (None,),
    at_once: int = 1,
) -> bool:
    """Do what is missing; all variants of a seed before the next seed. False if time ran out before the end.

    Args:
        plan: to be done.
        only, seed: a part of it.
        seconds: until everything that runs is killed.
        devices: numbers of GPUs; None for whatever there is.
        at_once: units on each of them.

    Raises:
        PartlyDoneError: some units failed; all others were done.
        HourLlavaError: all failed.
    """
    units = [(v, one) for one in plan.seeds for v in plan.variants if only in (None, v.name) and seed in (None, one)]
    run = Run(plan, units, seconds)
    finished = threading.Event()
    teller = threading.Thread(target=run.tell, args=(finished,), daemon=True)
    teller.start()
    with ThreadPoolExecutor(len(devices) * at_once) as lanes:
        in_time = list(lanes.map(run.lane, [device for _ in range(at_once) for device in devices]))
    finished.set()
    write_table(plan)
    if run.failures:
        raise (PartlyDoneError if len(run.failures) < len(units) else HourLlavaError)("; ".join(run.failures))
    return all(in_time)


def write_table(plan: Plan) -> None:
    """OUT/table.md from all evaluations there are: shares of right answers, and differences from the baseline."""
    columns = [(name, format_) for name in plan.evaluations for format_ in ("choice", "open")]
    found = {
        variant.name: {seed: _answers(plan, variant, seed, columns) for seed in plan.seeds} for variant in plan.variants
    }
    used = [column for column in columns if any(column in one for seeds in found.values() for one in seeds.values())]
    baseline = plan.variants[0].name
    shares = [[name, *(_share_cell([one[column] for one in seeds.values() if column in one]) for column in used)]
              for name, seeds in found.items()]  # fmt: skip
    differences = [[name, *(_difference_cell(seeds, found[baseline], column) for column in used)]
                   for name, seeds in found.items() if name != baseline]  # fmt: skip
    heads = [f"{name}, {'multiple choice' if format_ == 'choice' else 'open-ended'}" for name, format_ in used]
    text = "\n\n".join((
        f"Mean of the seeds in percent (lowest to highest; seeds). Seeds {', '.join(map(str, plan.seeds))}.",
        markdown_table(["variant", *heads], shares),
        f"Points above {baseline}, asked the same questions and trained with the same seed. *videos*: the 95 % "
        "interval if other videos were asked, of these trained models. *seeds*: the 95 % interval if others were "
        "trained; two seeds tell little. A difference is sure if neither holds 0.",
        markdown_table(["variant", *heads], differences),
    ))  # fmt: skip
    plan.out.mkdir(parents=True, exist_ok=True)
    with replacing(plan.out / "table.md") as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


Column = tuple[str, str]  # evaluation, format
Answers = dict[Column, dict[str, AnsweredQuestion]]  # by the question's id


def _answers(plan: Plan, variant: Variant, seed: int, columns: Sequence[Column]) -> Answers:
    """What a finished unit answered."""
    answers: Answers = {}
    for name, format_ in columns:
        folder = evaluation_folder(plan, variant, seed, name)
        if (folder / SCORES_NAME).exists():
            asked = {one.id: one for one in read_answers(folder / ANSWERS_NAME) if one.format == format_}
            if asked:
                answers[name, format_] = asked
    return answers


def _share_cell(seeds: Sequence[dict[str, AnsweredQuestion]]) -> str:
    if not seeds:
        return ""
    values = [100 * sum(one.right["video"] for one in asked.values()) / len(asked) for asked in seeds]
    return f"{sum(values) / len(values):.1f} ({min(values):.1f} to {max(values):.1f}; {len(values)})"


def _difference_cell(ours: dict[int, Answers], baseline: dict[int, Answers], column: Column) -> str:
    """All seeds' questions together, videos as clusters; and the seeds' own differences."""
    pairs = [
        [(one.right["video"], others[name].right["video"], one.video)
         for name, one in answers[column].items() if name in others]
        for seed, answers in ours.items() if column in answers and (others := baseline[seed].get(column))
    ]  # fmt: skip
    if not any(pairs):
        return ""
    cell = difference_of(*zip(*(pair for some in pairs for pair in some)))
    by_seed = mean_interval([sum(our - their for our, their, _ in some) / len(some) for some in pairs if some])
    low, high = (f"{100 * cell[name]:+.1f}" for name in ("low", "high"))
    seeds = "one seed" if by_seed is None else f"seeds {100 * by_seed[0]:+.1f} to {100 * by_seed[1]:+.1f}"
    return f"{100 * cell['difference']:+.1f} (videos {low} to {high}; {seeds})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("plan", type=Path)
    parser.add_argument("--only", help="one variant")
    parser.add_argument("--seed", type=int, help="one of the seeds")
    parser.add_argument("--seconds", type=float, help="end after that time, whatever runs then")
    parser.add_argument("--devices", help="numbers of GPUs, such as 0,1; what there is if not given")
    parser.add_argument("--at-once", type=int, default=1, help="units on each device at the same time")
    arguments = parser.parse_args()
    try:
        plan = load_plan(arguments.plan)
        done = run_plan(
            plan,
            only=arguments.only,
            seed=arguments.seed,
            seconds=arguments.seconds,
            devices=arguments.devices.split(",") if arguments.devices else (None,),
            at_once=arguments.at_once,
        )
    except HourLlavaError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    print((plan.out / "table.md").read_text(encoding="utf-8") if done else "not done yet: start the command again")


if __name__ == "__main__":
    main()
