"""Trains a recipe as `hourllava train` does. The first process writes the gradients of the first step to OUT."""

import sys

from safetensors.torch import save_file

from hourllava.training import run as training_run
from hourllava.training.recipe import load_recipe
from hourllava.training.trainer import HourLlavaTrainer


class Noted(HourLlavaTrainer):
    """Writes OUT/gradients.safetensors: DDP's averages, clipped to a norm of 1."""

    def _get_grad_norm(self, model, grad_norm=None):
        if self.state.global_step == 0 and self.is_world_process_zero():
            named = self.accelerator.unwrap_model(model).named_parameters()
            gradients = {name: parameter.grad.clone() for name, parameter in named if parameter.grad is not None}
            save_file(gradients, self.recipe.out / "gradients.safetensors")
        return super()._get_grad_norm(model, grad_norm)


if __name__ == "__main__":
    training_run.HourLlavaTrainer = Noted
    training_run.train(load_recipe(sys.argv[1], sys.argv[2:]))
