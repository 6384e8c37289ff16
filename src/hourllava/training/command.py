"""What `hourllava train` does around a run: it starts processes, plans a dry run, and prints the result."""

import os
import shlex
import subprocess
import sys
from collections.abc import Iterator, Sequence

from hourllava.errors import TrainingError
from hourllava.training.checkpoints import how_to_go_on
from hourllava.training.estimate import describe_run
from hourllava.training.recipe import Recipe, load_recipe
from hourllava.training.run import prepare, train


def run_train(path: str, overrides: Sequence[str], *, dry_run: bool, gpus: int | None) -> Iterator[str]:
    """Train, or describe the run. Yields lines for the user, from the first process only.

    Args:
        path: the recipe.
        overrides: changed settings, `key=value`.
        dry_run: describe the run; load no weights and train nothing.
        gpus: number of processes to start, or to plan for in a dry run.

    Raises:
        as `load_recipe` and `train`; TrainingError: a started process failed.
    """
    recipe = load_recipe(path, overrides)
    if dry_run:
        yield from describe_run(prepare(recipe, meta=True), gpus or 1)
        return
    if gpus is not None:
        _run_torchrun(path, overrides, gpus, recipe)
        return
    final = train(recipe)
    if os.environ.get("RANK", "0") == "0":
        yield str(final)
        yield f'ask it: hourllava ask VIDEO "QUESTION" --model {shlex.quote(str(final))}'


def _run_torchrun(path: str, overrides: Sequence[str], gpus: int, recipe: Recipe) -> None:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(gpus)]
    command = ["-m", "hourllava", "train", path, *(part for item in overrides for part in ("--set", item))]
    if subprocess.run([*launcher, *command], check=False).returncode:
        raise TrainingError(f"a process of the run failed (its messages are above); {how_to_go_on(recipe.out)}")
