"""benchmarks/ablations.py in miniature: trained variants, a variant that is only asked differently, parallel units."""

import json
import shutil
import threading

import pytest
import yaml
from typer.testing import CliRunner

from evaluation.conftest import BENCHMARKS
from hourllava.cli.main import app
from hourllava.errors import ConfigError, HourLlavaError
from hourllava.evaluation.scores import AnsweredQuestion
from hourllava.model.config import HourLlavaConfig, merge_settings
from hourllava.training.recipe import load_recipe
from training.runs import recipe_of, write_recipe, write_texts, write_videos


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
        "evaluations": {"world": "--videos 1 --minutes 0.1 --no-baselines --formats choice"},
        "variants": [
            {"name": "baseline"},
            {"name": "half a memory", "of": "baseline", "ask": "--memory-share 0.5"},
            {"name": "two blocks", "set": {"start.model.memaug.num_blocks": 2}},
        ],
    }
    path = root / "plan.yaml"
    path.write_text(yaml.safe_dump(plan))
    return path


@pytest.fixture
def in_process(ablations, monkeypatch):
    """Run commands in this process; returns the list of their arguments."""
    ran = []

    def invoke(arguments, seconds, device, log):
        ran.append(arguments)
        result = CliRunner().invoke(app, list(arguments))
        if result.exit_code:
            raise HourLlavaError(str(result.exception))
        return True

    monkeypatch.setattr(ablations, "hourllava", invoke)
    return ran


@pytest.mark.slow
def test_a_plan_from_nothing_to_its_table(ablations, plan_path, in_process, no_figures):
    plan = ablations.load_plan(plan_path)
    assert not ablations.run_plan(plan, seconds=-1)
    assert in_process == []
    assert ablations.run_plan(plan, only=["baseline"])
    assert [arguments[0] for arguments in in_process] == ["train", "train", "eval"]
    assert ablations.run_plan(plan)
    assert [arguments[0] for arguments in in_process[3:]] == ["eval", "train", "train", "eval"]
    blocks = {
        name: json.loads((plan.out / f"{name}-0" / "stage-1" / "final" / "config.json").read_text())["memaug"][
            "num_blocks"
        ]
        for name in ("baseline", "two-blocks")
    }
    assert blocks == {"baseline": 1, "two-blocks": 2}
    scores = json.loads((plan.out / "half-a-memory-0" / "eval-world" / "scores.json").read_text())
    assert scores["settings"]["memory_share"] == 0.5
    table = (plan.out / "table.md").read_text()
    names = [line.split(" |")[0].removeprefix("| ") for line in table.splitlines() if line.startswith("| ")]
    trained = ["baseline", "half a memory", "two blocks"]
    assert names == ["variant", "---", *trained, "variant", "---", *trained[1:]]
    percent = 100 * scores["all"]["all"]["choice"]["video"]["accuracy"]
    assert f"| half a memory | {percent:.1f} ({percent:.1f} to {percent:.1f}; 1) |" in table
    assert table.count("; one seed) |") == 2
    assert ablations.run_plan(plan)
    assert len(in_process) == 7  # all is done

    # Elsewhere, without the models, results.json says so too, and the table is the same.
    found = json.loads((plan.out / "results.json").read_text())
    assert sorted(found) == ["baseline-0", "half-a-memory-0", "two-blocks-0"]
    assert all([*unit["replies"]] == ["world"] for unit in found.values())
    shutil.copytree(plan.out, plan.out.with_name("carried"), ignore=lambda folder, names: set(names) - {"results.json"})
    elsewhere = plan.model_copy(update={"out": plan.out.with_name("elsewhere")})
    assert ablations.run_plan(elsewhere, results=plan.out.with_name("carried"))
    assert len(in_process) == 7
    assert not elsewhere.out.exists()
    assert (plan.out.with_name("carried") / "table.md").read_text() == table


def write_answers(folder, *rights):
    """What a finished evaluation leaves: answers about a card at 3-4 s, which the evidence shows if they are right."""
    folder.mkdir(parents=True)
    answers = [
        AnsweredQuestion(
            id=f"q{number}", video="v", duration_seconds=60, task="Object Attribute", topic="object", form="short",
            format="choice", template="letter_colour", question="?", options=("a", "b"), truth="a",
            answers={"video": "a"}, right={"video": right}, moments=((3.0, 4.0),),
            evidence=((3.0, 4.0) if right else (8.0, 9.0),),
        )
        for number, right in enumerate(rights)
    ]  # fmt: skip
    (folder / "answers.jsonl").write_text("".join(one.model_dump_json() + "\n" for one in answers))
    (folder / "scores.json").write_text("{}")


def test_results_go_on_where_the_models_are_gone(ablations, tmp_path, monkeypatch):
    settings = {"out": tmp_path / "here", "seeds": [0], "recipes": ["r.yaml"], "evaluations": {"e": "--videos 1"}}
    variants = [{"name": "a"}, {"name": "nano", "model": "nano"}, {"name": "b"}]
    plan = ablations.Plan.model_validate(settings | {"variants": variants})
    ran = []

    def run(arguments, seconds, device, log):
        ran.append((arguments[0], log.parent.name))
        if arguments[0] == "eval":
            assert (arguments[arguments.index("--model") + 1] == "nano") == (log.parent.name == "nano-0")
            write_answers(log.parent / "eval-e", True, log.parent.name == "a-0")
        return True

    monkeypatch.setattr(ablations, "hourllava", run)
    assert ablations.run_plan(plan, only=["a", "nano"], results=tmp_path / "found")
    assert ran == [("train", "a-0"), ("eval", "a-0"), ("eval", "nano-0")]
    table = (tmp_path / "found" / "table.md").read_text()
    assert "| a | 100.0 (100.0 to 100.0; 1) |" in table
    assert "| nano | 50.0 (50.0 to 50.0; 1) |" in table
    replies = json.loads((tmp_path / "found" / "results.json").read_text())["nano-0"]["replies"]["e"]
    assert [(one["right"], one["shown"]) for one in replies] == [(True, True), (False, False)]

    shutil.rmtree(tmp_path / "here")
    ran.clear()
    assert ablations.run_plan(plan, results=tmp_path / "found")
    assert ran == [("train", "b-0"), ("eval", "b-0")]
    assert "| a | 100.0" in (tmp_path / "found" / "table.md").read_text()
    (tmp_path / "found" / "results.json").write_text("[]")
    with pytest.raises(ConfigError, match=r"results\.json cannot be read"):
        ablations.run_plan(plan, results=tmp_path / "found")
    with pytest.raises(ConfigError, match="no variant c"):
        ablations.run_plan(plan, only=["c"])


def test_a_plan_is_changed_on_the_command_line(ablations, plan_path, tmp_path):
    plan = ablations.load_plan(plan_path, out=tmp_path, settings=["schedule.max_steps=9", "log.to=[]"])
    train, *_ = ablations.steps_of(plan, plan.variants[0], 0)
    assert "schedule.max_steps=9" in train.command
    assert "log.to=[]" in train.command
    assert train.result.is_relative_to(tmp_path)
    with pytest.raises(ConfigError, match="--set seed needs a value"):
        ablations.load_plan(plan_path, settings=["seed"])


@pytest.mark.parametrize("recall", ["kept", "question"])
def test_the_shipped_plans_are_plans_whatever_nano_is(ablations, recall):
    nano = HourLlavaConfig.preset("hourllava-nano", memaug={"recall": recall}).to_dict()
    for path in sorted(BENCHMARKS.glob("nano-*.yaml")):
        plan = ablations.load_plan(path)
        for variant in plan.variants:
            changes = plan.common | variant.set
            for recipe in plan.recipes if variant.is_trained else ():
                loaded = load_recipe(recipe, [f"{name}={json.dumps(value)}" for name, value in changes.items()])
                config = HourLlavaConfig(**merge_settings(nano, loaded.start.model))
                assert config.memaug.recall == ("question" if variant.name.startswith("recall") else "kept")


def test_a_model_without_memaug_skips_the_stage_that_trains_nothing_else(ablations, plan_path):
    plan = ablations.load_plan(plan_path)
    without = ablations.Variant(name="none", set={"start.model.memaug.num_blocks": 0})
    plan = plan.model_copy(update={"variants": [without]})
    train, evaluation = ablations.steps_of(plan, without, 0)
    assert train.command[1].endswith("b.yaml")
    assert 'learning_rates={"*": 0.003}' in train.command
    assert str(train.result) in evaluation.command


def test_a_command_that_fails_says_where_to_look(ablations, tmp_path, monkeypatch):
    python = tmp_path / "python"
    fails = 'echo loading; echo "error: no $4 on $CUDA_VISIBLE_DEVICES" >&2; exit 2'
    python.write_text(f'#!/bin/sh\n[ "$3" = train ] || exec sleep 60\n{fails}\n')
    python.chmod(0o755)
    monkeypatch.setattr(ablations.sys, "executable", str(python))
    log = tmp_path / "unit" / "log.txt"
    with pytest.raises(
        HourLlavaError, match=r"`hourllava train a\.yaml` .*exit code 2.*log\.txt: error: no a\.yaml on 3"
    ):
        ablations.hourllava(["train", "a.yaml"], None, "3", log)
    assert log.read_text().startswith("loading\n")
    assert not ablations.hourllava(["version"], 0.01, None, log)


def test_units_at_once_share_the_devices_and_wait_for_the_model_they_ask(ablations, tmp_path, monkeypatch):
    variants = [{"name": "a"}, {"name": "ask a", "of": "a", "ask": "--memory-share 0"}, {"name": "b"}, {"name": "bad"}]
    settings = {"out": tmp_path, "seeds": [0, 1], "recipes": ["r.yaml"], "evaluations": {"e": "--videos 1"}}
    plan = ablations.Plan.model_validate(settings | {"variants": variants})
    together = threading.Barrier(2, timeout=20)
    ran, devices = [], set()

    def run(arguments, seconds, device, log):
        variant = log.parent.name
        if "ask" in variant:
            assert f"trained {variant.replace('ask-', '')}" in ran
        if variant.startswith("bad"):
            raise HourLlavaError(f"{variant} failed")
        if arguments[0] == "train" and variant in ("a-0", "b-0"):
            together.wait()
        ran.append(f"{arguments[0]}ed {variant}")
        devices.add(device)
        return True

    monkeypatch.setattr(ablations, "hourllava", run)
    with pytest.raises(HourLlavaError, match="bad-0 failed; bad-1 failed"):
        ablations.run_plan(plan, devices=("0", "1"), at_once=2)
    assert sorted(ran) == sorted(
        [f"trained {name}-{seed}" for name in "ab" for seed in (0, 1)]
        + [f"evaled {name}-{seed}" for name in ("a", "b", "ask-a") for seed in (0, 1)]
    )
    assert devices == {"0", "1"}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"variants": [{"name": "a", "of": "b"}]}, "must be a trained variant"),
        ({"variants": [{"name": "a", "model": "nano", "set": {"seed": 1}}]}, "`of` and `set` must be empty"),
        ({"variants": [{"name": "a b"}, {"name": "a-b"}]}, "two variants have the same name"),
        ({"budget": 3}, "budget"),
    ],
)
def test_plans_that_make_no_sense(ablations, plan_path, tmp_path, change, words):
    path = tmp_path / "plan.yaml"
    path.write_text(yaml.safe_dump(yaml.safe_load(plan_path.read_text()) | change))
    with pytest.raises(ConfigError, match=words):
        ablations.load_plan(path)
