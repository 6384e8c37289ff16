"""Reading a batch plan: samples read and encoded by workers, packed rows out, bad samples noted and skipped.

    loader = planned_loader(plan, sources, encode, processor.collate_packed, rank=rank, world_size=world_size,
                            first_step=step, ledger_folder=folder / "failures", num_workers=4)
    for inputs in loader: ...    # micro_batches_per_step / world_size of them are one step

What is yielded follows from the plan alone, not from the number of workers: a `Draw` carries its seed. A sample that
cannot be read, or is longer than the plan counted on, goes into the ledger and is left out; so does a sample without a
supervised token, which would cost time and teach nothing. A micro-batch of which nothing is left becomes one
unsupervised token: every rank still runs forward and backward, as collectives need it, and it adds nothing to loss or
gradient.
"""

import dataclasses
import json
import logging
import math
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
"""More failed samples than this are no accident."""

MIN_SAMPLES_JUDGED = 1000
"""A share is judged over this many samples or more: the first bad sample is not a share of 100 %."""

MAX_FAILED_SHARE_OF_FEW = 0.1
"""Of fewer samples than are judged, no more than this share may fail (and always one)."""

NO_TARGET = "NoTarget"
"""In the ledger, the error of a sample that can be read but has no supervised token."""

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
"""A row and the seed of its random choices to its samples, which stay together (`RowEncoder`)."""

Collate = Callable[[Sequence[Sample]], MutableMapping[str, Any]]
"""Samples to one packed row (`HourLlavaProcessor.collate_packed`)."""


@dataclasses.dataclass(frozen=True)
class Allowance:
    """How many samples may fail.

    Attributes:
        share: of all samples.
        samples_per_epoch: all that there are.
    """

    share: float
    samples_per_epoch: int

    def most(self, num_drawn: int) -> float:
        """Failures that are allowed among so many samples drawn; a bad sample fails again in every epoch."""
        few = min(self.samples_per_epoch, MIN_SAMPLES_JUDGED)
        accidents = min(self.share * MIN_SAMPLES_JUDGED, max(1.0, MAX_FAILED_SHARE_OF_FEW * few))
        epochs_begun = max(math.ceil(num_drawn / max(self.samples_per_epoch, 1)), 1)
        return max(self.share * num_drawn, max(self.share * few, accidents) * epochs_begun)


class Failure(NamedTuple):
    """A line of the ledger: which draw of which stream failed, and why."""

    stream: str
    sample: int
    seed: int
    error: str
    message: str


class PlannedDataset(Dataset[Sequence[Sample]]):
    """The rows of a plan's streams as samples, by `Draw`; none for one that failed.

    Args:
        stream_names, sources: of the plan's streams, in its order.
        encode: a row to its samples.
        ledger_folder: gets one `failures.rank0.worker0.jsonl` for each worker that met a failure.
        allowance: how many samples may fail.
        rank: of this process.
        num_readers: workers of all processes: each judges by what all of them have drawn if they are equally fast.
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
        """Read and encode a row; one without a supervised token is noted, and left to the collator to count.

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
        rank, world_size: which share of each step.
        first_step: where to begin, counted over all epochs.
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
    """What is left of a micro-batch as one packed row, small memories first.

    Neighbouring small segments share a launch of attention, large ones have their own: best if they do not alternate.

    Args:
        collate: of the processor.
        skipped_key: where the inputs are to tell what was left out; None: nowhere.
    """

    def __init__(self, collate: Collate, skipped_key: str | None = None) -> None:
        self.collate, self.skipped_key = collate, skipped_key

    def __call__(self, rows: Sequence[Sequence[Sample]]) -> MutableMapping[str, Any]:
        """Inputs of the model; under `skipped_key` [2] how many rows failed, and how many have no supervised token."""
        by_size = sorted(filter(has_target, rows), key=_memory_entries)
        inputs = self.collate([sample for samples in by_size for sample in samples] or [unsupervised_token()])
        if self.skipped_key is not None:
            num_failed = sum(not samples for samples in rows)
            inputs[self.skipped_key] = torch.tensor([num_failed, len(rows) - num_failed - len(by_size)])
        return inputs


def has_target(samples: Sequence[Sample]) -> bool:
    """Whether a row teaches anything; the first token of a sample is predicted from nothing, so it does not count."""
    return any(bool((sample.labels[1:] != IGNORED_LABEL).any()) for sample in samples)


def _memory_entries(samples: Sequence[Sample]) -> int:
    layout = samples[0].layout if samples else None  # of one row all samples share it
    return 0 if layout is None else len(layout.memory_index)


class PlannedLoader(DataLoader[Any]):
    """A DataLoader whose workers' DataErrors arrive as one line, without the workers' tracebacks.

    For a GPU, batches that can be are pinned.
    """

    def __iter__(self) -> Any:
        batches = super().__iter__()
        try:
            yield from _pinned(batches) if torch.cuda.is_available() else batches
        except DataError as error:
            in_traceback = f"{DataError.__module__}.{DataError.__qualname__}: "
            raise DataError(str(error).strip().rpartition(in_traceback)[2]) from error


def _pinned(batches: Iterator[Any]) -> Iterator[Any]:
    """The batches in pinned memory, one ahead: DataLoader's own way stumbles over transformers' outputs in a batch."""

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
        sources: rows of the plan's streams, in its order.
        encode, collate: of the processor.
        ledger_folder: where failed samples are noted.
        rank, world_size: which share of each step.
        first_step: where to begin, counted over all epochs.
        num_workers: processes that read and encode; 0 does it in this one.
        prefetch_factor: micro-batches each worker is ahead.
        max_failed_share: of the samples that may fail; of fewer than 1,000, see `Allowance`.
        skipped_key: where each batch is to tell what was left out, see `PackedCollator`.

    Raises:
        DataError: a source does not have as many rows as the plan counts on; while iterating: too many samples failed.
        ConfigError: a step cannot be shared out equally to the ranks.
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

    A resumed run reads again what its workers had read ahead, so a failure may stand in several files; a line cut short
    by a full disk is left out.
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
    """As `read_ledgers`; what is found is also written to the folder's `failures.jsonl`."""
    merged = read_ledgers(folder)
    with replacing(folder / "failures.jsonl") as temporary:
        temporary.write_text("".join(json.dumps(failure._asdict()) + "\n" for failure in merged), encoding="utf-8")
    return merged
