"""What a run will be, before it begins: parameters, samples, steps, and estimates of memory and time.

Memory is that of one GPU: fp32 weights, gradients and AdamW's two averages, shared out by FSDP2; what FSDP2 gathers
while it computes, in bf16, which is everything but the decoder's layers at once (see `hourllava.training.run`); and
activations, from the largest rows of the plan's first steps. What was measured stands in docs/benchmarks.md.
"""

import dataclasses
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch

from hourllava.data.batches.amounts import samples_per_epoch
from hourllava.data.batches.cost import TrainedParts, memory_entries
from hourllava.model.activation_checkpointing import Checkpointing
from hourllava.model.config import HourLlavaConfig
from hourllava.training.corpus import Corpus, batch_warnings, tokens_per_epoch
from hourllava.training.meter import PEAK_FLOPS_PER_SECOND, peak_flops_per_second
from hourllava.training.run import Prepared, trained_parts

ASSUMED_GPU = "H100"
ASSUMED_UTILISATION = 0.4
"""Useful operations as a share of the GPU's peak."""

LOOKED_AT_STEPS = 16
"""Steps of the plan whose rows are looked at for the largest."""


class Row(NamedTuple):
    """The size of a micro-batch: tokens of the decoder, entries of all its memories, views to be encoded."""

    tokens: int
    memory_entries: int
    views: int


@dataclasses.dataclass(frozen=True)
class Memory:
    """Bytes of one GPU."""

    weights: float
    gradients: float
    optimizer: float
    gathered: float
    activations: float

    @property
    def total(self) -> float:
        """All of them at once."""
        return self.weights + self.gradients + self.optimizer + self.gathered + self.activations


def describe_run(prepared: Prepared, num_processes: int) -> Iterator[str]:
    """Lines about a run on this many processes.

    Args:
        prepared: the run; the model may be on the meta device.
        num_processes: GPUs of all machines together.

    Raises:
        ConfigError: the steps' micro-batches cannot be shared out to so many.
    """
    recipe, plan = prepared.recipe, prepared.corpus.plan
    yield f"start       {recipe.start.checkpoint or recipe.start.preset}"
    yield from _describe_parameters(prepared)
    yield from _describe_data(prepared.corpus)
    num_steps, steps_per_epoch = prepared.num_steps, plan.steps_per_epoch[0]
    yield (
        f"steps       {num_steps:,} ({round(recipe.schedule.warmup * num_steps):,} of warm-up) of "
        f"{plan.settings.micro_batches_per_step} micro-batches of at most {plan.settings.token_budget:,} tokens: on "
        f"average {plan.samples_per_epoch / steps_per_epoch:.1f} samples, "
        f"{sum(tokens_per_epoch(prepared.corpus)) / steps_per_epoch:,.0f} tokens"
    )
    yield from batch_warnings(recipe.batch, prepared.corpus)
    balance = plan.balance(num_processes)
    yield (
        f"balance     {num_processes} processes, {plan.micro_batches_of_rank(num_processes)} micro-batches each: rows "
        f"{balance.fill:.1%} full, {balance.lockstep_efficiency:.1%} of the time is work"
    )
    memory = estimate_memory(prepared, num_processes)
    parts = ", ".join(f"{field.name} {getattr(memory, field.name) / 1e9:.2f}" for field in dataclasses.fields(memory))
    yield f"memory      about {memory.total / 1e9:.2f} GB of each GPU (estimated): {parts}"
    seconds, rate = estimate_seconds(prepared, num_processes)
    yield (
        f"time        about {_duration(seconds)} on {num_processes} x {_gpu_name()} (estimated, at {rate / 1e12:.0f} "
        f"TFLOP/s each: {ASSUMED_UTILISATION:.0%} of its peak)"
    )


def _describe_parameters(prepared: Prepared) -> Iterator[str]:
    parameters = dict(prepared.model.named_parameters())
    total = sum(parameter.numel() for parameter in parameters.values())
    trained = sum(parameter.numel() for parameter in parameters.values() if parameter.requires_grad)
    yield f"parameters  {total:,}, {trained:,} of them trained"
    width = max(len(group.pattern) for group in prepared.groups)
    for group in prepared.groups:
        yield f"  {group.pattern:<{width}}  rate {group.learning_rate:<8g}  {group.num_parameters:,}"


def _describe_data(corpus: Corpus) -> Iterator[str]:
    plan = corpus.plan
    tokens = tokens_per_epoch(corpus)
    yield f"epoch       {plan.samples_per_epoch:,} samples, {sum(tokens):,.0f} tokens"
    width = max(len(stream.name) for stream in plan.streams)
    for stream, amount, num_tokens in zip(plan.streams, samples_per_epoch(plan.streams), tokens):
        longest = int(stream.tokens.max()) if len(stream.tokens) else 0
        yield (
            f"  {stream.name:<{width}}  {amount:,} samples of {len(stream.lengths):,}, {num_tokens:,.0f} tokens, "
            f"the longest has {longest:,}"
        )


def estimate_seconds(prepared: Prepared, num_processes: int) -> tuple[float, float]:
    """Seconds of all steps, and the operations a second of each GPU that they are counted with."""
    plan = prepared.corpus.plan
    per_epoch = sum(
        amount * float(stream.costs.mean()) if amount else 0.0
        for stream, amount in zip(plan.streams, samples_per_epoch(plan.streams))
    )
    rate = (peak_flops_per_second(_gpu_name()) or PEAK_FLOPS_PER_SECOND[ASSUMED_GPU]) * ASSUMED_UTILISATION
    seconds = per_epoch / plan.steps_per_epoch[0] * prepared.num_steps / rate / num_processes
    return seconds / plan.balance(num_processes).lockstep_efficiency, rate


def estimate_memory(prepared: Prepared, num_processes: int) -> Memory:
    """Bytes of one GPU at the end of a backward pass."""
    recipe, model = prepared.recipe, prepared.model
    sharded = recipe.parallel.kind == "fsdp"
    layers = {id(p) for layer in model.model.language_model.layers for p in layer.parameters()}
    parameters = list(model.parameters())
    trained = [p for p in parameters if p.requires_grad]
    shared_by = num_processes if sharded else 1
    item_bytes = 2 if recipe.precision == "bf16" else 4
    weights, gradients = _numbers(parameters), _numbers(trained)
    if sharded:  # the unit that is not a layer, and one layer; with their gradients, which are added up in fp32
        rest = [p for p in parameters if id(p) not in layers]
        layer = list(model.model.language_model.layers[0].parameters())
        gathered = item_bytes * _numbers(rest + layer) + (item_bytes + 4) * _numbers(
            [p for p in rest + layer if p.requires_grad]
        )
    else:  # autocast keeps a copy of what it converts
        gathered = item_bytes * weights if recipe.precision == "bf16" else 0
    return Memory(
        weights=4 * weights / shared_by,
        gradients=4 * gradients / shared_by,
        optimizer=8 * gradients / shared_by,
        gathered=gathered,
        activations=max(
            activation_bytes(model.config, row, recipe.activations, trained_parts(model), item_bytes)
            for row in _largest_rows(prepared.corpus)
        ),
    )


def activation_bytes(
    config: HourLlavaConfig, row: Row, mode: Checkpointing, trained: TrainedParts, item_bytes: int
) -> float:
    """Most bytes that a backward pass holds besides weights and their gradients.

    That is in the decoder's last layer, in MemAug's, or in the projector: what the forward pass has kept up to there,
    and the results and gradients of the layer that is computed again. Measured rows are met within a fifth.

    Args:
        config: of the model.
        row: its size.
        mode: which activations are kept.
        trained: which parts get gradients.
        item_bytes: of a number.
    """
    text, vision = config.text_config, config.vision_config
    width, num_heads = text.hidden_size, text.num_attention_heads
    group_width = (getattr(text, "num_key_value_heads", None) or num_heads) * (width // num_heads)
    num_blocks = config.memaug.num_blocks

    # Numbers of one token in one layer: all of them, and those that are kept.
    decoder_layer = 6 * width + 2 * group_width + 4 * text.intermediate_size
    memaug_block = (12 + 2 * config.memaug.mlp_ratio) * width + 2 * group_width
    tower_layer = 8 * vision.hidden_size + 2 * vision.intermediate_size
    kept_decoder, kept_memaug, kept_tower = {
        "none": (decoder_layer, memaug_block, tower_layer),
        "full": (width, width, vision.hidden_size),
        "selective": (2 * width, 3 * width, 2 * vision.hidden_size),
    }[mode]

    # A memory entry has its features, its projected token, and keys and values of all blocks, made once for each patch
    # and gathered.
    entry, keys_values = config.vision_feature_width + width, 2 * group_width * num_blocks
    memaug = row.tokens * num_blocks * kept_memaug if row.memory_entries else 0
    in_decoder = (
        row.tokens * (text.num_hidden_layers * kept_decoder + 2 * decoder_layer)
        + memaug
        + row.memory_entries * (entry + 2 * keys_values)
    )
    in_memaug = memaug + 2 * row.tokens * memaug_block + row.memory_entries * (entry + 3 * keys_values)
    in_projector = row.memory_entries * (entry + keys_values + 4 * width * trained.projector)

    patches = row.views * config.patch_grid**2
    tower = patches * (config.num_vision_layers * kept_tower + 2 * tower_layer) if trained.vision_tower else 0
    pixels = row.views * 3 * vision.image_size**2 * 4
    return float((max(in_decoder, in_memaug, in_projector) + tower) * item_bytes + pixels)


def _largest_rows(corpus: Corpus) -> set[Row]:
    """Sizes of the micro-batches of the plan's first steps."""
    config = corpus.encoder.processor.config
    entries, views = [], []
    for stream, opened in zip(corpus.plan.streams, corpus.streams):
        is_video, encoded = opened.kinds
        entries.append(memory_entries(stream.lengths, config, is_video=is_video))
        views.append(stream.lengths[:, 0] * ~encoded)
    return {
        Row(
            sum(draw.num_tokens for draw in micro_batch),
            sum(int(entries[draw.stream][draw.sample]) for draw in micro_batch),
            sum(int(views[draw.stream][draw.sample]) for draw in micro_batch),
        )
        for step in range(min(LOOKED_AT_STEPS, corpus.plan.num_steps))
        for micro_batch in corpus.plan.step(step)
    }


def _numbers(parameters: Any) -> int:
    return sum(parameter.numel() for parameter in parameters)


def _gpu_name() -> str:
    return torch.cuda.get_device_name() if torch.cuda.is_available() else ASSUMED_GPU


def _duration(seconds: float) -> str:
    for unit, length in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.0f} seconds"
