"""The data of a run: shard folders with their lengths and costs, the batch plan over them, and a loader for a rank."""

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
from hourllava.inference.encoder import EncoderIdentity
from hourllava.model.inputs import ModelInputs, Sample
from hourllava.model.processor import HourLlavaProcessor
from hourllava.training.answer_tokens import answer_weights, with_answer_noise
from hourllava.training.recipe import BatchRecipe, DataRecipe, LabelWeights, StreamRecipe

MODALITIES = ("text", "image", "video")
WEIGHT_POWERS: dict[LabelWeights, float] = {"tokens": 0.0, "square": 0.5, "answers": 1.0}
MODALITIES_KEY = "modalities"
"""Of a batch: [samples] which of `MODALITIES` each is."""
SKIPPED_KEY = "skipped"
"""Of a batch: [2] samples that failed, and those without a supervised token."""

_MOST_HASHED_ROWS = 10_000
_CHECKED_FILES = 16
_TOO_MANY = 2.0
"""Times what a recipe asks of a step."""

logger = logging.getLogger(__name__)


class RowKinds(NamedTuple):
    """[N] which rows are videos, and which of these come as features."""

    is_video: NDArray[np.bool_]
    encoded: NDArray[np.bool_]


@dataclasses.dataclass(frozen=True)
class OpenStream:
    """A stream of the recipe with its rows.

    Attributes:
        recipe: of the stream.
        dataset: its rows.
        kinds: of them.
    """

    recipe: StreamRecipe
    dataset: MdsDataset
    kinds: RowKinds

    @property
    def name(self) -> str:
        """For messages."""
        return self.recipe.name or PurePosixPath(self.recipe.folder).name

    def content_digest(self) -> str:
        """Of the rows, wherever they lie. Shards need not come with hashes, so texts of local ones are looked at."""
        digest = hashlib.sha256(self.dataset.fingerprint().encode())
        if not is_remote(self.recipe.folder):
            for number in _evenly(np.arange(len(self.dataset)), _MOST_HASHED_ROWS):
                try:
                    digest.update(self.dataset.raw(number, ["text"])["text"])
                except DataError:  # a damaged row is no reason to stop, and says as much about the data
                    digest.update(b"damaged")
        return digest.hexdigest()


@dataclasses.dataclass(frozen=True)
class Corpus:
    """What a run reads, in the order of the plan's streams.

    Attributes:
        plan: of the batches.
        streams: with the rows of each.
        encoder: rows to samples.
        recipe: how it is read.
    """

    plan: BatchPlan
    streams: list[OpenStream]
    encoder: RowEncoder
    recipe: DataRecipe

    @property
    def datasets(self) -> list[MdsDataset]:
        """Rows of each stream."""
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
            skipped_key=SKIPPED_KEY,
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


def open_streams(data: DataRecipe) -> list[OpenStream]:
    """Open the folders of a recipe.

    Raises:
        DataError: a folder is missing or damaged, or has no rows though some are wanted.
    """
    opened = []
    for recipe in data.streams:
        dataset = MdsDataset(recipe.folder)
        if not len(dataset) and not _is_left_out(recipe):
            raise DataError(
                f"{recipe.folder} holds no rows; look at what `hourllava data shard` has left out, or take the folder "
                "out of the recipe's streams"
            )
        most_looked_at = 16 if is_remote(recipe.folder) else 1000
        opened.append(OpenStream(recipe, dataset, row_kinds(dataset, most_looked_at)))
    return opened


def check_features(
    data: DataRecipe, streams: Sequence[OpenStream], encoder: EncoderIdentity | None, *, tower_is_trained: bool
) -> None:
    """Refuse features of a vision tower that is not, or will not stay, the model's.

    Args:
        data: of the recipe.
        streams: that it names.
        encoder: of the model; None if its weights are not there, as in a dry run.
        tower_is_trained: whether the tower gets gradients.

    Raises:
        ConfigError: features are given, and their tower is trained.
        DataError: feature files of a stream are of another tower.
    """
    if data.any_encoder:
        return
    for stream in streams:
        numbers = np.flatnonzero(stream.kinds.encoded)
        if not len(numbers) or _is_left_out(stream.recipe):
            continue
        if tower_is_trained:
            raise ConfigError(
                f"learning_rates train the vision tower, but stream {stream.name} brings features that it made before: "
                'freeze it ("model.vision_tower.*": 0), train on the videos themselves, or set data.any_encoder=true'
            )
        if encoder is None:
            continue
        found = []
        for number in _evenly(numbers, _CHECKED_FILES):
            try:
                name = stream.dataset.row(number, ["video"])["video"]
                found.append((name, stored_encoder(media_path(name, data.media), data.media)))
            except (DataError, MemoryFileError):  # a file that cannot be read is noted when it is measured
                continue
        for name, made_by in found:
            refuse_other(name, made_by, encoder)
        if found and all(made_by is None for _, made_by in found):
            logger.warning(
                "the features of stream %s do not say which vision encoder made them; taken for the model's own",
                stream.name,
            )


def measure_streams(data: DataRecipe, streams: Sequence[OpenStream], encoder: RowEncoder, cache: Path) -> list[Lengths]:
    """Lengths of the rows of each stream, from beside the shards or measured.

    Args:
        data: of the recipe.
        streams: that it names.
        encoder: rows to samples.
        cache: folder for lengths that have to be measured.

    Raises:
        DataError: more rows of a stream than are allowed, or all of them, cannot be read.
    """
    measured = []
    for stream in streams:
        lengths = stream_lengths(stream.dataset, encoder, cache, num_processes=max(data.workers, 1))
        unknown = np.flatnonzero((lengths == UNKNOWN).all(axis=1))
        most = Allowance(data.max_failed_share, len(lengths)).most(len(lengths))
        if not _is_left_out(stream.recipe) and (len(unknown) > most or 0 < len(unknown) == len(lengths)):
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
    """Plan the batches of streams that are open and measured.

    Args:
        data, batch: of the recipe, or of its validation.
        streams: of the recipe.
        lengths: of their rows.
        encoder: rows to samples.
        trained: which parts get gradients, for the costs.
        epochs: the plan covers.
        max_steps: it need not go on after.
        seed: of the plan.

    Raises:
        ConfigError: a sample is longer than the token budget, or amounts contradict each other.
    """
    config, planned = encoder.processor.config, []
    for stream, lengths_N3 in zip(streams, lengths, strict=True):
        is_video, encoded = stream.kinds
        # What is computed again in the backward pass is not counted: how that is done must not change the order.
        apart = questions_apart(lengths_N3, config, is_video=is_video) if data.questions == "segments" else 1
        costs = estimate_costs(
            lengths_N3,
            config,
            is_video=is_video,
            encoded=encoded,
            num_questions=apart,
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


def batch_warnings(batch: BatchRecipe, corpus: Corpus) -> Iterator[str]:
    """Lines if a step of full rows would hold more than twice what the recipe asks for, and if it still does."""
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
                f"warning: batch.{name} asks for {asked:,.4g} a step, far less than {batch.multiple_of} rows of "
                f"batch.token_budget={batch.token_budget:,} hold; so rows hold {settings.token_budget:,} tokens at most"
            )
        if mean > _TOO_MANY * asked:
            yield (
                f"warning: batch.{name} asks for {asked:,.4g} a step, but a step holds {mean:,.4g} on average, "
                f"{steps:,} steps an epoch: it has {settings.micro_batches_per_step} rows (batch.multiple_of), with "
                "room for the longest sample in each; lower multiple_of, or leave the longest samples out"
            )


def tokens_per_epoch(corpus: Corpus) -> list[float]:
    """Of each stream, on average."""
    streams = corpus.plan.streams
    return [
        amount * float(stream.tokens.mean()) if amount else 0.0
        for stream, amount in zip(streams, samples_per_epoch(streams))
    ]


def row_kinds(dataset: MdsDataset, most_looked_at: int) -> RowKinds:
    """Which rows are videos, and which of these come as features.

    So many rows all over the data set are looked at; only if they differ, all are: each shard has to be opened for it.
    """
    is_video = dataset.has_column("video")
    encoded = np.zeros_like(is_video)
    videos = np.flatnonzero(is_video)
    seen = {_is_encoded(dataset, number) for number in _evenly(videos, most_looked_at)}
    if {True, False} <= seen:
        encoded[videos] = [_is_encoded(dataset, number) or False for number in videos.tolist()]
    else:
        encoded[videos] = True in seen
    return RowKinds(is_video, encoded)


def _is_encoded(dataset: MdsDataset, number: int) -> bool | None:
    """None of a damaged row, which is noted and skipped when it is read."""
    try:
        name = dataset.row(number, ["video"])["video"]
    except DataError:
        return None
    return isinstance(name, str) and name.endswith(FEATURE_SUFFIXES)


def _evenly(numbers: NDArray[np.int64], most: int) -> list[int]:
    """All of them, or so many all over them, the first and the last among them."""
    places = np.linspace(0, len(numbers) - 1, min(most, len(numbers))).round().astype(np.int64)
    chosen: list[int] = numbers[places].tolist()
    return chosen


def _is_left_out(recipe: StreamRecipe) -> bool:
    return 0 in (recipe.proportion, recipe.repeat, recipe.choose)


def _why_unknown(stream: OpenStream, encoder: RowEncoder, number: int) -> str:
    try:
        encoder.lengths(stream.dataset.row(number, decode_images=False))
    except HourLlavaError as error:
        return str(error)
    return "it can be read by now; the lengths say that it could not when they were measured"
