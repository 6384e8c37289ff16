"""Resuming: changed settings apply, changes that would make it another run are refused, and then nothing is touched."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from hourllava import locks
from hourllava.errors import CheckpointError, DataError, TrainingError
from hourllava.locks import lock_folder
from hourllava.training import checkpoints as checkpoint_files
from hourllava.training.recipe import Recipe
from hourllava.training.run import prepare, train
from training.runs import recipe_of, run, write_recipe, write_texts, write_videos

LORA = {"learning_rates": {"*": 0, "*.lora_*": 1e-2}, "lora": {"rank": 4, "alpha": 8}}


@pytest.fixture(scope="module")
def root(mixture):
    return mixture[0]


@pytest.fixture(scope="module")
def begun(root, tmp_path_factory):
    """Recipes of runs with a checkpoint at the second step: all weights, which go on to the fourth, and adapters."""
    recipes = {}
    for kind, max_steps, changes in (("full", 4, {}), ("lora", 2, LORA)):
        out = tmp_path_factory.mktemp("runs") / kind
        streams = [{"folder": str(root / name)} for name in ("texts", "videos")]
        recipe = recipe_of(root, streams, out=str(out), **changes)
        recipe["schedule"] = {"kind": "linear", "warmup": 0.5, "epochs": 4, "max_steps": max_steps}
        train(Recipe.model_validate(recipe))
        recipes[kind] = recipe
    return recipes


def resumed(begun, out: Path, *, kind="full", **changes):
    """A copy of a run after its second step, and its recipe with changes."""
    shutil.copytree(Path(begun[kind]["out"]) / "checkpoint-2", out / "checkpoint-2")
    recipe = begun[kind] | {"out": str(out)}
    for key, value in changes.items():
        recipe[key] = {**recipe.get(key, {}), **value} if isinstance(value, dict) and key != "learning_rates" else value
    return Recipe.model_validate(recipe)


def weights(out):
    return load_file(out / "final" / "model.safetensors")


def tree(folder):
    return {path: path.stat().st_mtime_ns for path in sorted(folder.rglob("*"))}


@pytest.fixture
def steps(monkeypatch):
    """Settings of the optimizer's groups in each step."""
    noted, plain = [], torch.optim.AdamW.step

    def step(self, *args, **kwargs):
        kept = ("lr", "initial_lr", "betas", "eps", "weight_decay")
        groups = [{key: group.get(key) for key in kept} for group in self.param_groups]
        if any(group["lr"] for group in groups):  # not torch's own empty step, which allocates the state
            noted.append(groups)
        return plain(self, *args, **kwargs)

    monkeypatch.setattr(torch.optim.AdamW, "step", step)
    return noted


class TestOptimizer:
    @pytest.mark.slow
    @pytest.mark.parametrize(
        "changes",
        [
            {"learning_rates": {"*": 1e-4}},
            {"learning_rates": {"*": 1e-4, "model.memaug.*": 5e-4, "model.image_newline": 2e-4}},  # other groups
            {"optimizer": {"weight_decay": 0.3, "betas": [0.5, 0.7], "epsilon": 1e-3}},
            {"schedule": {"kind": "constant"}},
            {"schedule": {"warmup": 0.0}},
        ],
    )
    def test_its_settings_are_the_recipes_from_the_first_step_on(self, begun, tmp_path, steps, changes, capsys):
        recipe = resumed(begun, tmp_path, **changes)
        train(recipe)
        share = {("linear", 0.5): [1.0, 0.5], ("constant", 0.5): [1.0, 1.0], ("linear", 0.0): [0.5, 0.25]}
        shares = share[recipe.schedule.kind, recipe.schedule.warmup]
        assert len(steps) == 2
        for groups, part in zip(steps, shares, strict=True):
            assert {group["initial_lr"] for group in groups} == set(recipe.learning_rates.values())
            for group in groups:
                assert group["lr"] == pytest.approx(part * group["initial_lr"])
                assert tuple(group["betas"]) == recipe.optimizer.betas
                assert group["eps"] == recipe.optimizer.epsilon
            assert {group["weight_decay"] for group in groups} == {0.0, recipe.optimizer.weight_decay}
        (section,) = changes
        assert f"changed since checkpoint-2: {section}." in capsys.readouterr().err
        assert any(
            not torch.equal(tensor, weights(Path(begun["full"]["out"]))[name])
            for name, tensor in weights(tmp_path).items()
        )

    def test_unchanged_it_ends_with_the_same_weights(self, begun, tmp_path, capsys):
        train(resumed(begun, tmp_path))
        for name, tensor in weights(Path(begun["full"]["out"])).items():
            assert torch.equal(weights(tmp_path)[name], tensor)
        told = [line for line in capsys.readouterr().err.splitlines() if line.startswith("changed")]
        assert len(told) == 1
        assert told[0].startswith("changed since checkpoint-2: out: ")


def test_how_often_is_logged_and_saved_is_the_recipes(begun, tmp_path):
    train(resumed(begun, tmp_path, checkpoints={"every_steps": 1, "keep": 9}, log={"every_steps": 4}))
    assert [path.name for path in checkpoint_files.checkpoints(tmp_path)] == [f"checkpoint-{k}" for k in (2, 3, 4)]
    history = json.loads((tmp_path / "checkpoint-4" / "trainer_state.json").read_text())["log_history"]
    assert [entry["step"] for entry in history if "loss" in entry] == [1, 2, 4]


def write_other_texts(root: Path, folder: Path) -> Path:
    """As `write_texts`, but with another answer of the same length in one record."""
    write_texts(folder)
    shard = next(folder.glob("*.mds"))
    content = shard.read_bytes()
    place = content.index(b'"value": "2"')
    shard.write_bytes(content[:place] + b'"value": "3"' + content[place + len(b'"value": "3"') :])
    return folder


class TestRefused:
    """Other content gives an error of one line, before anything in the folder is touched."""

    def refuse(self, recipe, message, error=TrainingError):
        before = tree(recipe.out)
        with pytest.raises(error, match=message) as caught:
            train(recipe)
        assert "\n" not in str(caught.value)
        assert tree(recipe.out) == before

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"seed": 7}, "another order of samples"),
            ({"batch": {"token_budget": 128}}, "another order of samples"),
            ({"schedule": {"epochs": 5}}, "another order of samples"),
            ({"data": {"labels": "llava"}}, 'another run: labels is "llava", not "answers"'),
            ({"data": {"questions": "segments"}}, 'another run: questions is "segments", not "conversation"'),
            ({"data": {"questions": "segments", "history": 1}}, "another run: .*history is 1, not 0"),
            ({"learning_rates": {"*": 3e-3, "model.memaug.*": 0}}, r"other parameters are trained .*model\.memaug"),
        ],
    )
    def test_a_setting(self, begun, tmp_path, changes, message):
        self.refuse(resumed(begun, tmp_path, **changes), message)

    @pytest.mark.parametrize(
        ("lora", "message"),
        [
            ({"alpha": 32}, r"lora is .*\"alpha\": 32.0.*, not .*\"alpha\": 8.0"),
            ({"rank": 8}, r"lora is .*\"rank\": 8.*, not .*\"rank\": 4"),
            ({"targets": r"model\.memaug\..*q_proj"}, "other parameters are trained"),
        ],
    )
    def test_other_adapters(self, begun, tmp_path, lora, message):
        self.refuse(resumed(begun, tmp_path, kind="lora", lora=lora), message)

    def test_other_weights_of_what_is_frozen(self, begun, tmp_path):
        other = Path(begun["full"]["out"]) / "final"
        self.refuse(resumed(begun, tmp_path, kind="lora", start={"checkpoint": str(other), "preset": None,
                    "tokenizer": None, "model": {}}), "`start` gives other weights to frozen")  # fmt: skip

    @pytest.mark.parametrize("forgetting", [{"temporal": "keyframe"}, {"spatial": "uniform"}])
    def test_another_way_to_forget(self, begun, tmp_path, forgetting):
        model = begun["full"]["start"]["model"]
        changed = model | {"forgetting": model["forgetting"] | forgetting}
        self.refuse(resumed(begun, tmp_path, start={"model": changed}), "another run: forgetting")

    def test_one_other_answer_of_the_same_length(self, root, begun, tmp_path):
        other = write_other_texts(root, tmp_path / "texts")
        streams = [{"folder": str(other)}, begun["full"]["data"]["streams"][1]]
        recipe = resumed(begun, tmp_path / "out", data={"streams": streams})
        self.refuse(recipe, "the data of stream texts have changed")

    def test_other_data_in_another_number_of_streams(self, begun, tmp_path):
        streams = begun["full"]["data"]["streams"][:1]
        self.refuse(resumed(begun, tmp_path, data={"streams": streams}), r"data\.streams has 1 streams, not 2")

    def test_another_run_is_writing_there(self, begun, tmp_path, monkeypatch):
        monkeypatch.setattr(locks, "WAIT_SECONDS", 0.0)
        recipe = resumed(begun, tmp_path)
        with lock_folder(tmp_path):
            self.refuse(recipe, "is being written by another process", DataError)

    @pytest.mark.parametrize("content", ["[]", "{}", '{"fingerprint": 1, "identity": {"streams": 3}}', "{", "\x00"])
    def test_a_record_that_is_damaged(self, begun, tmp_path, content):
        recipe = resumed(begun, tmp_path)
        (tmp_path / "checkpoint-2" / "plan.json").write_text(content)
        self.refuse(recipe, "checkpoint-2", (TrainingError, CheckpointError))

    def test_lengths_that_are_damaged(self, begun, tmp_path):
        recipe = resumed(begun, tmp_path)
        path = tmp_path / "checkpoint-2" / "lengths.npz"
        path.write_bytes(path.read_bytes()[:100])
        self.refuse(recipe, r"lengths\.npz cannot be read", CheckpointError)


def test_data_that_lie_elsewhere_are_the_same(root, begun, tmp_path):
    streams = [{"folder": str(shutil.copytree(root / name, tmp_path / name)), "name": f"my {name}"}
               for name in ("texts", "videos")]  # fmt: skip
    shutil.copytree(root / "media", tmp_path / "media")
    train(resumed(begun, tmp_path / "out", data={"streams": streams, "media": str(tmp_path / "media")}))
    for name, tensor in weights(Path(begun["full"]["out"])).items():
        assert torch.equal(weights(tmp_path / "out")[name], tensor)


def test_a_checkpoint_of_an_older_version_goes_on_and_says_what_it_cannot_compare(begun, tmp_path, capsys):
    recipe = resumed(begun, tmp_path)
    path = tmp_path / "checkpoint-2" / "plan.json"
    path.write_text(json.dumps({"fingerprint": json.loads(path.read_text())["fingerprint"]}))
    (tmp_path / "checkpoint-2" / "lengths.npz").unlink()
    train(recipe)
    assert "checkpoint-2 was written by an older version: its order" in capsys.readouterr().err
    for name, tensor in weights(Path(begun["full"]["out"])).items():
        assert torch.equal(weights(tmp_path)[name], tensor)


@pytest.mark.parametrize("where", ["beside the shards", pytest.param("measured", marks=pytest.mark.slow)])
def test_lengths_are_those_of_the_first_start(tmp_path, where):
    """A video that arrives later, or new lengths, do not change the order."""
    write_videos(tmp_path / "videos", tmp_path / "media")
    late = tmp_path / "media" / "3.safetensors"
    late.rename(tmp_path / "late")
    recipe = recipe_of(tmp_path, [{"folder": str(tmp_path / "videos")}], checkpoints={"every_steps": 1, "keep": 9},
                       schedule={"epochs": 4, "max_steps": 2})  # fmt: skip
    recipe = Recipe.model_validate(recipe)
    order = prepare(recipe).corpus.plan.fingerprint()
    train(recipe)
    shutil.rmtree(recipe.out / "final")
    shutil.rmtree(checkpoint_files.checkpoints(recipe.out)[-1])
    shutil.rmtree(recipe.out / "lengths")
    (tmp_path / "late").rename(late)
    if where == "beside the shards":
        prepared = prepare(recipe)
        np.save(tmp_path / "videos" / "lengths.npy", np.full((12, 3), 9, np.int32))
        settings = prepared.corpus.encoder.settings
        (tmp_path / "videos" / "lengths.json").write_text(json.dumps(settings))
    assert prepare(recipe).corpus.plan.fingerprint() == order
    train(recipe)
    assert not (recipe.out / "lengths").exists()


class TestFinished:
    @pytest.mark.parametrize(
        "changes",
        [
            {"log": {"every_steps": 3, "to": []}},
            {"checkpoints": {"every_steps": 1}},
            {"data": {"workers": 1, "prefetch": 5, "max_failed_share": 0.5}},
        ],
    )
    def test_settings_that_decide_no_weights_may_differ(self, begun, changes):
        recipe = begun["full"] | {key: begun["full"].get(key, {}) | value for key, value in changes.items()}
        assert train(Recipe.model_validate(recipe)) == Path(begun["full"]["out"]) / "final"

    def test_others_are_named(self, begun):
        with pytest.raises(TrainingError, match=r"was trained by another recipe.*seed: 0 -> 5.*choose another `out`"):
            train(Recipe.model_validate(begun["full"] | {"seed": 5}))

    @pytest.mark.parametrize("content", [None, b"\xff\xfe", b"[1", b"- a"])
    def test_a_recipe_that_cannot_be_read(self, begun, tmp_path, content):
        (tmp_path / "final").mkdir()
        if content is not None:
            (tmp_path / "final" / "recipe.yaml").write_bytes(content)
        with pytest.raises(TrainingError, match=r"cannot be read.*remove") as caught:
            train(Recipe.model_validate(begun["full"] | {"out": str(tmp_path)}))
        assert "\n" not in str(caught.value)


_SLOW_MEASURING = """
import sys, time
from datetime import timedelta
from accelerate.state import PartialState
from hourllava.data.batches.samples import RowEncoder
from hourllava.training import ranks, run
from hourllava.training.recipe import load_recipe

lengths = RowEncoder.lengths

def slowly(self, row):
    time.sleep(0.7)
    return lengths(self, row)

RowEncoder.lengths = slowly
ranks.PartialState = lambda **options: PartialState(timeout=timedelta(seconds=5), **options)
run.train(load_recipe(sys.argv[1]))
"""


@pytest.mark.slow
def test_measuring_may_take_longer_than_a_collective(root, tmp_path):
    program = tmp_path / "slow.py"
    program.write_text(_SLOW_MEASURING)
    recipe = recipe_of(root, [{"folder": str(root / "texts")}], out=str(tmp_path / "out"), schedule={"max_steps": 1})
    run(write_recipe(tmp_path / "recipe.yaml", recipe), processes=2, program=program)
    assert (tmp_path / "out" / "final").is_dir()
