"""The data of a run: streams of shards with lengths and costs, the batch plan over them, and a loader for each rank."""

import dataclasses
import hashlib
import logging
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from hourllava.data.batches.amounts import Stream, micro_batches_for, row_tokens_for, samples_per_epoch
from hourllava.data.batches.cost import Lengths, TrainedParts, estimate_costs, questions_apart
from hourllava.data.batches.lengths import UNKNOWN, stream_lengths
from hourllava.data.batches.loader import Allowance, PlannedLoader, planned_loader
from hourllava.data.batches.plan import BatchPlan, MicroBatch, PlanSettings
from hourllava.data.batches.samples import FEATURE_SUFFIXES, RowEncoder
from hourllava.data.features.check import refuse_other, stored_encoder
from hourllava.data.mds.reader import MdsDataset
from hourllava.data.mds.remote import is_remote
from hourllava.data.records.media import media_path
from hourllava.errors import ConfigError, DataError, HourLlavaError, MemoryFileError
from hourllava.inference.memories.encoder import EncoderIdentity
from hourllava.model.config import HourLlavaConfig
from hourllava.model.inputs import ModelInputs, Sample
from hourllava.model.processor import HourLlavaProcessor
from hourllava.training.answer_tokens import answer_weights, with_answer_noise
from hourllava.training.recipe import BatchRecipe, DataRecipe, LabelWeights, StreamRecipe

MODALITIES = ("text", "image", "video")
WEIGHT_POWERS: dict[LabelWeights, float] = {"tokens": 0.0, "square": 0.5, "answers": 1.0}
MODALITIES_KEY = "modalities"
"""Key of a batch: [samples] the index of each sample's modality in `MODALITIES`."""
SKIPPED_KEY = "skipped"
"""Key of a batch: [2] the number of failed samples, and of samples without a supervised token."""

_MAX_HASHED_ROWS = 10_000
_NUM_CHECKED_FILES = 16
_TOO_MANY = 2.0
"""Warn from this multiple of the requested step size on."""

logger = logging.getLogger(__name__)


class RowKinds(NamedTuple):
    """[N] whether each shard row is a video, and whether that video comes as features."""

    is_video: NDArray[np.bool_]
    encoded: NDArray[np.bool_]


@dataclasses.dataclass(frozen=True)
class OpenStream:
    """A stream with its open shards.

    Attributes:
        recipe: the stream's section of the recipe.
        dataset: the shard rows.
        kinds: what each shard row holds.
    """

    recipe: StreamRecipe
    dataset: MdsDataset
    kinds: RowKinds

    @property
    def name(self) -> str:
        """Name for messages."""
        return self.recipe.name or PurePosixPath(self.recipe.folder).name

    def content_digest(self) -> str:
        """Digest of the shard rows, wherever they lie. Shards may lack hashes, so texts of local shards count too."""
        digest = hashlib.sha256(self.dataset.fingerprint().encode())
        if not is_remote(self.recipe.folder):
            for number in _evenly(np.arange(len(self.dataset)), _MAX_HASHED_ROWS):
                try:
                    digest.update(self.dataset.raw(number, ["text"])["text"])
                except DataError:  # damage does not stop a run, and it identifies the data as well as the text would
                    digest.update(b"damaged")
        return digest.hexdigest()


@dataclasses.dataclass(frozen=True)
class Corpus:
    """What a run reads, in the order of the plan's streams.

    Attributes:
        plan: the batch plan.
        streams: the open streams.
        encoder: makes samples of shard rows.
        recipe: the data section of the recipe.
    """

    plan: BatchPlan
    streams: list[OpenStream]
    encoder: RowEncoder
    recipe: DataRecipe

    @property
    def datasets(self) -> list[MdsDataset]:
        """The shard rows of each stream."""
        return [stream.dataset for stream in self.streams]

    @property
    def allowance(self) -> Allowance:
        """How many samples may fail."""
        return Allowance(self.recipe.max_failed_share, self.plan.samples_per_epoch)

    def loader(
        self,
        ledger_folder: Path,
        *,
        rank: int = 0,
        world_size: int = 1,
        first_step: int = 0,
    ) -> PlannedLoader:
        """This rank's micro-batches, from the first step on."""
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
            skipped_key=SKIPPED_KEY,
        )

    def flops_of(self, micro_batch: MicroBatch) -> float:
        """Useful operations of a micro-batch, forward and backward."""
        return float(sum(self.plan.streams[draw.stream].costs[draw.sample] for draw in micro_batch))

    def views_of(self, micro_batch: MicroBatch) -> int:
        """Number of views (frames and image tiles) in a micro-batch."""
        return int(sum(self.plan.streams[draw.stream].lengths[draw.sample, 0] for draw in micro_batch))

    def describe(self, micro_batch: MicroBatch, *, max_samples: int = 8) -> str:
        """Stream, number and id of a micro-batch's samples, for messages."""
        names = []
        for draw in micro_batch[:max_samples]:
            text = self.datasets[draw.stream].row(draw.sample, ["text"])["text"]
            names.append(f"{self.plan.streams[draw.stream].name}[{draw.sample}] (id {text.get('id')})")
        return ", ".join(names) + (
            f" and {len(micro_batch) - max_samples} more" if len(micro_batch) > max_samples else ""
        )


class _Collate:
    """Packs samples, weights their answers, adds answer noise, and notes the modality of each sample."""

    def __init__(self, processor: HourLlavaProcessor, recipe: DataRecipe) -> None:
        self.processor, self.recipe = processor, recipe

    def __call__(self, samples: Sequence[Sample]) -> ModelInputs:
        inputs = self.processor.collate_packed(samples)
        ids_1L, labels_1L = inputs["input_ids"], inputs["labels"]
        if self.recipe.label_weights != "tokens":
            inputs["label_weights"] = answer_weights(labels_1L, WEIGHT_POWERS[self.recipe.label_weights])
        if self.recipe.answer_noise:
            seed = zlib.crc32(ids_1L.numpy())  # the noise depends on the tokens alone, not on rank, worker or epoch
            inputs["input_ids"] = with_answer_noise(ids_1L, labels_1L, self.recipe.answer_noise, seed)
        seen = ["text" if sample.layout is None else sample.layout.modality for sample in samples]
        inputs[MODALITIES_KEY] = torch.tensor([MODALITIES.index(modality) for modality in seen])
        return inputs


def open_streams(data: DataRecipe) -> list[OpenStream]:
    """Open the streams of a recipe.

    Raises:
        DataError: a folder is missing or damaged, or is empty though the recipe takes samples from it.
    """
    opened = []
    for recipe in data.streams:
        dataset = MdsDataset(recipe.folder)
        if not len(dataset) and not _is_left_out(recipe):
            raise DataError(
                f"{recipe.folder} holds no rows; check what `hourllava data shard` left out, or remove the folder from "
                "the recipe's streams"
            )
        max_looked_at = 16 if is_remote(recipe.folder) else 1000
        opened.append(OpenStream(recipe, dataset, row_kinds(dataset, max_looked_at)))
    return opened


def check_features(
    data: DataRecipe, streams: Sequence[OpenStream], encoder: EncoderIdentity | None, *, tower_is_trained: bool
) -> None:
    """Refuse features of another vision tower, and features of a tower that is trained.

    Args:
        data: the data section of the recipe.
        streams: its open streams.
        encoder: identity of the model's tower; None without weights, as in a dry run.
        tower_is_trained: whether the tower gets gradients.

    Raises:
        ConfigError: a stream has features, and the tower is trained.
        DataError: feature files of a stream come from another tower.
    """
    if data.any_encoder:
        return
    for stream in streams:
        numbers = np.flatnonzero(stream.kinds.encoded)
        if not len(numbers) or _is_left_out(stream.recipe):
            continue
        if tower_is_trained:
            raise ConfigError(
                f"learning_rates train the vision tower, but stream {stream.name} holds features made before training: "
                'freeze the tower ("model.vision_tower.*": 0), train on videos, or set data.any_encoder=true'
            )
        if encoder is None:
            continue
        found = []
        for number in _evenly(numbers, _NUM_CHECKED_FILES):
            try:
                name = stream.dataset.row(number, ["video"])["video"]
                found.append((name, stored_encoder(media_path(name, data.media), data.media)))
            except (DataError, MemoryFileError):  # measuring notes unreadable files
                continue
        for name, made_by in found:
            refuse_other(name, made_by, encoder)
        if found and all(made_by is None for _, made_by in found):
            logger.warning(
                "the features of stream %s do not say which vision encoder made them; they are taken for the model's",
                stream.name,
            )


def measure_streams(data: DataRecipe, streams: Sequence[OpenStream], encoder: RowEncoder, cache: Path) -> list[Lengths]:
    """Sample lengths of each stream, read from beside the shards or measured.

    Args:
        data: the data section of the recipe.
        streams: its open streams.
        encoder: makes samples of shard rows.
        cache: folder for measured lengths.

    Raises:
        DataError: too many rows of a stream, or all of them, cannot be read.
    """
    measured = []
    for stream in streams:
        lengths = stream_lengths(stream.dataset, encoder, cache, num_processes=max(data.workers, 1))
        unknown = np.flatnonzero((lengths == UNKNOWN).all(axis=1))
        allowed = Allowance(data.max_failed_share, len(lengths)).most(len(lengths))
        if not _is_left_out(stream.recipe) and (len(unknown) > allowed or 0 < len(unknown) == len(lengths)):
            raise DataError(
                f"{len(unknown)} of {len(lengths)} rows of stream {stream.name} cannot be read, more than "
                f"data.max_failed_share={data.max_failed_share:g} allows; row {unknown[0]}: "
                f"{_why_unknown(stream, encoder, int(unknown[0]))}. Is data.media={data.media} the right folder?"
            )
        measured.append(lengths)
    return measured


def build_corpus(
    data: DataRecipe,
    batch: BatchRecipe,
    streams: list[OpenStream],
    lengths: Sequence[Lengths],
    encoder: RowEncoder,
    *,
    trained: TrainedParts,
    epochs: int,
    max_steps: int | None = None,
    seed: int,
) -> Corpus:
    """Plan the batches over open streams.

    Args:
        data, batch: sections of the recipe, or those of its validation.
        streams: the open streams.
        lengths: sample lengths of each stream.
        encoder: makes samples of shard rows.
        trained: which parts get gradients, for the costs.
        epochs: number of epochs to plan.
        max_steps: number of steps after which the plan may end.
        seed: seed of the plan.

    Raises:
        ConfigError: a sample is longer than the token budget, or the streams' amounts contradict each other.
    """
    config, planned = encoder.processor.config, []
    for stream, lengths_N3 in zip(streams, lengths, strict=True):
        is_video, encoded = stream.kinds
        # Recomputation is not counted: the setting `activations` must not change the order of samples.
        costs = estimate_costs(
            lengths_N3,
            config,
            is_video=is_video,
            encoded=encoded,
            num_questions=num_questions(data, lengths_N3, config, is_video),
            trained=trained,
            checkpointing=False,
        )
        amounts = {key: getattr(stream.recipe, key) for key in ("proportion", "repeat", "choose")}
        planned.append(Stream(stream.name, lengths_N3, costs.total, **amounts))
    asked: Any = {"mean_samples": batch.samples, "mean_tokens": batch.tokens, "multiple_of": batch.multiple_of}
    row_tokens = row_tokens_for(planned, batch.token_budget, **asked)
    micro_batches = micro_batches_for(planned, row_tokens, **asked)
    settings = PlanSettings(row_tokens, micro_batches, seed, epochs, data.batching)
    return Corpus(BatchPlan(planned, settings, max_steps=max_steps), streams, encoder, data)


def num_questions(
    data: DataRecipe, lengths_N3: Lengths, config: HourLlavaConfig, is_video: NDArray[np.bool_]
) -> int | NDArray[np.int64]:
    """Questions of each row that are samples of their own: [N], or 1 for all rows."""
    return questions_apart(lengths_N3, config, is_video=is_video) if data.questions == "segments" else 1


def batch_warnings(batch: BatchRecipe, corpus: Corpus) -> Iterator[str]:
    """Warnings if full micro-batches make steps much larger than the recipe asks for, and if shorter ones still do."""
    plan = corpus.plan
    settings, steps = plan.settings, plan.steps_per_epoch[0]
    for name, asked, mean in (
        ("samples", batch.samples, plan.samples_per_epoch / steps),
        ("tokens", batch.tokens, sum(tokens_per_epoch(corpus)) / steps),
    ):
        if asked is None:
            continue
        if settings.token_budget < batch.token_budget:
            yield (
                f"warning: batch.{name} asks for {asked:,.4g} a step, far less than {batch.multiple_of} micro-batches "
                f"of batch.token_budget={batch.token_budget:,} hold; so micro-batches hold at most "
                f"{settings.token_budget:,} tokens"
            )
        if mean > _TOO_MANY * asked:
            yield (
                f"warning: batch.{name} asks for {asked:,.4g} a step, but a step holds {mean:,.4g} on average, "
                f"{steps:,} steps an epoch: it has {settings.micro_batches_per_step} micro-batches "
                "(batch.multiple_of), each with room for the longest sample; lower multiple_of, or leave out the "
                "longest samples"
            )


def tokens_per_epoch(corpus: Corpus) -> list[float]:
    """Tokens that an epoch takes from each stream, on average."""
    streams = corpus.plan.streams
    return [
        amount * float(stream.tokens.mean()) if amount else 0.0
        for stream, amount in zip(streams, samples_per_epoch(streams))
    ]


def row_kinds(dataset: MdsDataset, max_looked_at: int) -> RowKinds:
    """What each shard row holds: whether it is a video, and whether that video comes as features.

    Looking at a row means opening its shard. So at most `max_looked_at` rows, evenly spread, are looked at first; all
    rows only if these differ.
    """
    is_video = dataset.has_column("video")
    encoded = np.zeros_like(is_video)
    videos = np.flatnonzero(is_video)
    seen = {_is_encoded(dataset, number) for number in _evenly(videos, max_looked_at)}
    if {True, False} <= seen:
        encoded[videos] = [_is_encoded(dataset, number) or False for number in videos.tolist()]
    else:
        encoded[videos] = True in seen
    return RowKinds(is_video, encoded)


def _is_encoded(dataset: MdsDataset, number: int) -> bool | None:
    """None for a damaged row, which training notes and skips."""
    try:
        name = dataset.row(number, ["video"])["video"]
    except DataError:
        return None
    return isinstance(name, str) and name.endswith(FEATURE_SUFFIXES)


def _evenly(numbers: NDArray[np.int64], max_count: int) -> list[int]:
    """All numbers, or `max_count` of them, evenly spread from the first to the last."""
    places = np.linspace(0, len(numbers) - 1, min(max_count, len(numbers))).round().astype(np.int64)
    chosen: list[int] = numbers[places].tolist()
    return chosen


def _is_left_out(recipe: StreamRecipe) -> bool:
    return 0 in (recipe.proportion, recipe.repeat, recipe.choose)


def _why_unknown(stream: OpenStream, encoder: RowEncoder, number: int) -> str:
    try:
        encoder.lengths(stream.dataset.row(number, decode_images=False))
    except HourLlavaError as error:
        return str(error)
    return "it can be read now, but could not when the lengths were measured"
