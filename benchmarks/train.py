"""Training on the stage-3 mixture: our batch plan against the released scheme, on the same GPUs.

    torchrun --standalone --nproc-per-node 2 benchmarks/train.py --model hourllava-7b --batches packed
    torchrun --standalone --nproc-per-node 2 benchmarks/train.py --model hourllava-7b --batches one-each

The whole trainer runs: FSDP2, fp32 weights and AdamW, bf16 computation, loader workers. Weights are random. Lengths are
those of `benchmarks/published_lengths.py`; features and pixels repeat one random frame. Both schemes train on
the same samples, those of the plan's first steps. `one-each` is the released scheme: every process takes one sample,
all wait for the longest, then all take the next.

Prints one line of figures for each step, then a table row: the mean over all steps except the first.
"""

import argparse
import dataclasses
import math
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args

import numpy as np
import torch
from transformers import TrainerCallback
from transformers.trainer_utils import SaveStrategy

from hourllava.data.batches.amounts import micro_batches_for
from hourllava.data.batches.cost import estimate_costs
from hourllava.data.batches.plan import BatchPlan, Draw, MicroBatch, PlanSettings
from hourllava.model.activation_checkpointing import Checkpointing, checkpoint_activations
from hourllava.model.config import HourLlavaConfig
from hourllava.model.head import IGNORED_LABEL
from hourllava.model.inputs import Sample
from hourllava.model.layout import image_layout, tiled_image_layout, video_layout
from hourllava.model.modeling import HourLlavaForConditionalGeneration
from hourllava.model.nano import nano_tokenizer
from hourllava.model.processor import HourLlavaProcessor
from hourllava.training.corpus import Corpus
from hourllava.training.groups import freeze_and_group
from hourllava.training.identity import Identity
from hourllava.training.meter import peak_flops_per_second
from hourllava.training.ranks import join_processes
from hourllava.training.recipe import Recipe
from hourllava.training.run import Prepared, training_arguments
from hourllava.training.trainer import HourLlavaTrainer
from published_lengths import IMAGE_SIZES, STAGE_3_SAMPLES, stage_3_streams

PUBLISHED_BATCH_SAMPLES = 128
NUM_SAMPLES = 20_000  # of the data that the plan draws from
MULTIPLE_OF = 8  # micro-batches a step, on any number of GPUs
STAGE_3_RATES = {
    "*": 2e-5,
    "model.vision_tower.*": 0.0,
    "model.multi_modal_projector.*": 1e-4,
    "model.image_newline": 1e-4,
    "model.memaug.*": 1e-4,
}


class SyntheticRows:
    """Shard rows of one stream: their lengths, and whether they are videos."""

    def __init__(self, lengths: np.ndarray, num_videos: int) -> None:
        self.lengths, self.num_videos = lengths, num_videos

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"lengths": self.lengths[index].tolist(), "is_video": index < self.num_videos}


class SyntheticEncoder:
    """Makes samples of the rows' lengths; half of the text is supervised."""

    def __init__(self, processor: HourLlavaProcessor) -> None:
        self.processor = processor
        config = processor.config
        self._sizes = {}
        for size in IMAGE_SIZES:
            layout = tiled_image_layout(*size, config)
            self._sizes[layout.num_patch_tokens // config.patch_grid**2, len(layout.kept_index)] = size

    def __call__(self, row: Mapping[str, Any], seed: int) -> tuple[Sample, ...]:
        config = self.processor.config
        (views, kept, text), layout, pixels, features = row["lengths"], None, None, None
        side = config.vision_config.image_size
        if row["is_video"]:
            layout = video_layout(views, config)
            frame = torch.randn(config.video_frame_tokens, config.vision_feature_width, dtype=torch.bfloat16)
            features = frame.expand(views, -1, -1)
        elif views:
            size = self._sizes.get((views, kept))
            layout = tiled_image_layout(*size, config) if size else image_layout(views, config)
            pixels = torch.randn(3, side, side).expand(views, -1, -1, -1)
        num_kept = 0 if layout is None else len(layout.kept_index)
        words = np.random.default_rng(seed).integers(100, 1000, text)
        ids = np.concatenate([np.full(num_kept, config.visual_token_id), words])
        labels = np.where(np.arange(len(ids)) < num_kept + text // 2, IGNORED_LABEL, ids)
        is_prompt_text = (labels == IGNORED_LABEL) & (ids != config.visual_token_id)
        return (Sample(ids, labels, is_prompt_text, layout, pixels, features),)


class OneEach:
    """The samples of a plan's steps, one for each process at a time, in random order."""

    def __init__(self, plan: BatchPlan, num_steps: int) -> None:
        self.plan, self.streams, self.settings = plan, plan.streams, plan.settings
        self.num_steps, self.samples_per_epoch = num_steps, plan.samples_per_epoch

    def fingerprint(self) -> str:
        return self.plan.fingerprint()

    def micro_batches_of_rank(self, world_size: int) -> int:
        return max(math.ceil(len(self._samples(step)) / world_size) for step in range(self.num_steps))

    def rank_step(self, number: int, rank: int, world_size: int) -> list[MicroBatch]:
        mine = [[draw] for draw in self._samples(number)[rank::world_size]]
        return mine + [[]] * (self.micro_batches_of_rank(world_size) - len(mine))

    def _samples(self, step: int) -> Sequence[Draw]:
        draws = [draw for micro_batch in self.plan.step(step) for draw in micro_batch]
        return [draws[k] for k in np.random.default_rng(step).permutation(len(draws))]


class StepTimer(TrainerCallback):
    """Measures the seconds of each step, with all GPU work complete."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
        self._mark()

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        start = self._start
        self._mark()
        self.seconds.append(self._start - start)

    def _mark(self) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self._start = time.perf_counter()


def build(options: argparse.Namespace, out: Path) -> HourLlavaTrainer:
    """The trainer of a run; weights are made on its device."""
    recipe = Recipe.model_validate(
        {
            "out": out,
            "start": {"preset": options.model, "tokenizer": "nano"},
            "data": {"streams": [{"folder": "made up"}], "workers": options.workers},
            "batch": {"token_budget": options.token_budget, "samples": PUBLISHED_BATCH_SAMPLES},
            "learning_rates": STAGE_3_RATES,
            "schedule": {"max_steps": options.steps},
            "activations": options.activations,
            "checkpoints": {"every_steps": 10**6},
            "log": {"every_steps": 1, "to": []},
        }
    )
    join_processes()
    config = HourLlavaConfig.preset(options.model)
    with torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu"):
        model = HourLlavaForConditionalGeneration(config)
    groups = freeze_and_group(model, recipe.learning_rates)
    checkpoint_activations(model, recipe.activations)

    streams, rows = [], []
    for stream, kind in zip(stage_3_streams(NUM_SAMPLES, config), ("short video", "long video")):
        num_videos = round(STAGE_3_SAMPLES[kind] * NUM_SAMPLES / sum(STAGE_3_SAMPLES.values()))
        is_video = np.arange(len(stream.lengths)) < num_videos
        costs = estimate_costs(stream.lengths, config, is_video=is_video, encoded=is_video, checkpointing=False)
        streams.append(dataclasses.replace(stream, costs=costs.total))
        rows.append(SimpleNamespace(dataset=SyntheticRows(stream.lengths, num_videos)))
    size = micro_batches_for(
        streams, options.token_budget, mean_samples=PUBLISHED_BATCH_SAMPLES, multiple_of=MULTIPLE_OF
    )
    plan: Any = BatchPlan(streams, PlanSettings(options.token_budget, size))
    if options.batches == "one-each":
        plan = OneEach(plan, options.steps)
    encoder: Any = SyntheticEncoder(HourLlavaProcessor(nano_tokenizer(), config))
    corpus = Corpus(plan, rows, encoder, recipe.data)  # type: ignore[arg-type]
    identity = Identity([], {}, None, [], None)  # this run is never resumed
    arguments = training_arguments(recipe, Prepared(recipe, model, groups, corpus, identity, None, None))
    arguments.save_strategy = SaveStrategy.NO  # the last step's checkpoint: 80 GB
    return HourLlavaTrainer(model, arguments, recipe, corpus, groups, identity)


def print_row(options: argparse.Namespace, trainer: HourLlavaTrainer, seconds_of_steps: Sequence[float]) -> None:
    """The table's header and row."""
    counted = seconds_of_steps[1:] or seconds_of_steps
    ranks = trainer.args.world_size
    samples = tokens = flops = 0.0
    for step in range(options.steps)[-len(counted) :]:
        for rank in range(ranks):
            for micro_batch in trainer.corpus.plan.rank_step(step, rank, ranks):
                samples += len(micro_batch)
                tokens += sum(draw.num_tokens for draw in micro_batch)
                flops += trainer.corpus.flops_of(micro_batch)
    seconds = sum(counted)
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    peak = peak_flops_per_second(device)
    row = {
        "model": options.model,
        "GPUs": f"{ranks} x {device}",
        "batches": options.batches,
        "budget": options.token_budget,
        "steps": len(counted),
        "seconds a step": f"{seconds / len(counted):.1f}",
        "samples/s": f"{samples / seconds:.2f}",
        "tokens/s": f"{tokens / seconds:,.0f}",
        "MFU": f"{flops / seconds / ranks / peak:.1%}" if peak else "-",
        "peak GB": f"{torch.cuda.max_memory_allocated() / 1e9:.1f}" if torch.cuda.is_available() else "-",
    }
    print("| " + " | ".join(row) + " |")
    print("| " + " | ".join(map(str, row.values())) + " |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="hourllava-7b", help="a preset")
    parser.add_argument("--batches", choices=("packed", "one-each"), default="packed")
    parser.add_argument("--token-budget", type=int, default=32768)
    parser.add_argument("--steps", type=int, default=3, help="the first of several is not counted")
    parser.add_argument("--workers", type=int, default=8, help="loader processes of each GPU")
    parser.add_argument("--activations", default="selective", choices=get_args(Checkpointing))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as out:
        trainer = build(options, Path(out))
        timer = StepTimer()
        trainer.add_callback(timer)
        trainer.resume_or_start(None)
        if not trainer.is_world_process_zero():
            return
        print_row(options, trainer, timer.seconds)


if __name__ == "__main__":
    main()
