"""The trainer: transformers' `Trainer` on packed batches of a plan.

Of transformers' Trainer we keep the loop, clipping, schedules, accelerate's DDP and FSDP2, and the loggers. Ours are

- the batches: each process reads its share of the plan; to resume at step k is to begin reading there;
- the loss: a mean over the supervised tokens of the whole step, on however many processes;
- checkpoints: see `hourllava.training.checkpoints`;
- a guard: a step whose gradient is not finite ends the run before it touches the weights, and names its samples.

Methods that start with an underscore override transformers' own of that name, versions 5.17 to 5.23.
"""

import math
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from accelerate.state import PartialState
from accelerate.utils.dataclasses import DistributedType
from torch import Tensor, nn
from transformers import Trainer, TrainerControl, TrainingArguments
from transformers.trainer_callback import PrinterCallback, ProgressCallback

from hourllava.data.loader import PlannedLoader
from hourllava.errors import TrainingError
from hourllava.model.head import IGNORED_LABEL, next_token_targets, target_weights
from hourllava.model.processor import ModelInputs
from hourllava.training import checkpoints
from hourllava.training.console import ConsoleCallback
from hourllava.training.corpus import MODALITIES_KEY, Corpus
from hourllava.training.groups import Group, optimizer_groups
from hourllava.training.meter import Meter
from hourllava.training.recipe import RECIPE_NAME, Recipe, recipe_text
from hourllava.training.validation import Validation
from hourllava.training.weights import write_model

TRAINER_STATE = "trainer_state.json"


class HourLlavaTrainer(Trainer):
    """Trains a model by a recipe.

    Args:
        model: with `requires_grad` set by `freeze_and_group`.
        arguments: made from the recipe, see `hourllava.training.run`.
        recipe: of the run.
        corpus: what is trained on.
        groups: of the parameters.
        validation: what is held out, if anything.
    """

    control: TrainerControl
    optimizer: torch.optim.Optimizer | None

    def __init__(
        self,
        model: nn.Module,
        arguments: TrainingArguments,
        recipe: Recipe,
        corpus: Corpus,
        groups: list[Group],
        validation: Validation | None = None,
    ) -> None:
        self.recipe, self.corpus, self.groups, self.validation = recipe, corpus, groups, validation
        super().__init__(model, arguments, train_dataset=corpus.datasets[0], eval_dataset=corpus.datasets[0])
        for callback in (PrinterCallback, ProgressCallback):
            self.remove_callback(callback)
        self.add_callback(ConsoleCallback(corpus.plan))
        self.meter = Meter(self.args.device)
        self._plan_fingerprint = corpus.plan.fingerprint()  # once: it builds the plan's first epoch
        self._first_step = 0
        self._step_losses: list[Tensor] = []

    def resume_or_start(self) -> None:
        """Train to the end, from the newest checkpoint if there is one."""
        found = checkpoints.checkpoints(self.recipe.out)
        if found:
            self._check_plan(found[-1])
            self._first_step = checkpoints.step_of(found[-1])
        if self._first_step >= self.args.max_steps:  # only the final model is missing
            return
        self.train(resume_from_checkpoint=str(found[-1]) if found else None)

    def create_accelerator_and_postprocess(self) -> None:
        """As transformers does, but with FSDP2 on CPUs too, where accelerate copies the model without a word.

        It shards on several GPUs (and other accelerators) only, so several CPUs pass for them until it has looked; from
        then on its state says FSDP. Device and process group are there before.
        """
        state = PartialState()
        if self.args.fsdp and state.distributed_type == DistributedType.MULTI_CPU:
            state.distributed_type = DistributedType.MULTI_GPU
        super().create_accelerator_and_postprocess()

    # ---- batches

    def get_train_dataloader(self) -> PlannedLoader:
        """This process's micro-batches from the first step on; transformers skips nothing."""
        return self.corpus.loader(
            self.recipe.out / "failures",
            rank=self.args.process_index,
            world_size=self.args.world_size,
            first_step=self._first_step,
        )

    def get_batch_samples(
        self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device
    ) -> tuple[list[Any], Tensor]:
        """A step's micro-batches, and the supervised tokens, or their weights, of all processes together."""
        start = time.perf_counter()
        batches = [next(epoch_iterator) for _ in range(num_batches)]
        self.meter.waited(time.perf_counter() - start)
        self._step_losses = []
        step = self.state.global_step
        for inputs, draws in zip(
            batches, self.corpus.plan.rank_step(step, self.args.process_index, self.args.world_size), strict=True
        ):
            self.meter.trained(
                len(inputs[MODALITIES_KEY]),
                inputs["input_ids"].numel(),
                self.corpus.views_of(draws),
                self.corpus.flops_of(draws),
            )
        num_targets = sum(map(_weight_of_targets, batches))
        return batches, self.accelerator.reduce(torch.as_tensor(num_targets, device=device), "sum")

    def _prepare_inputs(self, inputs: ModelInputs) -> ModelInputs:
        return inputs.to(self.args.device)

    # ---- loss and gradient

    def compute_loss(
        self,
        model: nn.Module,
        inputs: ModelInputs,
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Tensor:
        """This micro-batch's share of the step's mean over tokens, times the processes over which gradients average."""
        # Copied to the device before it has anything to do: each copy waits until it has done all.
        modality_S = inputs.pop(MODALITIES_KEY)
        targets_L = next_token_targets(inputs["labels"]).flatten()
        lengths_S = torch.tensor(inputs["segments"].lengths, device=modality_S.device)
        modality_L = modality_S.repeat_interleave(lengths_S, output_size=len(targets_L))
        output = model(
            **inputs, grounding_weight=self.recipe.data.grounding_weight, num_items_in_batch=num_items_in_batch
        )
        self.meter.lost(output.target_losses, targets_L != IGNORED_LABEL, modality_L)
        if output.evidence_shares is not None:
            self.meter.looked(output.evidence_shares)
        self._step_losses.append(output.loss.detach())
        return output.loss * self.args.world_size

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """AdamW over the recipe's groups."""
        if self.optimizer is None:
            settings = self.recipe.optimizer
            trained = self.model if model is None else model
            self.optimizer = torch.optim.AdamW(
                optimizer_groups(trained, self.groups, settings.weight_decay),
                betas=settings.betas,
                eps=settings.epsilon,
                fused=self.args.device.type == "cuda",
            )
        return self.optimizer

    def _get_grad_norm(self, model: nn.Module, grad_norm: Any = None) -> float:
        norm = super()._get_grad_norm(model, grad_norm)
        norm = float(norm.full_tensor() if hasattr(norm, "full_tensor") else norm)
        if not math.isfinite(norm):
            raise TrainingError(self._describe_bad_step(norm))
        return norm

    def _describe_bad_step(self, norm: float) -> str:
        step = self.state.global_step
        draws = self.corpus.plan.rank_step(step, self.args.process_index, self.args.world_size)
        suspects = [
            self.corpus.describe(micro_batch)
            for micro_batch, loss in zip(draws, self._step_losses)
            if not math.isfinite(float(loss))
        ] or [self.corpus.describe(micro_batch) for micro_batch in draws]
        return (
            f"the gradient of step {step} is {norm}; the weights were not touched. Samples: {'; '.join(suspects)}. "
            "Look at them, or lower the learning rates; the same command goes on from the last checkpoint"
        )

    # ---- logs and validation

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log losses, learning rates by group, and what the meter read; not transformers' own idea of epochs."""
        if "loss" in logs:
            logs = {key: value for key, value in logs.items() if key != "learning_rate"}
            logs |= self.meter.read()
            assert self.optimizer is not None
            rates = {group["lr"] / group["initial_lr"] for group in self.optimizer.param_groups if group["initial_lr"]}
            logs["learning_rate_share"] = max(rates)
        self.state.log_history.append({**logs, "step": self.state.global_step})
        self.control = self.callback_handler.on_log(self.args, self.state, self.control, logs)

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Loss over the held-out streams, and answers to their first records."""
        assert self.validation is not None
        started = time.perf_counter()
        figures = self.validation.measure(self.model_wrapped, self.args.process_index, self.args.world_size)
        self.log(dict(figures))
        for line in self.validation.answer(self.accelerator.unwrap_model(self.model_wrapped), self.args.device):
            if self.is_world_process_zero():
                print(line, flush=True)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, figures)
        self.meter.skip(time.perf_counter() - started)
        return figures

    # ---- checkpoints

    def _save_checkpoint(self, model: nn.Module, trial: Any = None) -> None:
        started = time.perf_counter()
        out = self.recipe.out
        with checkpoints.writing(out / f"checkpoint-{self.state.global_step}") as folder:
            assert self.optimizer is not None
            checkpoints.save_state(folder / checkpoints.STATE, self.model_wrapped, _bare(self.optimizer))
            self._write_model(folder)
            checkpoints.write_json(folder / checkpoints.PLAN, {"fingerprint": self._plan_fingerprint})
            if self.is_world_process_zero():
                (folder / RECIPE_NAME).write_text(recipe_text(self.recipe), encoding="utf-8")
                self.state.save_to_json(str(folder / TRAINER_STATE))
        checkpoints.remove_older(out, self.recipe.checkpoints.keep)
        self.meter.skip(time.perf_counter() - started)

    def save_final(self) -> Path:
        """The model of the newest checkpoint, which is that of the last step, without the state of its training."""
        final = self.recipe.out / checkpoints.FINAL
        newest = checkpoints.checkpoints(self.recipe.out)[-1]
        with checkpoints.writing(final) as folder:
            if self.is_world_process_zero():
                for file in newest.iterdir():
                    if file.is_file() and file.name not in (TRAINER_STATE, checkpoints.PLAN):
                        shutil.copyfile(file, folder / file.name)
        return final

    def _write_model(self, folder: Path) -> None:
        dtype = torch.bfloat16 if self.recipe.precision == "bf16" else torch.float32
        write_model(self.accelerator.unwrap_model(self.model_wrapped), self.corpus.encoder.processor, folder, dtype)

    def _check_plan(self, checkpoint: Path) -> None:
        stored = checkpoints.read_json(checkpoint / checkpoints.PLAN)["fingerprint"]
        if stored != self._plan_fingerprint:
            raise TrainingError(
                f"{checkpoint} belongs to another order of samples: data, lengths, batch, seed or epochs have changed "
                "since. Set them back, or begin a new run with another `out` and `start: {checkpoint: ...}`"
            )

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        """Nothing: weights come with the optimizer's state, once everything is in its place."""

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is None:
            return
        assert self.optimizer is not None
        checkpoints.load_state(Path(checkpoint) / checkpoints.STATE, self.model_wrapped, _bare(self.optimizer))
        # The schedule is a function of the step alone; the optimizer's groups hold its present value already.
        assert self.lr_scheduler is not None
        self.lr_scheduler.last_epoch = checkpoints.step_of(Path(checkpoint))

    def _load_rng_state(self, checkpoint: str | None) -> None:
        """Nothing: every random choice of a sample follows from its draw's seed."""


def _weight_of_targets(inputs: ModelInputs) -> Tensor:
    """How many tokens are predicted, or what they weigh together."""
    return target_weights(next_token_targets(inputs["labels"]), inputs.get("label_weights")).sum()


def _bare(optimizer: Any) -> torch.optim.Optimizer:
    """The torch optimizer inside accelerate's."""
    return getattr(optimizer, "optimizer", optimizer)
