"""The trainer: transformers' `Trainer` on the micro-batches of a plan.

transformers gives us the loop, clipping, schedules, DDP and FSDP2 (through accelerate), and the loggers. We replace

- the batches: each process reads its share of the plan; a run resumes at step k by reading from there;
- the loss: the mean over the supervised tokens of the whole step, on any number of processes;
- checkpoints: see `hourllava.training.checkpoints`;
- the optimizer's settings: always the recipe's, not the checkpoint's;

and we add two guards: a gradient that is not finite ends the run before the weights change, and names the samples; so
does a run that learns nothing, see `hourllava.training.tally`.

Some of the overridden methods are not part of transformers' public interface. They exist in versions 5.17 to 5.23:

- `create_accelerator_and_postprocess`: shards on several CPU processes, too;
- `get_batch_samples`: counts the step's supervised tokens over all processes;
- `_prepare_inputs`: moves our layouts to the device together with the tensors;
- `_get_grad_norm`: the guards; the only place between backward pass and optimizer step that knows the norm;
- `_save_checkpoint`: writes our checkpoint in place of transformers';
- `_load_from_checkpoint`: does nothing, because weights are loaded together with the optimizer's state;
- `_load_optimizer_and_scheduler`: loads weights and optimizer once FSDP2 has sharded them;
- `_load_rng_state`: does nothing, because every random choice follows from its draw's seed.
"""

import dataclasses
import math
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from accelerate.state import PartialState
from accelerate.utils.dataclasses import DistributedType
from torch import Tensor, nn
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import PrinterCallback, ProgressCallback

from hourllava.data.batches.loader import PlannedLoader
from hourllava.errors import CheckpointError, TrainingError
from hourllava.model.head import IGNORED_LABEL, next_token_targets, target_weights
from hourllava.model.inputs import ModelInputs
from hourllava.training import checkpoints
from hourllava.training.adapters import ADAPTER
from hourllava.training.console import ConsoleCallback
from hourllava.training.corpus import MODALITIES_KEY, SKIPPED_KEY, Corpus
from hourllava.training.groups import Group, optimizer_groups
from hourllava.training.identity import Identity
from hourllava.training.meter import Meter
from hourllava.training.recipe import RECIPE_NAME, Recipe, recipe_text
from hourllava.training.tally import Tally
from hourllava.training.validation import Validation
from hourllava.training.weights import write_model

TRAINER_STATE = "trainer_state.json"


class _StepsOfRecipe(TrainerCallback):
    """Logs, measures and saves as often as the recipe says, not as a checkpoint's trainer state remembers."""

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        state.compute_steps(args, state.max_steps)


class HourLlavaTrainer(Trainer):
    """Trains a model by a recipe.

    Args:
        model: the model, with `requires_grad` set by `freeze_and_group`.
        arguments: the recipe as transformers' arguments, see `hourllava.training.run`.
        recipe: the run's recipe.
        corpus: the training data.
        groups: the parameters by learning rate.
        identity: the run's identity.
        validation: the held-out data, if there is any.
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
        identity: Identity,
        validation: Validation | None = None,
    ) -> None:
        self.recipe, self.corpus, self.groups, self.validation = recipe, corpus, groups, validation
        self.identity, self.tally = identity, Tally()
        super().__init__(model, arguments, train_dataset=corpus.datasets[0], eval_dataset=corpus.datasets[0])
        for callback in (PrinterCallback, ProgressCallback):
            self.remove_callback(callback)
        self.add_callback(_StepsOfRecipe())
        self.add_callback(ConsoleCallback(corpus.plan))
        self.meter = Meter(self.args.device)
        self._plan_fingerprint = corpus.plan.fingerprint()  # computed once, because it builds the plan's first epoch
        self._first_step = 0
        self._step_losses: list[Tensor] = []
        self._step_counts = torch.zeros(4)  # draws, failed, untaught, target weight; over all processes

    def begin_at(self, checkpoint: Path) -> None:
        """Set the first step and the tally from a checkpoint of this run."""
        try:
            self.tally = Tally.restored(checkpoints.read_json(checkpoint / checkpoints.PLAN).get("tally"))
        except (KeyError, TypeError) as error:
            raise CheckpointError(
                f"{checkpoint / checkpoints.PLAN} is damaged ({error!r}); remove that checkpoint to resume without it"
            ) from error
        self._first_step = checkpoints.step_of(checkpoint)

    def resume_or_start(self, checkpoint: Path | None) -> None:
        """Train to the end, from the checkpoint that was given to `begin_at`, if any."""
        if self._first_step >= self.args.max_steps:  # only the final model is missing
            self.tally.check(self.corpus.allowance, self.recipe.out / "failures", is_last_step=True)
            return
        self.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))

    def create_accelerator_and_postprocess(self) -> None:
        """As transformers does, but with FSDP2 on several CPU processes, where accelerate silently uses DDP.

        accelerate shards only on several GPUs. So its state says MULTI_GPU while it decides, and FSDP afterwards. The
        device and the process group exist already.
        """
        state = PartialState()
        if self.args.fsdp and state.distributed_type == DistributedType.MULTI_CPU:
            state.distributed_type = DistributedType.MULTI_GPU
        super().create_accelerator_and_postprocess()

    # ---- batches

    def get_train_dataloader(self) -> PlannedLoader:
        """This process's micro-batches from the first step on; transformers skips none of them."""
        return self.corpus.loader(
            self.recipe.out / "failures",
            rank=self.args.process_index,
            world_size=self.args.world_size,
            first_step=self._first_step,
        )

    def get_batch_samples(
        self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device
    ) -> tuple[list[Any], Tensor]:
        """A step's micro-batches, and the number of its supervised tokens (or their weight) over all processes."""
        start = time.perf_counter()
        batches = [next(epoch_iterator) for _ in range(num_batches)]
        self.meter.waited(time.perf_counter() - start)
        self._step_losses = []
        step = self.state.global_step
        counts = torch.zeros(4, dtype=torch.float64)
        for inputs, draws in zip(
            batches, self.corpus.plan.rank_step(step, self.args.process_index, self.args.world_size), strict=True
        ):
            self.meter.trained(
                len(inputs[MODALITIES_KEY]),
                inputs["input_ids"].numel(),
                self.corpus.views_of(draws),
                self.corpus.flops_of(draws),
            )
            weight = _weight_of_targets(inputs)
            counts += torch.tensor([len(draws), *inputs.pop(SKIPPED_KEY).tolist(), float(weight)], dtype=torch.float64)
        self._step_counts = self.accelerator.reduce(counts.to(device), "sum")
        return batches, self._step_counts[3].to(weight.dtype)

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
        """The micro-batch's part of the step's mean loss, times the number of processes that gradients average over."""
        # Copy before the forward pass: a copy waits for all queued work of the device.
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
        self._count_step(model)
        if not math.isfinite(norm):
            raise TrainingError(self._describe_bad_step(norm))
        return norm

    def _count_step(self, model: nn.Module) -> None:
        """Count the step's draws. Reading them waits for the device, as clipping does anyway."""
        step = self.state.global_step
        drawn, failed, untaught, weight = self._step_counts.tolist()
        teaches = self.tally.add(drawn, failed, untaught, weight)
        is_last_step = step + 1 >= self.args.max_steps
        self.tally.check(self.corpus.allowance, self.recipe.out / "failures", is_last_step=is_last_step)
        if not teaches:
            # Without gradients the optimizer skips the weights; otherwise decay and momentum would change them.
            model.zero_grad(set_to_none=True)
            if self.is_world_process_zero():
                line = f"step {step + 1}: nothing to learn from, {failed + untaught:.0f} of {drawn:.0f} samples skipped"
                print(line, file=sys.stderr, flush=True)

    def _describe_bad_step(self, norm: float) -> str:
        step = self.state.global_step
        draws = self.corpus.plan.rank_step(step, self.args.process_index, self.args.world_size)
        suspects = [
            self.corpus.describe(micro_batch)
            for micro_batch, loss in zip(draws, self._step_losses)
            if not math.isfinite(float(loss))
        ] or [self.corpus.describe(micro_batch) for micro_batch in draws]
        return (
            f"the gradient of step {step} is {norm}; the weights were not changed. Samples: {'; '.join(suspects)}. "
            "Check them, or lower the learning rates; the same command resumes from the last checkpoint"
        )

    # ---- logs and validation

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log losses, the share of the learning rates, and the meter's figures, without transformers' epochs."""
        if "loss" in logs:
            logs = {key: value for key, value in logs.items() if key != "learning_rate"}
            logs |= self.meter.read()
            assert self.optimizer is not None
            rates = {group["lr"] / group["initial_lr"] for group in self.optimizer.param_groups if group["initial_lr"]}
            logs["learning_rate_share"] = max(rates)
            logs["skipped_samples"] = float(self.tally.skipped)
        self.state.log_history.append({**logs, "step": self.state.global_step})
        self.control = self.callback_handler.on_log(self.args, self.state, self.control, logs)

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Measure the loss over the held-out streams, and print answers to their first records."""
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
            record = {"identity": dataclasses.asdict(self.identity), "tally": dataclasses.asdict(self.tally)}
            checkpoints.write_json(folder / checkpoints.PLAN, {"fingerprint": self._plan_fingerprint} | record)
            checkpoints.write_lengths(folder, [stream.lengths for stream in self.corpus.plan.streams])
            if self.is_world_process_zero():
                (folder / RECIPE_NAME).write_text(recipe_text(self.recipe), encoding="utf-8")
                self.state.save_to_json(str(folder / TRAINER_STATE))
        checkpoints.remove_older(out, self.recipe.checkpoints.keep)
        self.meter.skip(time.perf_counter() - started)

    def save_final(self) -> Path:
        """Copy the newest checkpoint, which is that of the last step, to `OUT/final` without its state."""
        final = self.recipe.out / checkpoints.FINAL
        newest = checkpoints.checkpoints(self.recipe.out)[-1]
        with checkpoints.writing(final) as folder:
            if self.is_world_process_zero():
                for file in newest.iterdir():
                    if file.is_file() and file.name not in (TRAINER_STATE, checkpoints.PLAN, checkpoints.LENGTHS):
                        shutil.copyfile(file, folder / file.name)
                if (newest / ADAPTER).is_dir():
                    shutil.copytree(newest / ADAPTER, folder / ADAPTER)
        return final

    def _write_model(self, folder: Path) -> None:
        model = self.accelerator.unwrap_model(self.model_wrapped)
        write_model(model, self.corpus.encoder.processor, folder, self.recipe)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        """Nothing; see the module."""

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is None:
            return
        assert self.optimizer is not None
        checkpoints.load_state(Path(checkpoint) / checkpoints.STATE, self.model_wrapped, _bare(self.optimizer))
        # The schedule depends on the step alone; the optimizer's groups have the recipe's rates.
        schedule: Any = self.lr_scheduler
        schedule.last_epoch = checkpoints.step_of(Path(checkpoint))
        for group, base_rate, share in zip(self.optimizer.param_groups, schedule.base_lrs, schedule.lr_lambdas):
            group["lr"] = base_rate * share(schedule.last_epoch)
        schedule._last_lr = [group["lr"] for group in self.optimizer.param_groups]

    def _load_rng_state(self, checkpoint: str | None) -> None:
        """Nothing; see the module."""


def _weight_of_targets(inputs: ModelInputs) -> Tensor:
    """Number of supervised tokens, or their total weight."""
    return target_weights(next_token_targets(inputs["labels"]), inputs.get("label_weights")).sum()


def _bare(optimizer: Any) -> torch.optim.Optimizer:
    """The torch optimizer inside accelerate's wrapper."""
    return getattr(optimizer, "optimizer", optimizer)
