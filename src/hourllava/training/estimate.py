"""The dry run: parameters, samples and steps of a run, and estimates of its memory and time.

The memory of one GPU has three parts:

- fp32 weights, gradients and AdamW's two averages, sharded by FSDP2;
- bf16 copies that FSDP2 gathers to compute: one decoder layer, and everything outside the decoder's layers (see
  `hourllava.training.run`);
- activations, for the largest micro-batches of the plan's first steps.

Measured figures stand in docs/benchmarks.md.
"""

import dataclasses
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch

from hourllava.data.batches.amounts import samples_per_epoch
from hourllava.data.batches.cost import TrainedParts, kept_again, lengths_of_one, memory_entries
from hourllava.model.activation_checkpointing import Checkpointing
from hourllava.model.config import HourLlavaConfig
from hourllava.training.corpus import Corpus, batch_warnings, num_questions, tokens_per_epoch
from hourllava.training.meter import PEAK_FLOPS_PER_SECOND, peak_flops_per_second
from hourllava.training.run import Prepared, trained_parts

ASSUMED_GPU = "H100"
ASSUMED_UTILISATION = 0.4
"""Assumed share of the GPU's peak rate that useful operations reach."""

NUM_SEARCHED_STEPS = 16
"""How many steps of the plan are searched for the largest micro-batch."""


class MicroBatchSize(NamedTuple):
    """Decoder tokens, memory entries, and views to encode of a micro-batch.

    `kept_again` are those of the tokens that MemAug leaves out, see `hourllava.data.batches.cost.kept_again`.
    """

    tokens: int
    memory_entries: int
    views: int
    kept_again: int = 0


@dataclasses.dataclass(frozen=True)
class GpuMemory:
    """Memory of one GPU in bytes."""

    weights: float
    gradients: float
    optimizer: float
    gathered: float
    activations: float

    @property
    def total(self) -> float:
        """Sum of all parts."""
        return self.weights + self.gradients + self.optimizer + self.gathered + self.activations


def describe_run(prepared: Prepared, num_processes: int) -> Iterator[str]:
    """Lines that describe a run on this many processes.

    Args:
        prepared: the run; its model may be on the meta device.
        num_processes: number of GPUs on all machines together.

    Raises:
        ConfigError: the micro-batches of a step cannot be divided among so many processes.
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
        f"balance     {num_processes} processes, {plan.micro_batches_of_rank(num_processes)} micro-batches each: "
        f"{balance.fill:.1%} full, processes wait {1 - balance.lockstep_efficiency:.1%} of the time for each other"
    )
    memory = estimate_memory(prepared, num_processes)
    parts = ", ".join(f"{field.name} {getattr(memory, field.name) / 1e9:.2f}" for field in dataclasses.fields(memory))
    yield f"memory      about {memory.total / 1e9:.2f} GB of each GPU (estimated): {parts}"
    seconds, rate = estimate_seconds(prepared, num_processes)
    yield (
        f"time        about {_duration(seconds)} on {num_processes} x {_gpu_name()} (estimated, at {rate / 1e12:.0f} "
        f"TFLOP/s each, {ASSUMED_UTILISATION:.0%} of the peak)"
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
            f"the longest sample has {longest:,}"
        )


def estimate_seconds(prepared: Prepared, num_processes: int) -> tuple[float, float]:
    """Seconds of the whole run, and the assumed operations per second of each GPU."""
    plan = prepared.corpus.plan
    per_epoch = sum(
        amount * float(stream.costs.mean()) if amount else 0.0
        for stream, amount in zip(plan.streams, samples_per_epoch(plan.streams))
    )
    rate = (peak_flops_per_second(_gpu_name()) or PEAK_FLOPS_PER_SECOND[ASSUMED_GPU]) * ASSUMED_UTILISATION
    seconds = per_epoch / plan.steps_per_epoch[0] * prepared.num_steps / rate / num_processes
    return seconds / plan.balance(num_processes).lockstep_efficiency, rate


def estimate_memory(prepared: Prepared, num_processes: int) -> GpuMemory:
    """Bytes of one GPU at the end of a backward pass."""
    recipe, model = prepared.recipe, prepared.model
    sharded = recipe.parallel.kind == "fsdp"
    layers = {id(p) for layer in model.model.language_model.layers for p in layer.parameters()}
    parameters = list(model.parameters())
    trained = [p for p in parameters if p.requires_grad]
    shared_by = num_processes if sharded else 1
    item_bytes = 2 if recipe.precision == "bf16" else 4
    weights, gradients = _numbers(parameters), _numbers(trained)
    if sharded:  # one layer and the unit outside the layers, with their gradients, which are summed in fp32
        rest = [p for p in parameters if id(p) not in layers]
        layer = list(model.model.language_model.layers[0].parameters())
        gathered = item_bytes * _numbers(rest + layer) + (item_bytes + 4) * _numbers(
            [p for p in rest + layer if p.requires_grad]
        )
    else:  # autocast keeps a bf16 copy of every weight
        gathered = item_bytes * weights if recipe.precision == "bf16" else 0
    return GpuMemory(
        weights=4 * weights / shared_by,
        gradients=4 * gradients / shared_by,
        optimizer=8 * gradients / shared_by,
        gathered=gathered,
        activations=max(
            activation_bytes(model.config, size, recipe.activations, trained_parts(model), item_bytes)
            for size in _first_sizes(prepared.corpus)
        ),
    )


def activation_bytes(
    config: HourLlavaConfig, size: MicroBatchSize, mode: Checkpointing, trained: TrainedParts, item_bytes: int
) -> float:
    """Peak bytes of a backward pass, without weights and their gradients.

    The peak is in the decoder's last layer, in MemAug's last block, or in the projector. There, memory holds what the
    forward pass kept, and the results and gradients of the layer that is recomputed. Within 20 % of measurements.

    Args:
        config: the model's configuration.
        size: the size of the micro-batch.
        mode: which activations are kept.
        trained: which parts get gradients.
        item_bytes: bytes of one number.
    """
    text, vision = config.text_config, config.vision_config
    width, num_heads = text.hidden_size, text.num_attention_heads
    group_width = (getattr(text, "num_key_value_heads", None) or num_heads) * (width // num_heads)
    num_blocks = config.memaug.num_blocks

    # Numbers per token in one layer: all of them, then those that are kept.
    decoder_layer = 6 * width + 2 * group_width + 4 * text.intermediate_size
    memaug_block = (12 + 2 * config.memaug.mlp_ratio) * width + 2 * group_width
    tower_layer = 8 * vision.hidden_size + 2 * vision.intermediate_size
    kept_decoder, kept_memaug, kept_tower = {
        "none": (decoder_layer, memaug_block, tower_layer),
        "full": (width, width, vision.hidden_size),
        "selective": (2 * width, 3 * width, 2 * vision.hidden_size),
    }[mode]

    # A memory entry has its features, its projected token, and keys and values for all blocks. Keys and values are
    # made once for each patch and then gathered.
    entry, keys_values = config.vision_feature_width + width, 2 * group_width * num_blocks
    queries = size.tokens - size.kept_again
    memaug = queries * num_blocks * kept_memaug if size.memory_entries else 0
    in_decoder = (
        size.tokens * (text.num_hidden_layers * kept_decoder + 2 * decoder_layer)
        + memaug
        + size.memory_entries * (entry + 2 * keys_values)
    )
    in_memaug = memaug + 2 * queries * memaug_block + size.memory_entries * (entry + 3 * keys_values)
    in_projector = size.memory_entries * (entry + keys_values + 4 * width * trained.projector)

    patches = size.views * config.patch_grid**2
    tower = patches * (config.num_vision_layers * kept_tower + 2 * tower_layer) if trained.vision_tower else 0
    pixels = size.views * 3 * vision.image_size**2 * 4
    return float((max(in_decoder, in_memaug, in_projector) + tower) * item_bytes + pixels)


def _first_sizes(corpus: Corpus) -> set[MicroBatchSize]:
    """Sizes of the micro-batches in the plan's first steps."""
    config = corpus.encoder.processor.config
    entries, views, again = [], [], []
    for stream, opened in zip(corpus.plan.streams, corpus.streams):
        is_video, encoded = opened.kinds
        questions = num_questions(corpus.recipe, stream.lengths, config, is_video)
        entries.append(memory_entries(lengths_of_one(stream.lengths, questions), config, is_video=is_video))
        again.append(kept_again(stream.lengths, config, questions))
        views.append(stream.lengths[:, 0] * ~encoded)
    return {
        MicroBatchSize(
            sum(draw.num_tokens for draw in micro_batch),
            sum(int(entries[draw.stream][draw.sample]) for draw in micro_batch),
            sum(int(views[draw.stream][draw.sample]) for draw in micro_batch),
            sum(int(again[draw.stream][draw.sample]) for draw in micro_batch),
        )
        for step in range(min(NUM_SEARCHED_STEPS, corpus.plan.num_steps))
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
