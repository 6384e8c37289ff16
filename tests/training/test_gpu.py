"""Training on one GPU: FSDP2 in bf16, stopped and resumed."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file

from hourllava.training.checkpoints import checkpoints
from training.runs import recipe_of, run, write_mixture, write_recipe

pytestmark = pytest.mark.gpu


def test_one_gpu_trains_in_bf16_and_goes_on_where_it_was_stopped(tmp_path):
    streams = write_mixture(tmp_path)
    path = write_recipe(tmp_path / "recipe.yaml", recipe_of(tmp_path, streams, precision="bf16"))
    run(path)
    out = tmp_path / "run"
    history = json.loads((checkpoints(out)[-1] / "trainer_state.json").read_text())["log_history"]
    assert history[-1]["loss"] < history[0]["loss"] - 0.3
    whole = load_file(out / "final" / "model.safetensors")
    shutil.rmtree(out / "final")
    shutil.rmtree(checkpoints(out)[-1])
    run(path)
    for name, tensor in load_file(out / "final" / "model.safetensors").items():
        torch.testing.assert_close(tensor, whole[name], atol=5e-3, rtol=5e-2)
