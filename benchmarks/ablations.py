"""Ablations: train variants of a recipe with one budget and the same seeds, evaluate them alike, print one table.

    python benchmarks/ablations.py plan.yaml                      # continues an interrupted run
    python benchmarks/ablations.py plan.yaml --seconds 500        # stops everything after 500 s
    python benchmarks/ablations.py plan.yaml --only baseline --seed 0
    python benchmarks/ablations.py plan.yaml --devices 0,1,2,3 --at-once 3
    python benchmarks/ablations.py plan.yaml --out runs/longer --set schedule.max_steps=900 --results found

A plan:

    out: runs/ablations
    seeds: [0, 1]
    recipes: [recipes/hourllava-nano/s2.yaml, recipes/hourllava-nano/s3.yaml]   # stages; each starts from the last
    common: {schedule.max_steps: 2000}                     # settings of all stages and variants
    evaluations:                                           # name: options of `hourllava eval world`
      world: --videos 100 --minutes 3-60 --no-baselines
      needles-60: --needles --minutes 60 --videos 100 --formats choice
    variants:
      - {name: baseline}
      - {name: no MemAug, set: {start.model.memaug.num_blocks: 0}}
      - {name: memory 25 %, of: baseline, ask: --memory-share 0.25}             # no training
      - {name: nano as it is, model: nano}                                      # no training

A unit is one variant with one seed. OUT/<variant>-<seed>/stage-K holds its trainings, eval-<name> its evaluations, and
log.txt their output. Steps continue where they were killed and finished units are skipped, so a plan can run in slices
of any length, and its units on several machines. OUT/table.md is rewritten after every step. It gives each variant's
mean, lowest and highest accuracy over the seeds, and the difference from the plan's first variant, question by
question, with one interval over videos and one over seeds. Beside it lies results.json, from which a plan goes on
without the models (`ablations_results.py`); `--results` puts both elsewhere.

Each training and evaluation is a process, `python -m hourllava`. The steps of a small model are bound by kernel
launches, so several units share a GPU well if their memory fits. A failed unit does not stop the others.
"""

import argparse
import itertools
import os
import re
import shlex
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ablations_plan import Plan, Variant, load_plan, steps_of, unit_folder
from ablations_results import Results
from ablations_table import TABLE_NAME, write_table
from hourllava.errors import ConfigError, HourLlavaError, PartlyDoneError

LOG_NAME = "log.txt"
SECONDS_BETWEEN_LINES = 30


def hourllava(arguments: Sequence[str], seconds: float | None, device: str | None, log: Path) -> bool:
    """Run a command of the library; returns False if it took longer than `seconds` and was killed.

    Args:
        arguments: the arguments of `hourllava`.
        seconds: time limit; None for none.
        device: number of the only visible GPU; None for all GPUs.
        log: file to which the output is appended.

    Raises:
        HourLlavaError: the command failed.
    """
    command = [sys.executable, "-m", "hourllava", *arguments]
    environment = os.environ if device is None else os.environ | {"CUDA_VISIBLE_DEVICES": device}
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        try:
            run = subprocess.run(command, check=False, timeout=seconds, env=environment, stdout=output, stderr=output)
        except subprocess.TimeoutExpired:
            return False
    if run.returncode:
        raise HourLlavaError(
            f"`hourllava {shlex.join(arguments)}` ended with exit code {run.returncode}, see {log}: {last_line(log)}"
        )
    return True


def last_line(log: Path) -> str:
    """The last line of a log, or the last state of its progress bar."""
    lines = re.split(r"[\r\n]+", log.read_text(encoding="utf-8", errors="replace").rstrip()) if log.exists() else [""]
    return lines[-1]


class Run:
    """Does the missing steps of units, several units at a time.

    Args:
        plan: the plan of the units.
        units: variants with seeds; a trained variant comes before those that ask its model.
        seconds: time after which all running commands are killed; None for no limit.
        results: takes what is found.
    """

    def __init__(
        self, plan: Plan, units: Sequence[tuple[Variant, int]], seconds: float | None, results: Results
    ) -> None:
        self.plan, self.seconds, self.results = plan, seconds, results
        self.failures: list[str] = []
        self._waiting = iter(units)
        self._total, self._begun = len(units), itertools.count(1)
        self._started = time.monotonic()
        self._lock = threading.Lock()
        self._logs: dict[str, Path] = {}  # of the running units
        self._trained = {(v.name, seed): threading.Event() for v, seed in units if v.is_trained}

    def lane(self, device: str | None) -> bool:
        """Do units one after the other until none is left; returns False if the time ran out."""
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
                if variant.is_trained:
                    self._trained[variant.name, seed].set()

    def _unit(self, variant: Variant, seed: int, device: str | None) -> bool:
        asked = self._trained.get((variant.of or "", seed))
        if asked is not None:
            asked.wait()
        name = f"[{next(self._begun)}/{self._total}] {variant.name}, seed {seed}"
        self._logs[name] = log = unit_folder(self.plan, variant, seed) / LOG_NAME
        try:
            for step in steps_of(self.plan, variant, seed):
                if step.command[0] == "eval" and variant.is_trained:
                    self._trained[variant.name, seed].set()
                if step.result.exists():
                    continue
                left = None if self.seconds is None else self.seconds - (time.monotonic() - self._started)
                if left is not None and left <= 0:
                    return False
                print(f"{name}: {step.command[0]}", file=sys.stderr)
                if not hourllava(step.command, left, device, log):
                    return False
                self.tell_results()
        finally:
            del self._logs[name]
        return True

    def tell_results(self) -> None:
        """Write results.json and the table."""
        with self._lock:
            self.results.collect()
            write_table(self.results)

    def tell(self, finished: threading.Event) -> None:
        """Print the state of the running units every 30 seconds."""
        while not finished.wait(SECONDS_BETWEEN_LINES):
            for name, log in list(self._logs.items()):
                print(f"{name}: {last_line(log)}", file=sys.stderr)


def run_plan(
    plan: Plan,
    *,
    only: Sequence[str] = (),
    seed: int | None = None,
    seconds: float | None = None,
    devices: Sequence[str | None] = (None,),
    at_once: int = 1,
    results: Path | None = None,
) -> bool:
    """Do the missing steps of a plan, seed by seed; returns False if the time ran out.

    Args:
        plan: the plan.
        only, seed: restrict the run to some variants, or one seed.
        seconds: time after which all running commands are killed; None for no limit.
        devices: numbers of GPUs; None for all visible GPUs.
        at_once: units at a time on each device.
        results: folder of results.json and table.md; the plan's `out` if None.

    Raises:
        ConfigError: there is no such variant.
        PartlyDoneError: some units failed; all others are done.
        HourLlavaError: all units failed.
    """
    if unknown := sorted(set(only) - {variant.name for variant in plan.variants}):
        raise ConfigError(f"the plan has no variant {', '.join(unknown)}")
    found = Results(plan, results or plan.out)
    units = [
        (variant, one)
        for one in plan.seeds
        for variant in plan.variants
        if (not only or variant.name in only) and seed in (None, one) and not found.is_whole(variant, one)
    ]
    run = Run(plan, units, seconds, found)
    finished = threading.Event()
    teller = threading.Thread(target=run.tell, args=(finished,), daemon=True)
    teller.start()
    with ThreadPoolExecutor(len(devices) * at_once) as lanes:
        in_time = list(lanes.map(run.lane, [device for _ in range(at_once) for device in devices]))
    finished.set()
    run.tell_results()
    if run.failures:
        raise (PartlyDoneError if len(run.failures) < len(units) else HourLlavaError)("; ".join(run.failures))
    return all(in_time)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("plan", type=Path)
    parser.add_argument("--only", action="append", default=[], help="a variant to run; can be given several times")
    parser.add_argument("--seed", type=int, help="the only seed to run")
    parser.add_argument("--seconds", type=float, help="stop everything after this time")
    parser.add_argument("--devices", help="numbers of GPUs, such as 0,1; all visible ones by default")
    parser.add_argument("--at-once", type=int, default=1, help="units at a time on each device")
    parser.add_argument("--out", type=Path, help="in place of the plan's")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="a setting of all recipes")
    parser.add_argument("--results", type=Path, help="folder of results.json and table.md; OUT by default")
    arguments = parser.parse_args()
    try:
        plan = load_plan(arguments.plan, out=arguments.out, settings=arguments.set)
        done = run_plan(
            plan,
            only=arguments.only,
            seed=arguments.seed,
            seconds=arguments.seconds,
            devices=arguments.devices.split(",") if arguments.devices else (None,),
            at_once=arguments.at_once,
            results=arguments.results,
        )
    except HourLlavaError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    print(
        ((arguments.results or plan.out) / TABLE_NAME).read_text(encoding="utf-8")
        if done
        else "The plan is not finished: run the command again."
    )


if __name__ == "__main__":
    main()
