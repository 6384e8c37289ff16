"""The data of a run: shard folders with their lengths and costs, the batch plan over them, and a loader for a rank."""

import dataclasses
import zlib
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import numpy as np
import torch
from numpy.typing import NDArray

from hourllava.data.cost import TrainedParts, estimate_costs, questions_apart
from hourllava.data.lengths import stream_lengths
from hourllava.data.loader import PlannedLoader, planned_loader
from hourllava.data.mds_reader import MdsDataset
from hourllava.data.plan import BatchPlan, MicroBatch, PlanSettings
from hourllava.data.rows import FEATURE_SUFFIXES, RowEncoder
from hourllava.data.streams import Stream, micro_batches_for
from hourllava.model.config import HourLlavaConfig
from hourllava.model.processor import HourLlavaProcessor, ModelInputs, Sample
from hourllava.training.answers import answer_weights, with_answer_noise
from hourllava.training.recipe import BatchRecipe, DataRecipe, LabelWeights

MODALITIES = ("text", "image", "video")
WEIGHT_POWERS: dict[LabelWeights, float] = {"tokens": 0.0, "square": 0.5, "answers": 1.0}
MODALITIES_KEY = "modalities"
"""Of a batch: [samples] which of `MODALITIES` each is."""


@dataclasses.dataclass(frozen=True)
class Corpus:
    """What a run reads, in the order of the plan's streams.

    Attributes:
        plan: of the batches.
        datasets: rows of each stream.
        encoder: rows to samples.
        recipe: how it is read.
    """

    plan: BatchPlan
    datasets: list[MdsDataset]
    encoder: RowEncoder
    recipe: DataRecipe

    def loader(
        self,
        ledger_folder: Path,
        *,
        rank: int = 0,
        world_size: int = 1,
        first_step: int = 0,
    ) -> PlannedLoader:
        """This rank's packed micro-batches from a step on."""
        return planned_loader(
            self.plan,
            self.datasets,
            self.encoder,
            _Collate(self.encoder.processor, self.recipe),
            ledger_folder=ledger_folder,
            rank=rank,
            world_size=world_size,
            first_step=first_step,
            num_workers=self.recipe.workers,
            prefetch_factor=self.recipe.prefetch,
            max_failed_share=self.recipe.max_failed_share,
        )

    def flops_of(self, micro_batch: MicroBatch) -> float:
        """Useful operations of a micro-batch, forward and backward."""
        return float(sum(self.plan.streams[draw.stream].costs[draw.sample] for draw in micro_batch))

    def views_of(self, micro_batch: MicroBatch) -> int:
        """Frames and images that a micro-batch looks at."""
        return int(sum(self.plan.streams[draw.stream].lengths[draw.sample, 0] for draw in micro_batch))

    def describe(self, micro_batch: MicroBatch, *, most: int = 8) -> str:
        """The samples of a micro-batch by stream, number and id, for messages."""
        names = []
        for draw in micro_batch[:most]:
            text = self.datasets[draw.stream].row(draw.sample, ["text"])["text"]
            names.append(f"{self.plan.streams[draw.stream].name}[{draw.sample}] (id {text.get('id')})")
        return ", ".join(names) + (f" and {len(micro_batch) - most} more" if len(micro_batch) > most else "")


class _Collate:
    """Packs samples, weighs their answers, puts noise into them and says what each of them looks at."""

    def __init__(self, processor: HourLlavaProcessor, recipe: DataRecipe) -> None:
        self.processor, self.recipe = processor, recipe

    def __call__(self, samples: Sequence[Sample]) -> ModelInputs:
        inputs = self.processor.collate_packed(samples)
        ids_1L, labels_1L = inputs["input_ids"], inputs["labels"]
        if self.recipe.label_weights != "tokens":
            inputs["label_weights"] = answer_weights(labels_1L, WEIGHT_POWERS[self.recipe.label_weights])
        if self.recipe.answer_noise:
            seed = zlib.crc32(ids_1L.numpy())  # a row has its noise, whoever reads it and however often
            inputs["input_ids"] = with_answer_noise(ids_1L, labels_1L, self.recipe.answer_noise, seed)
        seen = ["text" if sample.layout is None else sample.layout.modality for sample in samples]
        inputs[MODALITIES_KEY] = torch.tensor([MODALITIES.index(modality) for modality in seen])
        return inputs


def build_corpus(
    data: DataRecipe,
    batch: BatchRecipe,
    processor: HourLlavaProcessor,
    config: HourLlavaConfig,
    *,
    trained: TrainedParts,
    epochs: int,
    max_steps: int | None = None,
    seed: int,
    cache: Path,
) -> Corpus:
    """Open the folders, measure what has not been measured, and plan.

    Args:
        data, batch: of the recipe, or of its validation.
        processor, config: of the model.
        trained: which parts get gradients, for the costs.
        epochs: the plan covers.
        max_steps: it need not go on after.
        seed: of the plan.
        cache: folder for lengths that have to be measured.

    Raises:
        DataError: a folder or a shard is missing or damaged.
        ConfigError: a sample is longer than the token budget, or amounts contradict each other.
    """
    encoder = RowEncoder(processor, data.media, label_policy=data.labels, questions=data.questions)
    datasets, planned = [], []
    for stream in data.streams:
        dataset = MdsDataset(stream.folder)
        name = stream.name or PurePosixPath(stream.folder).name
        lengths = stream_lengths(dataset, encoder, cache, num_processes=max(data.workers, 1))
        is_video, encoded = video_rows(dataset)
        # What is computed again in the backward pass is not counted: how that is done must not change the order.
        apart = questions_apart(lengths, config, is_video=is_video) if data.questions == "segments" else 1
        costs = estimate_costs(
            lengths,
            config,
            is_video=is_video,
            encoded=encoded,
            num_questions=apart,
            trained=trained,
            checkpointing=False,
        )
        amounts = {key: getattr(stream, key) for key in ("proportion", "repeat", "choose")}
        planned.append(Stream(name, lengths, costs.total, **amounts))
        datasets.append(dataset)
    micro_batches = micro_batches_for(
        planned,
        batch.token_budget,
        mean_samples=batch.samples,
        mean_tokens=batch.tokens,
        multiple_of=batch.multiple_of,
    )
    settings = PlanSettings(batch.token_budget, micro_batches, seed, epochs, data.batching)
    return Corpus(BatchPlan(planned, settings, max_steps=max_steps), datasets, encoder, data)


def video_rows(dataset: MdsDataset) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Which rows [N] are videos, and which [N] of them come as features, judged by the first."""
    is_video = dataset.has_column("video")
    first = int(is_video.argmax())
    encoded = bool(is_video.any()) and dataset.row(first, ["video"])["video"].endswith(FEATURE_SUFFIXES)
    return is_video, is_video & encoded
