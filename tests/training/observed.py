"""Trains a recipe as `hourllava train` does. Each process writes notes on its parameters to OUT/process-RANK.json."""

import atexit
import functools
import json
import os
import sys

import torch
from torch._dynamo.utils import counters
from torch.distributed.tensor import DTensor

from hourllava.training import run as training_run
from hourllava.training.compilation import compile_layers
from hourllava.training.corpus import MODALITIES, MODALITIES_KEY
from hourllava.training.recipe import load_recipe
from hourllava.training.trainer import HourLlavaTrainer


class Observed(HourLlavaTrainer):
    """Notes every micro-batch, and all parameters before the optimizer's last step."""

    def __init__(self, model, *args):
        super().__init__(model, *args)
        self.notes = {"modalities": [], "dtypes": []}
        # A whole layer is an FSDP unit; a hook inside it would be compiled.
        model.get_submodule("model.language_model.layers.1").register_forward_hook(self.note_dtypes)

    def note_dtypes(self, module, args, output):
        if module.training:
            self.notes["dtypes"].append([str(module.input_layernorm.weight.dtype), str(output.dtype)])

    def compute_loss(self, model, inputs, *args, **kwargs):
        self.notes["modalities"].append(sorted({MODALITIES[k] for k in inputs[MODALITIES_KEY].tolist()}))
        return super().compute_loss(model, inputs, *args, **kwargs)

    def _get_grad_norm(self, model, grad_norm=None):
        self.notes["kind"] = str(self.accelerator.distributed_type)
        self.notes["parameters"] = {name: describe(p) for name, p in model.named_parameters()}
        self.notes["num_graphs"] = counters["stats"]["unique_graphs"]
        (self.recipe.out / f"process-{self.args.process_index}.json").write_text(json.dumps(self.notes))
        return super()._get_grad_norm(model, grad_norm)


def describe(parameter):
    local = parameter.to_local() if isinstance(parameter, DTensor) else parameter
    gradient = parameter.grad
    return {
        "sharded": isinstance(parameter, DTensor) and [placement.is_shard() for placement in parameter.placements],
        "elements": parameter.numel(),
        "local_elements": local.numel(),
        "dtype": str(local.dtype),
        "gradient": None if gradient is None else [isinstance(gradient, DTensor), str(gradient.dtype)],
    }


def end_well():
    """Runs last. An exception here would not change the exit code."""
    if torch.distributed.is_initialized():
        print("the process group is still there", file=sys.stderr, flush=True)
        os._exit(1)


if __name__ == "__main__":
    atexit.register(end_well)
    training_run.HourLlavaTrainer = Observed
    # Traces and differentiates as inductor does, without a C++ compiler.
    training_run.compile_layers = functools.partial(compile_layers, backend="aot_eager")
    training_run.train(load_recipe(sys.argv[1], sys.argv[2:]))
