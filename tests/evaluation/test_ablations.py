"""benchmarks/ablations.py in miniature: two trained variants, one that is only asked differently; killed, gone on."""

import importlib.util
import json
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from hourllava.cli.main import app
from hourllava.errors import ConfigError, HourLlavaError
from training.runs import recipe_of, write_recipe, write_texts, write_videos

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "ablations.py"


@pytest.fixture(scope="module")
def ablations():
    spec = importlib.util.spec_from_file_location("ablations", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def plan_path(tmp_path_factory):
    root = tmp_path_factory.mktemp("ablations")
    write_texts(root / "texts")
    write_videos(root / "videos", root / "media")
    first = recipe_of(root, [{"folder": str(root / "videos")}], learning_rates={"*": 0, "model.memaug.*": 3e-3})
    second = recipe_of(root, [{"folder": str(root / name)} for name in ("texts", "videos")])
    second["start"] = {"checkpoint": "set by the plan"}
    second["learning_rates"] = {"*": 3e-3, "model.memaug.*": 1e-2}
    recipes = [write_recipe(root / f"{name}.yaml", recipe) for name, recipe in (("a", first), ("b", second))]
    plan = {
        "out": str(root / "runs"),
        "seeds": [0],
        "recipes": [str(recipe) for recipe in recipes],
        "common": {"schedule.max_steps": 2},
        "evaluations": {"world": "--videos 1 --minutes 0.2 --no-baselines --formats choice"},
        "variants": [
            {"name": "baseline"},
            {"name": "half a memory", "of": "baseline", "ask": "--memory-share 0.5"},
            {"name": "one block", "set": {"start.model.memaug.num_blocks": 1}},
        ],
    }
    path = root / "plan.yaml"
    path.write_text(yaml.safe_dump(plan))
    return path


@pytest.fixture
def in_process(ablations, monkeypatch):
    """Commands run here, without a process each; their names are noted."""
    ran = []

    def invoke(arguments, seconds):
        ran.append(arguments)
        result = CliRunner().invoke(app, list(arguments))
        if result.exit_code:
            raise HourLlavaError(str(result.exception))
        return True

    monkeypatch.setattr(ablations, "hourllava", invoke)
    return ran


def test_a_plan_from_nothing_to_its_table(ablations, plan_path, in_process):
    plan = ablations.load_plan(plan_path)
    assert not ablations.run_plan(plan, seconds=-1)
    assert in_process == []
    assert ablations.run_plan(plan, only="baseline")
    assert [arguments[0] for arguments in in_process] == ["train", "train", "eval"]
    assert ablations.run_plan(plan)
    assert [arguments[0] for arguments in in_process[3:]] == ["eval", "train", "train", "eval"]
    blocks = {
        name: json.loads((plan.out / f"{name}-0" / "stage-1" / "final" / "config.json").read_text())["memaug"][
            "num_blocks"
        ]
        for name in ("baseline", "one-block")
    }
    assert blocks == {"baseline": 2, "one-block": 1}
    scores = json.loads((plan.out / "half-a-memory-0" / "eval-world" / "scores.json").read_text())
    assert scores["settings"]["memory_share"] == 0.5
    table = (plan.out / "table.md").read_text()
    assert [row.split(" |")[0] for row in table.splitlines()[4:]] == ["| baseline", "| half a memory", "| one block"]
    percent = 100 * scores["all"]["all"]["choice"]["video"]["accuracy"]
    assert f"| half a memory | {percent:.1f} ({percent:.1f}-{percent:.1f}; 1) |" in table
    assert ablations.run_plan(plan)
    assert len(in_process) == 7  # all is done


def test_a_model_without_memaug_skips_the_stage_that_trains_nothing_else(ablations, plan_path):
    plan = ablations.load_plan(plan_path)
    without = ablations.Variant(name="none", set={"start.model.memaug.num_blocks": 0})
    plan = plan.model_copy(update={"variants": [without]})
    train, evaluation = ablations.steps_of(plan, without, 0)
    assert train.command[1].endswith("b.yaml")
    assert 'learning_rates={"*": 0.003}' in train.command
    assert str(train.result) in evaluation.command


def test_a_failed_command_ends_the_plan(ablations):
    with pytest.raises(HourLlavaError, match="exit code 2"):
        ablations.hourllava(["train", "there-is-no.yaml"], None)
    assert not ablations.hourllava(["version"], 0.01)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"variants": [{"name": "a", "of": "b"}]}, "must be a trained variant"),
        ({"variants": [{"name": "a b"}, {"name": "a-b"}]}, "two variants have the same name"),
        ({"budget": 3}, "budget"),
    ],
)
def test_plans_that_make_no_sense(ablations, plan_path, tmp_path, change, words):
    path = tmp_path / "plan.yaml"
    path.write_text(yaml.safe_dump(yaml.safe_load(plan_path.read_text()) | change))
    with pytest.raises(ConfigError, match=words):
        ablations.load_plan(path)
