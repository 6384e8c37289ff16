"""One forward and backward pass of stage-3 training: time, rate and memory.

    python benchmarks/train_step.py                                       # 3B and 7B, an hour of video, a mixture
    python benchmarks/train_step.py --model hourllava-3b --minutes 10 60 180 --mixture 0     # what fits
    python benchmarks/train_step.py --model hourllava-nano --minutes 2 --device cpu          # to try the script

Weights (bf16) and features are random; model, kernels and shapes are real. As in stage 3, the vision tower is frozen
and all other weights are trained; there is no optimizer. A video comes as features at 1 FPS, with 300 tokens of text,
100 of them supervised. `mixture` is the mean of several micro-batches of at most 32,768 tokens of the batch plan, with
lengths like the published ones (`benchmarks/published_lengths.py`): texts, images as pixels, short and long
videos as features. Columns:

    forward ms, backward ms, step ms    medians
    tokens, frames    tokens of the decoder's sequence, frames of video
    TFLOP             useful operations of the step (`hourllava.data.batches.cost` without checkpointing)
    peak GB           peak of allocated memory, with new gradients
    accumulating GB   the same, with gradients added to those of an earlier step
    tokens/s          tokens per second of step time
    MFU %             useful operations as a share of 989 TFLOP/s, the dense bf16 rate of an H100 in its data sheet

`--profile` also prints the kernels of a step, by kind.
"""

import argparse
import dataclasses
import gc
import re
import statistics
import time
from collections import defaultdict
from collections.abc import Iterator
from functools import partial
from typing import Any, get_args

import numpy as np
import torch
from torch.profiler import ProfilerActivity, profile
from transformers.modeling_outputs import BaseModelOutputWithPooling

from first_token import random_model
from hourllava.data.batches.cost import Lengths, estimate_costs
from hourllava.data.batches.plan import BatchPlan, PlanSettings
from hourllava.model.activation_checkpointing import Checkpointing, checkpoint_activations
from hourllava.model.attention import Segments
from hourllava.model.batch import VisualSample, batch_visuals
from hourllava.model.config import HourLlavaConfig
from hourllava.model.head import IGNORED_LABEL
from hourllava.model.layout import (
    VisualLayout,
    image_layout,
    num_kept_video_tokens,
    tiled_image_layout,
    video_layout,
)
from hourllava.model.modeling import HourLlavaForConditionalGeneration
from published_lengths import IMAGE_SIZES, STAGE_3_SAMPLES, stage_3_streams

PEAK_FLOPS = 989e12
TEXT_TOKENS, SUPERVISED_SHARE = 300, 1 / 3
MIXTURE_SAMPLES, MIXTURE_TOKEN_BUDGET, MIXTURE_SUPERVISED_SHARE = 30_000, 32768, 0.5
FIRST_TEXT_TOKENS = 14  # of a conversation, before its video or image
REPEATS = 5

KERNELS = {
    "attention, backward": r"bprop|bwd|backward.*(attention|fmha)",
    "attention, forward": r"fprop|flash_fwd|fmha|attention",
    "matrix products": r"gemm|nvjet|cutlass|cublas|xmma",
    "gather and scatter": r"index|scatter|gather|sort|Sort|radix|Radix|embedding",
    "copies": r"[Mm]emcpy|[Mm]emset|copy|Cat|direct_copy",
    "elementwise and norms": r"",
}


@dataclasses.dataclass(frozen=True)
class Batch:
    """Arguments of the model, and their sizes."""

    inputs: dict[str, Any]
    num_tokens: int
    num_frames: int
    flops: float


def make_batch(
    lengths: Lengths, is_video: np.ndarray, supervised_share: float, config: HourLlavaConfig, device: torch.device
) -> Batch:
    """Packed samples of these lengths, with random content."""
    rng = np.random.default_rng(0)
    ids, labels, visuals = [], [], []
    for (views, kept, text), video in zip(lengths.tolist(), is_video):
        layout = sample_layout(views, kept, video, config)
        is_visual = np.zeros(kept + text, bool)
        is_visual[FIRST_TEXT_TOKENS : FIRST_TEXT_TOKENS + kept] = True
        sample_ids = rng.integers(0, config.visual_token_id, kept + text)
        sample_ids[is_visual] = config.visual_token_id
        is_supervised = np.arange(kept + text) >= kept + round(text * (1 - supervised_share))
        if layout is not None:
            first_token = sum(map(len, ids))
            visuals.append(VisualSample(layout, first_token, is_visual, ~is_visual & ~is_supervised))
        ids.append(sample_ids)
        labels.append(np.where(is_supervised, sample_ids, IGNORED_LABEL))
    size, num_frames = config.vision_config.image_size, int(lengths[is_video, 0].sum())
    num_image_views = int(lengths[~is_video, 0].sum())
    batch = batch_visuals(visuals)
    features = torch.randn(num_frames, config.video_frame_tokens, config.vision_feature_width, device=device).bfloat16()
    pixels = torch.randn(num_image_views, 3, size, size, device=device).bfloat16()
    costs = estimate_costs(
        lengths, config, is_video=is_video, encoded=is_video, checkpointing=False, supervised_share=supervised_share
    )
    inputs = {
        "input_ids": torch.from_numpy(np.concatenate(ids))[None].to(device),
        "labels": torch.from_numpy(np.concatenate(labels))[None].to(device),
        "segments": Segments(tuple(map(len, ids))),
        "visuals": batch and batch.to(device),
        "pixel_values": pixels if num_image_views else None,
        "mm_encoder_outputs": {"video": BaseModelOutputWithPooling(pooler_output=features)} if num_frames else None,
    }
    # The head always computes its logits twice: a quarter of its estimated cost is recomputation.
    return Batch(inputs, sum(map(len, ids)), num_frames, float((costs.total - costs.head / 4).sum()))


def sample_layout(views: int, kept: int, is_video: bool, config: HourLlavaConfig) -> VisualLayout | None:
    """A layout of these lengths; for a single image, of the first usual size that has them."""
    if not views:
        return None
    if is_video:
        return video_layout(views, config)
    tiled = (tiled_image_layout(width, height, config) for width, height in IMAGE_SIZES)
    lengths_of = {(layout.num_patch_tokens // config.patch_grid**2, len(layout.kept_index)): layout for layout in tiled}
    return lengths_of.get((views, kept)) or image_layout(views, config)


def video_batches(minutes: int, config: HourLlavaConfig, device: torch.device) -> Iterator[Batch]:
    """One video of this length."""
    frames = 60 * minutes
    lengths = np.array([[frames, num_kept_video_tokens(frames, config), TEXT_TOKENS]], np.int32)
    yield make_batch(lengths, np.array([True]), SUPERVISED_SHARE, config, device)


def mixture_batches(number: int, config: HourLlavaConfig, device: torch.device) -> Iterator[Batch]:
    """Micro-batches of the plan, from steps spread over the epoch."""
    streams = stage_3_streams(MIXTURE_SAMPLES, config)
    scale = MIXTURE_SAMPLES / sum(STAGE_3_SAMPLES.values())
    num_videos = [round(STAGE_3_SAMPLES[kind] * scale) for kind in ("short video", "long video")]
    plan = BatchPlan(streams, PlanSettings(MIXTURE_TOKEN_BUDGET))
    for step in np.linspace(0, plan.num_steps - 1, number, dtype=int).tolist():
        draws = plan.step(step)[step % plan.settings.micro_batches_per_step]
        lengths = np.stack([streams[draw.stream].lengths[draw.sample] for draw in draws])
        is_video = np.array([draw.sample < num_videos[draw.stream] for draw in draws])
        yield make_batch(lengths, is_video, MIXTURE_SUPERVISED_SHARE, config, device)


def now(device: torch.device) -> float:
    """Host time in seconds, once all work on the device is complete."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def peak_gb(device: torch.device) -> float:
    """Peak of allocated memory since the statistics were reset."""
    return torch.cuda.max_memory_allocated(device) / 1e9 if device.type == "cuda" else float("nan")


def step(model: HourLlavaForConditionalGeneration, batch: Batch) -> tuple[float, float]:
    """Seconds of a forward and of a backward pass."""
    start = now(model.device)
    loss = model(**batch.inputs).loss
    middle = now(model.device)
    loss.backward()
    end = now(model.device)
    assert torch.isfinite(loss)
    return middle - start, end - middle


def measure(model: HourLlavaForConditionalGeneration, batch: Batch, repeats: int) -> dict[str, float]:
    """One table row."""
    model.zero_grad()
    step(model, batch)  # warm up
    if model.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    seconds = []
    for _ in range(repeats):
        model.zero_grad()
        seconds.append(step(model, batch))
    peak = peak_gb(model.device)
    step(model, batch)
    forward, backward = (statistics.median(part) for part in zip(*seconds))
    total = statistics.median(sum(parts) for parts in seconds)
    return {
        "forward ms": 1e3 * forward,
        "backward ms": 1e3 * backward,
        "step ms": 1e3 * total,
        "tokens": batch.num_tokens,
        "frames": batch.num_frames,
        "TFLOP": batch.flops / 1e12,
        "peak GB": peak,
        "accumulating GB": peak_gb(model.device),
    }


def kernel_table(model: HourLlavaForConditionalGeneration, batch: Batch) -> str:
    """Milliseconds on the device by kind of kernel, and the longest kernels."""
    model.zero_grad()
    activity = ProfilerActivity.CUDA if model.device.type == "cuda" else ProfilerActivity.CPU
    with profile(activities=[activity], acc_events=True) as recorded:
        step(model, batch)
    kinds: dict[str, list[float]] = defaultdict(lambda: [0.0, 0])
    kernels = sorted(recorded.key_averages(), key=lambda kernel: -kernel.self_device_time_total)
    for kernel in kernels:
        kind = next(kind for kind, pattern in KERNELS.items() if re.search(pattern, kernel.key))
        kinds[kind][0] += kernel.self_device_time_total / 1e3
        kinds[kind][1] += kernel.count
    lines = [f"    {kind:<24}{kinds[kind][0]:>10.1f} ms{kinds[kind][1]:>8} kernels" for kind in KERNELS]
    lines += [f"      {k.self_device_time_total / 1e3:>8.1f} ms {k.count:>6} x {k.key[:110]}" for k in kernels[:16]]
    return "\n".join(lines)


def summary(rows: list[dict[str, float]]) -> dict[str, float]:
    """One table row for several batches: means of times, work and rates, and the largest memory."""
    row = {name: statistics.mean(row[name] for row in rows) for name in rows[0]}
    for name in ("peak GB", "accumulating GB"):
        row[name] = max(row[name] for row in rows)
    seconds = row["step ms"] / 1e3
    rates = {"tokens/s": row["tokens"] / seconds, "MFU %": 100 * row["TFLOP"] * 1e12 / seconds / PEAK_FLOPS}
    return {**row, **rates}


def print_row(names: tuple[str, str, str], values: dict[str, Any], form: str) -> None:
    name, kind, mode = names
    cells = "".join(f"{value:>{max(len(column), 7) + 2}{form}}" for column, value in values.items())
    print(f"{name:<15}{kind:<9}{mode:<10}{cells}", flush=True)


def measure_model(name: str, options: argparse.Namespace) -> None:
    """Print all table rows of a model; a case that does not fit into memory is skipped with a line."""
    device = torch.device(options.device)
    torch.manual_seed(0)
    model = random_model(name, device).train()
    model.model.vision_tower.requires_grad_(False)
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    weights_gb = sum(parameter.nbytes for parameter in model.parameters()) / 1e9
    print(f"{name}: {trained / 1e9:.3f} billion trained parameters, all weights {weights_gb:.1f} GB", flush=True)
    # Batches are made one by one when they are measured: the features of three hours have 1.6 GB.
    kinds = {f"{minutes} min": partial(video_batches, minutes) for minutes in options.minutes}
    if options.mixture:
        kinds["mixture"] = partial(mixture_batches, options.mixture)
    has_header = False
    for kind, batches in kinds.items():
        for mode in options.mode:
            checkpoint_activations(model, mode)
            try:
                row = summary([measure(model, batch, options.repeats) for batch in batches(model.config, device)])
                if not has_header:
                    print_row(("", "", ""), {column: column for column in row}, "")
                    has_header = True
                print_row((name, kind, mode), row, ".1f")
                if options.profile:
                    print(kernel_table(model, next(batches(model.config, device))), flush=True)
            except torch.OutOfMemoryError:
                print(f"{name:<15}{kind:<9}{mode:<10}  does not fit", flush=True)
            model.zero_grad()
            gc.collect()
            if device.type == "cuda":
                torch.cuda.empty_cache()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", nargs="*", default=["hourllava-3b", "hourllava-7b"], help="presets")
    parser.add_argument("--minutes", nargs="*", type=int, default=[60], help="lengths of videos")
    parser.add_argument("--mixture", type=int, default=4, help="micro-batches of the mixture to average; 0 for none")
    parser.add_argument("--mode", nargs="*", default=["full", "selective"], choices=get_args(Checkpointing))
    parser.add_argument("--repeats", type=int, default=REPEATS)
    parser.add_argument("--profile", action="store_true", help="also print the kernels of a step")
    parser.add_argument("--device", default="cuda")
    options = parser.parse_args()
    machine = torch.cuda.get_device_name() if options.device == "cuda" else "CPU"
    print(
        f"{machine}, torch {torch.__version__}, bf16, random weights, no optimizer; MFU of {PEAK_FLOPS / 1e12} TFLOP/s"
    )
    for name in options.model:
        measure_model(name, options)
        gc.collect()


if __name__ == "__main__":
    main()
