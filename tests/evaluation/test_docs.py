"""docs/evaluation.md: its commands run, and its plans are valid."""

import re
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from hourllava.cli.main import app
from hourllava.training.recipe import load_recipe

ROOT = Path(__file__).parents[2]
DOC = (ROOT / "docs" / "evaluation.md").read_text(encoding="utf-8")


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```", DOC, flags=re.DOTALL | re.MULTILINE)


@pytest.mark.slow
def test_the_commands_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    commands = [line for block in blocks("sh") for line in block.splitlines()]
    assert any(command.startswith("hourllava eval score") for command in commands)
    for command in commands:
        more = ["--device", "cpu"] if command.startswith("hourllava eval world") else []
        result = CliRunner().invoke(app, [*shlex.split(command)[1:], *more])
        assert result.exit_code == 0, (command, result.output, result.exception)
    promised = re.findall(r"^OUT/([\w.]+)", DOC, flags=re.MULTILINE)
    assert {"answers.jsonl", "scores.json", "table.md"} <= set(promised)
    for name in promised:
        assert (tmp_path / "out" / "eval" / name).exists(), name


def test_plans_are_plans(ablations, tmp_path):
    (tmp_path / "plan.yaml").write_text(blocks("yaml")[0])
    whole = ROOT / "benchmarks" / "nano-ablations.yaml"
    for path, num_trained, num_evaluated in ((tmp_path / "plan.yaml", 2, 3), (whole, 15, 21 * 2)):
        plan = ablations.load_plan(path)
        commands = [step.command for variant in plan.variants for step in ablations.steps_of(plan, variant, 0)]
        kinds = [command[0] for command in commands]
        assert (kinds.count("train"), kinds.count("eval")) == (num_trained, num_evaluated)
        for kind, recipe, *options in commands:
            if kind == "train":
                load_recipe(recipe, options[1::2])
