"""From a recipe to a trained model: what `hourllava train` does.

    OUT/recipe.yaml      the recipe with all bases and defaults
    OUT/lengths/         lengths that had to be measured
    OUT/failures/        samples that were left out, see docs/batching.md
    OUT/logs/            TensorBoard
    OUT/checkpoint-N/    see `hourllava.training.checkpoints`
    OUT/final/           the trained model

On GPUs, one or many, and on several CPUs a run is sharded by FSDP2 unless its recipe asks for DDP: weights, gradients
and optimizer are fp32, the computation is bf16 without autocast. The units are the decoder's layers, embeddings and
head; everything else is one unit, because a batch of text on one process uses neither vision tower nor MemAug while
another process does, and units must be gathered together.
"""

import atexit
import dataclasses
import importlib.util
import os
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from accelerate.state import PartialState
from torch.distributed import DistError
from torch.distributed.fsdp import MixedPrecisionPolicy
from transformers import TrainingArguments

from hourllava.data.batches.cost import Lengths, TrainedParts
from hourllava.data.batches.samples import RowEncoder
from hourllava.data.mds.writer import lock_folder
from hourllava.errors import CheckpointError, ConfigError, TrainingError
from hourllava.files import replacing
from hourllava.inference.encoder import EncoderIdentity, encoder_identity
from hourllava.model.activation_checkpointing import checkpoint_activations
from hourllava.model.modeling import HourLlavaForConditionalGeneration
from hourllava.model.processor import HourLlavaProcessor
from hourllava.training.adapters import add_adapters
from hourllava.training.checkpoints import (
    FINAL,
    checkpoints,
    from_main,
    how_to_go_on,
    is_main,
    make_patient_group,
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
from hourllava.training.identity import Identity, check_finished, check_identity, check_order, told_of
from hourllava.training.recipe import RECIPE_NAME, BatchRecipe, DataRecipe, Recipe, recipe_text
from hourllava.training.start import load_start
from hourllava.training.tally import describe_skipped
from hourllava.training.trainer import HourLlavaTrainer
from hourllava.training.validation import Validation


@dataclasses.dataclass(frozen=True)
class Prepared:
    """Everything of a run but the trainer.

    Attributes:
        recipe: of the run.
        model: with `requires_grad` set.
        groups: of its parameters.
        corpus: what is trained on.
        identity: what must stay the same while the run goes on.
        validation: what is held out, if anything.
        checkpoint: that the run goes on from, if it was begun before.
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
        """Steps of the run."""
        return min(self.corpus.plan.num_steps, self.recipe.schedule.max_steps or self.corpus.plan.num_steps)


def train(recipe: Recipe) -> Path:
    """Train by a recipe, from its newest checkpoint if it was begun before.

    Returns:
        the folder of the trained model.

    Raises:
        ConfigError: the recipe contradicts the model, the data, or the number of processes.
        CheckpointError, DataError: weights or shards are missing or damaged; too many samples cannot be read; a
            checkpoint cannot be written; another process trains in the same folder.
        TrainingError: a gradient is not finite, there is nothing to learn from, or the run belongs to other data.
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
            if not isinstance(error, DistError) and "by peer" not in str(error):  # gloo's errors have no class
                raise
            raise TrainingError(f"another process of this run has ended; {how_to_go_on(recipe.out)}") from error
    atexit.register(leave_processes)  # not after a failure: to leave may wait for processes that are gone
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
        begun = [] if prepared.checkpoint is None else told_of(prepared.checkpoint, recipe)
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
    """Tell TensorBoard's callback where to write, unless the user has; the next run of this process has its own."""
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
    """Hold the run's folder against another start of it; the first process does so for all of them."""
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
    """Model, parameter groups, data and plan of a recipe; of a run that was begun, as its newest checkpoint has them.

    Args:
        recipe: of the run.
        meta: do not load or make weights; what a dry run needs.

    Raises:
        as `train`.
    """
    for logger in recipe.log.to:
        if importlib.util.find_spec(logger) is None:
            raise ConfigError(f"log.to names {logger}, which is not installed; pip install {logger}, or set log.to=[]")
    torch.manual_seed(recipe.seed)
    model, processor = load_start(recipe.start, meta=meta)
    if recipe.lora is not None:
        add_adapters(model, recipe.lora)
    groups = freeze_and_group(model, recipe.learning_rates)
    if recipe.lora is not None and not any(p.requires_grad for name, p in model.named_parameters() if ".lora_" in name):
        raise ConfigError(
            'the recipe has adapters but learning_rates freeze them; add a pattern such as "*.lora_*": 1e-4'
        )
    features_of = None if meta else encoder_identity(model.model)

    streams = open_streams(recipe.data)
    encoder = _row_encoder(recipe.data, processor, features_of)
    identity = Identity.of(streams, encoder, recipe.lora, model)
    found = checkpoints(recipe.out)
    frozen_lengths = None
    if found:
        unknown = check_identity(found[-1], identity, [stream.name for stream in streams])
        if unknown and is_main():
            print(unknown, file=sys.stderr, flush=True)
        frozen_lengths = read_lengths(found[-1])

    checkpoint_activations(model, recipe.activations)
    if recipe.compile:
        compile_layers(model)
    parts = trained_parts(model)

    def corpus_of(
        data: DataRecipe,
        batch: BatchRecipe,
        streams: list[OpenStream],
        encoder: RowEncoder,
        known: list[Lengths] | None,
        cache: str,
        **amounts: Any,
    ) -> Corpus:
        check_features(data, streams, features_of, tower_is_trained=parts.vision_tower)
        lengths = known or from_main(lambda: measure_streams(data, streams, encoder, recipe.out / "lengths" / cache))
        return build_corpus(data, batch, streams, lengths, encoder, trained=parts, seed=recipe.seed, **amounts)

    schedule = recipe.schedule
    corpus = corpus_of(
        recipe.data,
        recipe.batch,
        streams,
        encoder,
        frozen_lengths,
        "train",
        epochs=schedule.epochs,
        max_steps=schedule.max_steps,
    )
    if found:
        check_order(found[-1], corpus.plan.fingerprint())
    validation = None
    if recipe.validation is not None:
        changes = {"streams": recipe.validation.streams, "answer_noise": 0.0, "max_failed_share": 1.0}
        data = recipe.data.model_copy(update=changes)
        budget, processes = recipe.batch.token_budget, num_processes()
        batch = BatchRecipe(token_budget=budget, tokens=budget * processes, multiple_of=processes)
        encoder = _row_encoder(data, processor, features_of)
        held_out = corpus_of(data, batch, open_streams(data), encoder, None, "validation", epochs=1)
        validation = Validation(recipe.validation, held_out, recipe.out / "failures" / "validation")
    return Prepared(recipe, model, groups, corpus, identity, validation, found[-1] if found else None)


def _row_encoder(data: DataRecipe, processor: HourLlavaProcessor, features_of: EncoderIdentity | None) -> RowEncoder:
    return RowEncoder(
        processor,
        data.media,
        label_policy=data.labels,
        questions=data.questions,
        encoder=None if data.any_encoder else features_of,
    )


def trained_parts(model: torch.nn.Module) -> TrainedParts:
    """Which parts get gradients."""
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
    """A recipe as transformers' arguments."""
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
        ddp_broadcast_buffers=False,  # nothing in them ever changes
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


def num_processes() -> int:
    """Processes of this run, as torchrun says."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def join_processes() -> None:
    """Start the process group that torchrun has told us of, or one of a single GPU: FSDP2 needs it.

    It also keeps transformers from spreading one process over all GPUs that it sees.
    """
    on_gpu = torch.cuda.is_available()
    if "WORLD_SIZE" not in os.environ and on_gpu:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = str(probe.getsockname()[1])
        alone = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        os.environ.update(alone)
    PartialState(cpu=not on_gpu)
    make_patient_group()
    # The vision tower sees another number of frames in every batch, and cuDNN's attention makes a plan for each: 285 ms
    # a step of nano instead of 123. `packed_attention` asks for it where a plan is worth its time.
    torch.backends.cuda.enable_cudnn_sdp(False)


def leave_processes() -> None:
    """End the process group, if there is one, before Python ends.

    gloo's threads drop what they have finished only when they get Python's lock; one that asks for it while Python ends
    aborts the process (pytorch#190489). The group alone does not wait for them: others hold it, too.
    """
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
        time.sleep(0.1)  # leaves the lock to them
