"""Reads a batch plan: workers read and encode samples, pack them into micro-batches, and note and skip bad samples.

    loader = planned_loader(plan, sources, encode, processor.collate_packed, rank=rank, world_size=world_size,
                            first_step=step, ledger_folder=folder / "failures", num_workers=4)
    for inputs in loader: ...    # micro_batches_per_step / world_size of them are one step

The batches follow from the plan alone, not from the number of workers, because a `Draw` carries its seed. Left out and
noted in the ledger are samples that cannot be read, samples longer than the plan expects, and samples without a
supervised token, which would cost time and teach nothing. An empty micro-batch becomes one unsupervised token. It adds
nothing to loss or gradient, but every rank runs forward and backward, as collectives need.
"""

import dataclasses
import json
import logging
import math
import traceback
from collections.abc import Callable, Iterator, MutableMapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler, get_worker_info

from hourllava.data.batches.plan import BatchPlan, Draw, MicroBatch
from hourllava.errors import DataError
from hourllava.files import replacing
from hourllava.model.head import IGNORED_LABEL
from hourllava.model.inputs import Sample

MAX_FAILED_SHARE = 0.01
"""A larger share of failed samples ends the run: it is no accident."""

MIN_SAMPLES_JUDGED = 1000
"""A share is taken over at least so many samples, or the first bad sample would be a share of 100 %."""

MAX_FAILED_SHARE_OF_FEW = 0.1
"""The share that may fail of fewer samples than that; one sample always may."""

NO_TARGET = "NoTarget"
"""The ledger's error for a sample that can be read but has no supervised token."""

logger = logging.getLogger(__name__)


class Source(Protocol):
    """Rows of one stream by number: a shard folder's reader, or a list."""

    def __len__(self) -> int:
        """Rows."""
        ...

    def __getitem__(self, index: int, /) -> Any:
        """A row; any exception counts as a failed sample."""
        ...


Encode = Callable[[Any, int], Sequence[Sample]]
"""Makes the samples of a shard row, with the seed of its random choices; they stay together (`RowEncoder`)."""

Collate = Callable[[Sequence[Sample]], MutableMapping[str, Any]]
"""Packs samples into one micro-batch (`HourLlavaProcessor.collate_packed`)."""


@dataclasses.dataclass(frozen=True)
class Allowance:
    """How many samples may fail.

    Attributes:
        share: of all samples.
        samples_per_epoch: samples of an epoch.
    """

    share: float
    samples_per_epoch: int

    def most(self, num_drawn: int) -> float:
        """Allowed failures among so many samples drawn; a bad sample fails again in every epoch."""
        few = min(self.samples_per_epoch, MIN_SAMPLES_JUDGED)
        accidents = min(self.share * MIN_SAMPLES_JUDGED, max(1.0, MAX_FAILED_SHARE_OF_FEW * few))
        epochs_begun = max(math.ceil(num_drawn / max(self.samples_per_epoch, 1)), 1)
        return max(self.share * num_drawn, max(self.share * few, accidents) * epochs_begun)


class Failure(NamedTuple):
    """A line of the ledger: the draw and stream that failed, and the reason."""

    stream: str
    sample: int
    seed: int
    error: str
    message: str


class PlannedDataset(Dataset[Sequence[Sample]]):
    """The samples of a plan's streams by `Draw`; an empty sequence for a draw that failed.

    Args:
        stream_names, sources: of the plan's streams, in its order.
        encode: makes the samples of a shard row.
        ledger_folder: gets one `failures.rank0.worker0.jsonl` for each worker with a failure.
        allowance: how many samples may fail.
        rank: of this process.
        num_readers: workers of all processes. Each worker assumes that all of them have drawn as much as itself.
    """

    def __init__(
        self,
        stream_names: Sequence[str],
        sources: Sequence[Source],
        encode: Encode,
        ledger_folder: Path,
        allowance: Allowance,
        *,
        rank: int = 0,
        num_readers: int = 1,
    ) -> None:
        self.stream_names, self.sources, self.encode = tuple(stream_names), tuple(sources), encode
        self.ledger_folder, self.allowance = Path(ledger_folder), allowance
        self.rank, self.num_readers = rank, num_readers
        self._num_drawn = self._num_failed = 0

    def __getitem__(self, draw: Draw) -> Sequence[Sample]:
        """Read and encode a shard row. One without a supervised token is noted here and counted by the collator.

        Raises:
            DataError: more samples failed than are allowed.
        """
        self._num_drawn += 1
        try:
            samples = self.encode(self.sources[draw.stream][draw.sample], draw.seed)
            num_tokens = sum(len(sample.input_ids) for sample in samples)
            if num_tokens > draw.num_tokens:
                raise DataError(
                    f"the sample has {num_tokens} tokens but its lengths promise {draw.num_tokens}; they were measured "
                    "for another tokenizer or model, or its media have changed: measure them again"
                )
        except Exception as error:  # noqa: BLE001  # damaged files make decoders raise anything: zlib.error, SyntaxError
            self._fail(draw, error)
            return ()
        if not has_target(samples):
            longest = max((len(sample.input_ids) for sample in samples), default=0)
            reason = f"none of its {longest} tokens is supervised: the answer is empty, or cut off at the model's limit"
            self._note(draw, NO_TARGET, reason)
        return samples

    def _fail(self, draw: Draw, error: Exception) -> None:
        self._num_failed += 1
        failure = self._note(draw, type(error).__name__, " ".join(str(error).split()))
        if self._num_failed > self.allowance.most(self._num_drawn * self.num_readers):
            raise DataError(
                f"{self._num_failed} of {self._num_drawn} samples failed, more than the allowed share of "
                f"{self.allowance.share:.3g}; the last was sample {failure.sample} of {failure.stream}: "
                f"{failure.error}: {failure.message}. All are listed in {self.ledger_folder}"
            )

    def _note(self, draw: Draw, error: str, message: str) -> Failure:
        failure = Failure(self.stream_names[draw.stream], draw.sample, draw.seed, error, message)
        worker = get_worker_info()
        name = f"failures.rank{self.rank}.worker{worker.id if worker else 0}.jsonl"
        try:
            self.ledger_folder.mkdir(parents=True, exist_ok=True)
            with (self.ledger_folder / name).open("a", encoding="utf-8") as ledger:
                ledger.write(json.dumps(failure._asdict()) + "\n")
        except OSError as full:
            raise DataError(
                f"{self.ledger_folder} cannot be written ({full.strerror}), where samples that are left out are noted; "
                "free space there"
            ) from full
        logger.warning("skipped sample %d of %s: %s: %s", failure.sample, failure.stream, failure.error, message)
        return failure


class PlanBatchSampler(Sampler[MicroBatch]):
    """One rank's micro-batches from a step on: a torch batch sampler that knows its rank (do not shard it again).

    Args:
        plan: of the run.
        rank, world_size: the rank's share of each step.
        first_step: first step, counted over all epochs.
    """

    def __init__(self, plan: BatchPlan, *, rank: int = 0, world_size: int = 1, first_step: int = 0) -> None:
        self.plan, self.rank, self.world_size, self.first_step = plan, rank, world_size, first_step
        self.micro_batches_per_rank_step = plan.micro_batches_of_rank(world_size)

    def __iter__(self) -> Iterator[MicroBatch]:
        for step in range(self.first_step, self.plan.num_steps):
            yield from self.plan.rank_step(step, self.rank, self.world_size)

    def __len__(self) -> int:
        return (self.plan.num_steps - self.first_step) * self.micro_batches_per_rank_step


class PackedCollator:
    """Packs the readable samples of a micro-batch, small memories first.

    Neighbouring small segments share a launch of attention and large ones have their own, so they should not alternate.

    Args:
        collate: of the processor.
        skipped_key: key of the inputs that gets the numbers of left-out samples; None for no such key.
    """

    def __init__(self, collate: Collate, skipped_key: str | None = None) -> None:
        self.collate, self.skipped_key = collate, skipped_key

    def __call__(self, rows: Sequence[Sequence[Sample]]) -> MutableMapping[str, Any]:
        """Inputs of the model; under `skipped_key` [2] failed shard rows, and those without a supervised token."""
        by_size = sorted(filter(has_target, rows), key=_memory_entries)
        inputs = self.collate([sample for samples in by_size for sample in samples] or [unsupervised_token()])
        if self.skipped_key is not None:
            num_failed = sum(not samples for samples in rows)
            inputs[self.skipped_key] = torch.tensor([num_failed, len(rows) - num_failed - len(by_size)])
        return inputs


def has_target(samples: Sequence[Sample]) -> bool:
    """Whether samples have a target. A sample's first token does not count: it is predicted from nothing."""
    return any(bool((sample.labels[1:] != IGNORED_LABEL).any()) for sample in samples)


def _memory_entries(samples: Sequence[Sample]) -> int:
    layout = samples[0].layout if samples else None  # all samples of a shard row share it
    return 0 if layout is None else len(layout.memory_index)


class PlannedLoader(DataLoader[Any]):
    """A DataLoader that gives a worker's DataError as one line, without the worker's traceback.

    With a GPU, it pins batches that can be pinned. Its workers end with the loop over it, however that ends.
    """

    def __iter__(self) -> Any:
        batches = super().__iter__()
        try:
            yield from _pinned(batches) if torch.cuda.is_available() else batches
        except Exception as error:
            # torch's frames hold the error, which holds the frames, and with them the workers. The garbage collector
            # would end those only much later, and wait 5 s for each: it takes down the queue that tells them first.
            traceback.clear_frames(error.__traceback__)
            if not isinstance(error, DataError):
                raise
            in_traceback = f"{DataError.__module__}.{DataError.__qualname__}: "
            raise DataError(str(error).strip().rpartition(in_traceback)[2]) from error
        finally:
            del batches


def _pinned(batches: Iterator[Any]) -> Iterator[Any]:
    """The batches in pinned memory, one ahead: DataLoader's own pinning fails on transformers' outputs in a batch."""

    def next_pinned() -> Any:
        batch: Any = next(batches, None)
        return batch.pin_memory() if hasattr(batch, "pin_memory") else batch

    device = torch.cuda.current_device()
    with ThreadPoolExecutor(1, initializer=torch.cuda.set_device, initargs=(device,)) as thread:
        ahead = thread.submit(next_pinned)
        while (batch := ahead.result()) is not None:
            ahead = thread.submit(next_pinned)
            yield batch


def planned_loader(
    plan: BatchPlan,
    sources: Sequence[Source],
    encode: Encode,
    collate: Collate,
    *,
    ledger_folder: Path,
    rank: int = 0,
    world_size: int = 1,
    first_step: int = 0,
    num_workers: int = 0,
    prefetch_factor: int = 2,
    max_failed_share: float = MAX_FAILED_SHARE,
    skipped_key: str | None = None,
) -> PlannedLoader:
    """One rank's packed micro-batches, `micro_batches_per_step / world_size` for each step.

    Args:
        plan: of the run.
        sources: shard rows of the plan's streams, in its order.
        encode, collate: of the processor.
        ledger_folder: folder for notes of failed samples.
        rank, world_size: the rank's share of each step.
        first_step: first step, counted over all epochs.
        num_workers: processes that read and encode; 0 does it in this process.
        prefetch_factor: micro-batches that each worker is ahead.
        max_failed_share: share of samples that may fail; see `Allowance` for fewer than 1,000.
        skipped_key: see `PackedCollator`.

    Raises:
        DataError: a source has another number of rows than the plan; while iterating: too many samples failed.
        ConfigError: the ranks cannot share a step equally.
    """
    for stream, source in zip(plan.streams, sources, strict=True):
        if len(source) != len(stream.lengths):
            raise DataError(
                f"stream {stream.name} has {len(source)} samples but lengths of {len(stream.lengths)}; "
                "its shards and lengths.npy do not belong together, write them again"
            )
    names = [stream.name for stream in plan.streams]
    return PlannedLoader(
        PlannedDataset(
            names,
            sources,
            encode,
            ledger_folder,
            Allowance(max_failed_share, plan.samples_per_epoch),
            rank=rank,
            num_readers=world_size * max(num_workers, 1),
        ),
        batch_sampler=PlanBatchSampler(plan, rank=rank, world_size=world_size, first_step=first_step),
        collate_fn=PackedCollator(collate, skipped_key),
        num_workers=num_workers,
        prefetch_factor=prefetch_factor if num_workers else None,
    )


def unsupervised_token() -> Sample:
    """The smallest sample the model can step on: its loss and gradients are zero."""
    return Sample(
        input_ids=np.zeros(1, np.int64),
        labels=np.full(1, IGNORED_LABEL, np.int64),
        is_prompt_text=np.ones(1, bool),
    )


def read_ledgers(folder: Path) -> list[Failure]:
    """All failures under a ledger folder, each draw once, in order.

    A failure may stand in several files, because a resumed run reads samples again that its workers had read ahead. A
    line cut short by a full disk is left out.
    """
    failures = set()
    for path in sorted(folder.glob("failures.rank*.worker*.jsonl")):
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                failures.add(Failure(**json.loads(line)))
            except (json.JSONDecodeError, TypeError):
                logger.warning("%s has a line that was cut short: %s", path, line)
    return sorted(failures)


def merge_ledgers(folder: Path) -> list[Failure]:
    """As `read_ledgers`, and write the failures to the folder's `failures.jsonl`."""
    merged = read_ledgers(folder)
    with replacing(folder / "failures.jsonl") as temporary:
        temporary.write_text("".join(json.dumps(failure._asdict()) + "\n" for failure in merged), encoding="utf-8")
    return merged
