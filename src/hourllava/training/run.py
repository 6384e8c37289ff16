"""From a recipe to a trained model: what `hourllava train` does.

    OUT/recipe.yaml      the recipe with all bases and defaults
    OUT/lengths/         measured sample lengths
    OUT/failures/        skipped samples, see docs/batching.md
    OUT/logs/            TensorBoard
    OUT/checkpoint-N/    see `hourllava.training.checkpoints`
    OUT/final/           the trained model

FSDP2 shards a run on GPUs, one or many, and on several CPU processes, unless the recipe asks for DDP. Weights,
gradients and optimizer are fp32; the computation is bf16 without autocast. Each decoder layer is an FSDP unit, so are
embeddings and head. Everything else is one unit: all processes must gather a unit together, but a process with a batch
of text runs neither the vision tower nor MemAug.
"""

import atexit
import dataclasses
import importlib.util
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch.distributed import DistError
from torch.distributed.fsdp import MixedPrecisionPolicy
from transformers import TrainingArguments

from hourllava.data.batches.cost import Lengths, TrainedParts
from hourllava.data.batches.samples import RowEncoder
from hourllava.data.mds.writer import lock_folder
from hourllava.errors import CheckpointError, ConfigError, TrainingError
from hourllava.files import replacing
from hourllava.inference.memories.encoder import EncoderIdentity, encoder_identity
from hourllava.model.activation_checkpointing import checkpoint_activations
from hourllava.model.modeling import HourLlavaForConditionalGeneration
from hourllava.model.processor import HourLlavaProcessor
from hourllava.training.adapters import add_adapters
from hourllava.training.checkpoints import (
    FINAL,
    checkpoints,
    how_to_go_on,
    read_lengths,
)
from hourllava.training.compilation import compile_layers
from hourllava.training.corpus import (
    Corpus,
    OpenStream,
    batch_warnings,
    build_corpus,
    check_features,
    measure_streams,
    open_streams,
)
from hourllava.training.groups import Group, freeze_and_group
from hourllava.training.identity import Identity, check_finished, check_identity, check_order, describe_resume
from hourllava.training.ranks import from_main, is_main, join_processes, leave_processes, num_processes
from hourllava.training.recipe import RECIPE_NAME, BatchRecipe, DataRecipe, Recipe, ValidationRecipe, recipe_text
from hourllava.training.start import load_start
from hourllava.training.tally import describe_skipped
from hourllava.training.trainer import HourLlavaTrainer
from hourllava.training.validation import Validation


@dataclasses.dataclass(frozen=True)
class Prepared:
    """Everything that the trainer of a run needs.

    Attributes:
        recipe: the run's recipe.
        model: the model, with `requires_grad` set.
        groups: its parameters by learning rate.
        corpus: the training data.
        identity: what must not change when the run is resumed.
        validation: the held-out data, if the recipe has any.
        checkpoint: the newest checkpoint, if there is one.
    """

    recipe: Recipe
    model: HourLlavaForConditionalGeneration
    groups: list[Group]
    corpus: Corpus
    identity: Identity
    validation: Validation | None
    checkpoint: Path | None

    @property
    def num_steps(self) -> int:
        """Number of steps of the run."""
        return min(self.corpus.plan.num_steps, self.recipe.schedule.max_steps or self.corpus.plan.num_steps)


def train(recipe: Recipe) -> Path:
    """Train by a recipe, from the newest checkpoint if there is one.

    Returns:
        folder of the trained model.

    Raises:
        ConfigError: the recipe contradicts the model, the data, or the number of processes.
        CheckpointError, DataError: weights or shards are missing or damaged, too many samples cannot be read, a
            checkpoint cannot be written, or another process trains in the same folder.
        TrainingError: a gradient is not finite, there is nothing to learn from, or the checkpoint belongs to another
            run.
    """
    final = recipe.out / FINAL
    if final.is_dir():
        check_finished(final, recipe)
        return final
    with _alone_in(recipe.out):
        try:
            join_processes()
            with _logs_in(recipe.out / "logs"):
                trained = _train(recipe)
        except RuntimeError as error:
            if not isinstance(error, DistError) and "by peer" not in str(
                error
            ):  # gloo's errors have no class of their own
                raise
            raise TrainingError(f"another process of this run has failed; {how_to_go_on(recipe.out)}") from error
    atexit.register(leave_processes)  # not after a failure: leaving may wait for processes that are gone
    return trained


def _train(recipe: Recipe) -> Path:
    prepared = prepare(recipe)
    arguments = training_arguments(recipe, prepared)
    trainer = HourLlavaTrainer(
        prepared.model,
        arguments,
        recipe,
        prepared.corpus,
        prepared.groups,
        prepared.identity,
        prepared.validation,
    )
    if prepared.checkpoint is not None:
        trainer.begin_at(prepared.checkpoint)
    if trainer.is_world_process_zero():
        begun = [] if prepared.checkpoint is None else describe_resume(prepared.checkpoint, recipe)
        for line in (*begun, *batch_warnings(recipe.batch, prepared.corpus)):
            print(line, file=sys.stderr, flush=True)
        _write_recipe(recipe)
    trainer.resume_or_start(prepared.checkpoint)
    trained = trainer.save_final()
    skipped = describe_skipped(recipe.out / "failures") if trainer.is_world_process_zero() else None
    if skipped:
        print(skipped, file=sys.stderr, flush=True)
    return trained


def _write_recipe(recipe: Recipe) -> None:
    try:
        with replacing(recipe.out / RECIPE_NAME) as temporary:
            temporary.write_text(recipe_text(recipe), encoding="utf-8")
    except OSError as error:
        raise CheckpointError(
            f"{recipe.out} cannot be written ({error.strerror}); free space or choose another `out`"
        ) from error


@contextmanager
def _logs_in(folder: Path) -> Iterator[None]:
    """Set TensorBoard's folder for this run, unless the user has set one."""
    name = "TENSORBOARD_LOGGING_DIR"
    if name in os.environ:
        yield
        return
    os.environ[name] = str(folder)
    try:
        yield
    finally:
        del os.environ[name]


@contextmanager
def _alone_in(out: Path) -> Iterator[None]:
    """Lock the run's folder against a second start. The first process does so for all processes."""
    if os.environ.get("RANK", "0") != "0":
        yield
        return
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CheckpointError(f"{out} cannot be made ({error.strerror}); choose another `out`") from error
    with lock_folder(out):
        yield


def prepare(recipe: Recipe, *, meta: bool = False) -> Prepared:
    """Model, parameter groups, data and plan of a recipe; of a run that has a checkpoint, as the checkpoint needs them.

    Args:
        recipe: the run's recipe.
        meta: neither load nor make weights, as in a dry run.

    Raises:
        as `train`.
    """
    for logger in recipe.log.to:
        if importlib.util.find_spec(logger) is None:
            raise ConfigError(f"log.to names {logger}, which is not installed; pip install {logger}, or set log.to=[]")
    torch.manual_seed(recipe.seed)
    model, processor = load_start(recipe.start, meta=meta)
    groups = _add_adapters_and_freeze(model, recipe)
    features_of = None if meta else encoder_identity(model.model)

    streams = open_streams(recipe.data)
    encoder = _row_encoder(recipe.data, processor, features_of)
    identity = Identity.of(streams, encoder, recipe.lora, model)
    newest = next(reversed(checkpoints(recipe.out)), None)
    known_lengths = None if newest is None else _lengths_of(newest, identity, streams)

    checkpoint_activations(model, recipe.activations)
    if recipe.compile:
        compile_layers(model)
    parts, schedule = trained_parts(model), recipe.schedule
    corpus = _corpus(recipe, recipe.data, recipe.batch, streams, encoder, parts, cache="train", known=known_lengths,
                     epochs=schedule.epochs, max_steps=schedule.max_steps)  # fmt: skip
    if newest is not None:
        check_order(newest, corpus.plan.fingerprint())
    validation = None if recipe.validation is None else _validation(recipe, recipe.validation, encoder, parts)
    return Prepared(recipe, model, groups, corpus, identity, validation, newest)


_BEHIND_MEMAUG = ("model.language_model.layers.", "model.language_model.norm.", "lm_head.")
"""Parameters of these names do not change where MemAug looks."""


def _add_adapters_and_freeze(model: HourLlavaForConditionalGeneration, recipe: Recipe) -> list[Group]:
    if recipe.lora is not None:
        add_adapters(model, recipe.lora)
    groups = freeze_and_group(model, recipe.learning_rates)
    if recipe.lora is not None and not any(p.requires_grad for name, p in model.named_parameters() if ".lora_" in name):
        raise ConfigError(
            'the recipe has adapters but learning_rates freeze them; add a pattern such as "*.lora_*": 1e-4'
        )
    if recipe.data.grounding_weight and not any(
        p.requires_grad and not name.startswith(_BEHIND_MEMAUG) for name, p in model.named_parameters()
    ):
        raise ConfigError(
            "data.grounding_weight teaches MemAug where to look, but only the decoder behind it is trained; give "
            r"'model.memaug.*' a learning rate or, with adapters, set lora.targets to "
            r"'model\.(language_model|memaug)\..*_proj'"
        )
    return groups


def _lengths_of(checkpoint: Path, identity: Identity, streams: list[OpenStream]) -> list[Lengths] | None:
    """Sample lengths of a checkpoint that belongs to this run; None if an older version wrote it."""
    unknown = check_identity(checkpoint, identity, [stream.name for stream in streams])
    if unknown and is_main():
        print(unknown, file=sys.stderr, flush=True)
    return read_lengths(checkpoint)


def _corpus(
    recipe: Recipe,
    data: DataRecipe,
    batch: BatchRecipe,
    streams: list[OpenStream],
    encoder: RowEncoder,
    parts: TrainedParts,
    *,
    cache: str,
    known: list[Lengths] | None = None,
    **amounts: Any,
) -> Corpus:
    """The corpus of open streams, whose lengths are measured into `OUT/lengths/<cache>` unless they are known."""
    check_features(data, streams, encoder.encoder, tower_is_trained=parts.vision_tower)
    lengths = known or from_main(lambda: measure_streams(data, streams, encoder, recipe.out / "lengths" / cache))
    return build_corpus(data, batch, streams, lengths, encoder, trained=parts, seed=recipe.seed, **amounts)


def _validation(
    recipe: Recipe, settings: ValidationRecipe, training_encoder: RowEncoder, parts: TrainedParts
) -> Validation:
    changes = {"streams": settings.streams, "answer_noise": 0.0, "max_failed_share": 1.0}
    data = recipe.data.model_copy(update=changes)
    budget, processes = recipe.batch.token_budget, num_processes()
    batch = BatchRecipe(token_budget=budget, tokens=budget * processes, multiple_of=processes)
    encoder = _row_encoder(data, training_encoder.processor, training_encoder.encoder)
    held_out = _corpus(recipe, data, batch, open_streams(data), encoder, parts, cache="validation", epochs=1)
    return Validation(settings, held_out, recipe.out / "failures" / "validation")


def _row_encoder(data: DataRecipe, processor: HourLlavaProcessor, features_of: EncoderIdentity | None) -> RowEncoder:
    return RowEncoder(
        processor,
        data.media,
        label_policy=data.labels,
        questions=data.questions,
        history=data.history,
        encoder=None if data.any_encoder else features_of,
    )


def trained_parts(model: torch.nn.Module) -> TrainedParts:
    """Which parts of the model get gradients."""
    trained = [name for name, parameter in model.named_parameters() if parameter.requires_grad]

    def any_of(*prefixes: str) -> bool:
        return any(name.startswith(prefix) for name in trained for prefix in prefixes)

    return TrainedParts(
        vision_tower=any_of("model.vision_tower."),
        projector=any_of("model.multi_modal_projector.", "model.image_newline"),
        memaug=any_of("model.memaug."),
        language_model=any_of("model.language_model.", "lm_head."),
    )


def training_arguments(recipe: Recipe, prepared: Prepared) -> TrainingArguments:
    """The recipe as transformers' arguments."""
    plan = prepared.corpus.plan
    on_gpu = torch.cuda.is_available()
    sharded = _is_sharded(recipe)
    arguments = TrainingArguments(
        output_dir=str(recipe.out),
        per_device_train_batch_size=1,
        gradient_accumulation_steps=plan.micro_batches_of_rank(num_processes()),
        max_steps=prepared.num_steps,
        lr_scheduler_type="constant_with_warmup" if recipe.schedule.kind == "constant" else recipe.schedule.kind,
        warmup_steps=round(recipe.schedule.warmup * prepared.num_steps),
        max_grad_norm=recipe.optimizer.max_grad_norm,
        bf16=recipe.precision == "bf16" and not sharded,
        seed=recipe.seed,
        logging_steps=recipe.log.every_steps,
        logging_first_step=True,
        logging_nan_inf_filter=False,
        report_to=recipe.log.to or "none",
        save_strategy="steps",
        save_steps=recipe.checkpoints.every_steps,
        eval_strategy="no" if recipe.validation is None else "steps",
        eval_steps=None if recipe.validation is None else recipe.validation.every_steps,
        ignore_data_skip=True,
        remove_unused_columns=False,
        average_tokens_across_devices=True,
        ddp_find_unused_parameters=False,
        ddp_broadcast_buffers=False,  # buffers never change
        disable_tqdm=True,
        use_cpu=not on_gpu,
        fsdp=sharded,
        fsdp_config=_fsdp_settings(prepared.model) if sharded else None,
        accelerator_config={"gradient_accumulation_kwargs": {"sync_each_batch": True}} if sharded else None,
    )
    if sharded:
        dtype = torch.bfloat16 if recipe.precision == "bf16" else torch.float32
        arguments.fsdp_plugin_args["mixed_precision_policy"] = MixedPrecisionPolicy(dtype, torch.float32)
    return arguments


def _is_sharded(recipe: Recipe) -> bool:
    return recipe.parallel.kind == "fsdp" and (num_processes() > 1 or torch.cuda.is_available())


def _fsdp_settings(model: HourLlavaForConditionalGeneration) -> dict[str, Any]:
    decoder_layers = {type(layer).__name__ for layer in model.model.language_model.layers}
    return {
        "version": 2,
        "auto_wrap_policy": "TRANSFORMER_BASED_WRAP",
        "transformer_layer_cls_to_wrap": sorted(decoder_layers),
        "state_dict_type": "SHARDED_STATE_DICT",
        "reshard_after_forward": True,
    }
