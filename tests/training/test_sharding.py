"""FSDP2 on two CPU processes: parameters are sharded, and the run equals that of one process."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from hourllava.training import checkpoints as checkpoint_files
from hourllava.training.recipe import Recipe
from hourllava.training.run import train
from hourllava.training.start import load_start
from training import observed
from training.runs import DEEP, recipe_of, run, write_recipe

TOLERANCE = {"atol": 2e-4, "rtol": 1e-3}


@pytest.fixture(scope="module")
def recipe(mixture):
    """Several micro-batches of about two samples in a step, so that two processes do different things."""
    root, streams = mixture
    held_out = {"streams": streams[2:], "every_steps": 3, "answers": 1, "max_new_tokens": 2}
    batch = {
        "token_budget": 120,
        "tokens": 720,
        "multiple_of": 2,
    }  # some micro-batches of images run beside others without
    return recipe_of(root, streams, start=DEEP, batch=batch, validation=held_out, activations="selective")


def alone_and_sharded(recipe, folder: Path, **changes):
    """Folders of the same run on one process and on two."""
    alone, sharded = folder / "alone", folder / "sharded"
    train(Recipe.model_validate(recipe | changes | {"out": str(alone)}))
    path = write_recipe(folder / "recipe.yaml", recipe | changes | {"out": str(sharded)})
    run(path, processes=2, program=Path(observed.__file__))
    return alone, sharded


@pytest.fixture(scope="module")
def folders(recipe, tmp_path_factory):
    return alone_and_sharded(recipe, tmp_path_factory.mktemp("runs"))


def weights(out):
    return load_file(out / "final" / "model.safetensors")


def notes_of(out):
    """The notes of both processes."""
    return [json.loads((out / f"process-{rank}.json").read_text()) for rank in range(2)]


def history(out, key):
    newest = checkpoint_files.checkpoints(out)[-1]
    log = json.loads((newest / "trainer_state.json").read_text())["log_history"]
    return [entry[key] for entry in log if key in entry]


@pytest.mark.slow
class TestSharding:
    def test_every_parameter_and_gradient_lies_on_both_processes_in_parts(self, folders):
        first, second = notes_of(folders[1])
        assert first["kind"] == second["kind"] == "DistributedType.FSDP"
        for name, part in first["parameters"].items():
            other = second["parameters"][name]
            assert part["sharded"] == other["sharded"] == [True], name
            assert part["local_elements"] + other["local_elements"] == part["elements"], name
            assert part["local_elements"] < part["elements"], name
            assert part["dtype"] == "torch.float32", name
            if "vision_tower.post_layernorm" not in name:  # which the model leaves out
                assert part["gradient"] == other["gradient"] == [True, "torch.float32"], name

    def test_a_process_that_does_not_need_the_vision_tower_keeps_no_other_waiting(self, folders):
        # Pictures go through the tower, videos come as features.
        pairs = list(zip(*(notes["modalities"] for notes in notes_of(folders[1])), strict=True))
        assert any(("image" in first) != ("image" in second) for first, second in pairs)
        assert len(pairs) > 6  # steps: gradients of several micro-batches are added up

    def test_weights_losses_and_gradients_are_those_of_one_process(self, folders):
        alone, sharded = folders
        for name, tensor in weights(alone).items():
            torch.testing.assert_close(weights(sharded)[name], tensor, **TOLERANCE)
        for key, count in {"loss": 6, "grad_norm": 6, "validation_loss": 2}.items():
            assert len(history(alone, key)) == count
            assert history(sharded, key) == pytest.approx(history(alone, key), rel=1e-4)
        assert min(history(alone, "grad_norm")) > 1  # so each was clipped

    def test_one_process_goes_on_where_two_stopped(self, recipe, folders, tmp_path):
        alone, sharded = folders
        shutil.copytree(sharded / "checkpoint-4", tmp_path / "checkpoint-4")
        train(Recipe.model_validate(recipe | {"out": str(tmp_path)}))
        for name, tensor in weights(alone).items():
            torch.testing.assert_close(weights(tmp_path)[name], tensor, **TOLERANCE)

    def test_two_processes_go_on_where_one_stopped(self, recipe, folders, tmp_path):
        alone, _ = folders
        shutil.copytree(alone / "checkpoint-4", tmp_path / "run" / "checkpoint-4")
        run(write_recipe(tmp_path / "recipe.yaml", recipe | {"out": str(tmp_path / "run")}), processes=2)
        for name, tensor in weights(alone).items():
            torch.testing.assert_close(weights(tmp_path / "run")[name], tensor, **TOLERANCE)


@pytest.mark.slow
def test_bf16_computes_with_copies_of_fp32_parameters(recipe, folders, tmp_path):
    out = tmp_path / "run"
    path = write_recipe(tmp_path / "recipe.yaml", recipe | {"out": str(out), "precision": "bf16"})
    run(path, processes=2, program=Path(observed.__file__))
    for notes in notes_of(out):
        assert set(map(tuple, notes["dtypes"])) == {("torch.bfloat16", "torch.bfloat16")}
        parts = notes["parameters"].values()
        assert {part["dtype"] for part in parts} == {"torch.float32"}
        assert {tuple(part["gradient"]) for part in parts if part["gradient"]} == {(True, "torch.float32")}
    assert history(out, "loss") == pytest.approx(history(folders[0], "loss"), rel=5e-3)
    assert history(out, "grad_norm") == pytest.approx(history(folders[0], "grad_norm"), rel=5e-2)


@pytest.mark.slow
def test_adapters_alone_are_trained(recipe, tmp_path):
    rates = {"*": 0, "*.lora_*": 1e-2}
    alone, sharded = alone_and_sharded(recipe, tmp_path, learning_rates=rates, lora={"rank": 4})
    for notes in notes_of(sharded):
        for name, part in notes["parameters"].items():
            assert part["sharded"] == [True], name
            assert (part["gradient"] is not None) == (".lora_" in name), name
    start = Recipe.model_validate(recipe)
    torch.manual_seed(start.seed)
    before, after = load_start(start.start)[0].state_dict(), weights(sharded)
    changed = {name for name in after if not torch.equal(before[name], after[name])}
    assert changed
    assert all(name.startswith("model.language_model.layers.") for name in changed)
    for name, tensor in weights(alone).items():
        torch.testing.assert_close(after[name], tensor, atol=1e-5, rtol=1e-4)


@pytest.mark.slow
def test_compiled_layers_learn_the_same(recipe, folders, tmp_path):
    out = tmp_path / "run"
    path = write_recipe(tmp_path / "recipe.yaml", recipe | {"out": str(out), "compile": True, "activations": "none"})
    assert "recompile_limit" not in run(path, processes=2, program=Path(observed.__file__))
    for notes in notes_of(out):
        assert all(part["sharded"] == [True] for part in notes["parameters"].values())
        assert notes["num_graphs"] > 0
    for name, tensor in weights(folders[0]).items():
        torch.testing.assert_close(weights(out)[name], tensor, **TOLERANCE)
