"""The layouts of a batch as index tensors, with which the model gathers.

All patch tokens of a batch lie in one bank: image tokens of all samples, video tokens of all samples, resized grids,
the newline. Inputs are addressed flat (row * row length + column), so padded and packed batches look the same. Samples
that hold the very same memory (one video, many questions) share it: it is stored, projected and keyed once.

Shapes: S samples with visuals, M memory entries, K kept tokens, Q queries, all samples together.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from hourllava.model.attention import Segments
from hourllava.model.layout import NEWLINE, GridResize, VisualLayout
from hourllava.model.queries import QueriesOfSample, QueryParts


@dataclasses.dataclass(frozen=True)
class VisualSample:
    """One sample with visuals at its place in a batch.

    Attributes:
        layout: of its memory and kept tokens. Successive samples whose `memory_index` is the same array share a memory.
        first_token: flat index of the sample's first token in the inputs of the batch.
        is_visual, is_prompt_text: [L] of the sample's own tokens, see `query_layout`.
        evidence: memory entries that show the answer; None if unknown.
    """

    layout: VisualLayout
    first_token: int
    is_visual: np.ndarray
    is_prompt_text: np.ndarray
    evidence: np.ndarray | None = None


@dataclasses.dataclass(frozen=True)
class EvidenceBatch:
    """Evidence of the R samples of a batch whose evidence is known.

    Attributes:
        watching_index: [W] MemAug queries that are kept tokens of these samples, or their recall tokens if they have
            any.
        watching_sample: [W] which of the R samples each belongs to.
        watching_segments: watching queries of each sample.
        recall_segments: watching queries of each memory of the batch.
        entry_index: [N] memory entries that are evidence, sample after sample.
        entry_segments: evidence entries of each sample.
    """

    watching_index: Tensor
    watching_sample: Tensor
    watching_segments: Segments
    recall_segments: Segments
    entry_index: Tensor
    entry_segments: Segments


@dataclasses.dataclass(frozen=True)
class RecallBatch:
    """What a batch has more where kept tokens do not see the question, see `hourllava.model.queries`.

    Attributes:
        input_index: [S * R] flat place of each recall token in the inputs, sample after sample.
        query_index: [S * R] which queries are the recall tokens.
        seen_index: [N] queries that are seen by the queries of each segment, segment after segment.
        seen_segments: seen queries of each segment.
    """

    input_index: Tensor
    query_index: Tensor
    seen_index: Tensor
    seen_segments: Segments


@dataclasses.dataclass(frozen=True)
class VisualBatch:
    """Sources and places of all visual tokens of a batch.

    Attributes:
        memory_index: [M] token of the bank behind each memory entry.
        memory_positions: [M] rotary positions of the memory entries.
        kept_index: [K] token of the bank behind each kept token.
        input_index: [K] flat place of each kept token in the inputs.
        query_index: [Q] flat place in the inputs of each MemAug query.
        query_positions: [Q] rotary positions of the queries.
        visual_query_index: [K] which queries are the kept tokens.
        query_segments: queries that see each other: of each sample, or the parts of `QueryParts`.
        recall_segments: queries of each memory.
        memory_segments: entries of each memory.
        resizes: tile grids to resize, `source_index` into the bank.
        num_image_tokens, num_video_tokens: patch tokens the bank starts with.
        recall: of batches whose kept tokens do not see the question.
        evidence: of the samples that have any.
    """

    memory_index: Tensor
    memory_positions: Tensor
    kept_index: Tensor
    input_index: Tensor
    query_index: Tensor
    query_positions: Tensor
    visual_query_index: Tensor
    query_segments: Segments
    recall_segments: Segments
    memory_segments: Segments
    resizes: tuple[GridResize, ...]
    num_image_tokens: int
    num_video_tokens: int
    recall: RecallBatch | None = None
    evidence: EvidenceBatch | None = None

    @property
    def watching_query_index(self) -> Tensor:
        """[W] the queries whose attention tells what is looked at: recall tokens, or kept tokens if there are none."""
        if self.recall is not None and len(self.recall.query_index):
            return self.recall.query_index
        return self.visual_query_index

    @property
    def newline_index(self) -> int:
        """Place of the newline in the bank: the last."""
        resized = sum(resize.new_height * resize.new_width for resize in self.resizes)
        return self.num_image_tokens + self.num_video_tokens + resized

    def to(self, device: torch.device | str | int, non_blocking: bool = False) -> Self:
        """A copy with its tensors on `device`."""
        return _with_tensors(self, lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> Self:
        """A copy in pinned memory."""
        return _with_tensors(self, Tensor.pin_memory)


def _with_tensors(batch: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """A copy of a dataclass with its tensors changed, also those of its parts."""
    changed: dict[str, Any] = {}
    for field in dataclasses.fields(batch):
        value = getattr(batch, field.name)
        if isinstance(value, Tensor):
            changed[field.name] = change(value)
        elif isinstance(value, (EvidenceBatch, RecallBatch)):
            changed[field.name] = _with_tensors(value, change)
    return dataclasses.replace(batch, **changed)


def batch_visuals(samples: Sequence[VisualSample]) -> VisualBatch | None:
    """The batch of these samples, on the CPU; None if there are none."""
    if not samples:
        return None
    owners = _memory_owners(samples)
    memories = sorted(set(owners))
    layouts = {number: samples[number].layout for number in memories}

    num_image_tokens = sum(layout.num_patch_tokens for layout in layouts.values() if layout.modality == "image")
    num_video_tokens = sum(layout.num_patch_tokens for layout in layouts.values() if layout.modality == "video")
    next_token = {"image": 0, "video": num_image_tokens}
    next_resized = num_image_tokens + num_video_tokens
    resizes: list[GridResize] = []
    moves: dict[int, tuple[int, int]] = {}
    for number, layout in layouts.items():
        first = next_token[layout.modality]
        moves[number] = (first, next_resized - layout.num_patch_tokens)
        next_token[layout.modality] += layout.num_patch_tokens
        if layout.resize is not None:
            resizes.append(dataclasses.replace(layout.resize, source_index=layout.resize.source_index + first))
            next_resized += layout.resize.new_height * layout.resize.new_width
    newline = next_resized

    def bank_index(number: int, index: np.ndarray) -> np.ndarray:
        """A sample's own token numbers as places in the bank."""
        layout, (first, first_resized) = layouts[number], moves[number]
        own = np.where(index < layout.num_patch_tokens, index + first, index + first_resized)
        return np.where(index == NEWLINE, newline, own)

    parts = QueryParts()
    queries = [
        parts.add(owner, sample.first_token, sample.is_visual, sample.is_prompt_text, sample.layout)
        for owner, sample in zip(owners, samples)
    ]
    visual_places = [
        np.split(sample.first_token + np.flatnonzero(sample.is_visual), [len(sample.layout.kept_index)])
        for sample in samples
    ]
    first_parts = np.searchsorted(parts.owners, memories)
    memory_segments = Segments(tuple(len(layout.memory_index) for layout in layouts.values()))
    return VisualBatch(
        memory_index=_join(bank_index(n, layout.memory_index) for n, layout in layouts.items()),
        memory_positions=_join(layout.memory_positions for layout in layouts.values()),
        kept_index=_join(
            bank_index(owner, sample.layout.memory_index[sample.layout.kept_index])
            for owner, sample in zip(owners, samples)
        ),
        input_index=_join(kept for kept, _ in visual_places),
        query_index=_join(parts.index),
        query_positions=_join(parts.positions),
        visual_query_index=_join(of_sample.kept for of_sample in queries),
        query_segments=Segments(parts.lengths),
        recall_segments=Segments(tuple(np.add.reduceat(parts.lengths, first_parts).tolist())),
        memory_segments=memory_segments,
        resizes=tuple(resizes),
        num_image_tokens=num_image_tokens,
        num_video_tokens=num_video_tokens,
        recall=_batch_recall(parts, queries, [recall for _, recall in visual_places]) if parts.has_recall else None,
        evidence=_batch_evidence(
            samples, owners, [of_sample.watching for of_sample in queries], dict(zip(memories, memory_segments.offsets))
        ),
    )


def _batch_recall(parts: QueryParts, queries: Sequence[QueriesOfSample], places: Sequence[np.ndarray]) -> RecallBatch:
    return RecallBatch(
        input_index=_join(places),
        query_index=_join(of_sample.recall for of_sample in queries),
        seen_index=_join(parts.seen),
        seen_segments=Segments(tuple(map(len, parts.seen))),
    )


def _batch_evidence(
    samples: Sequence[VisualSample],
    owners: Sequence[int],
    watching: Sequence[np.ndarray],
    first_entries: Mapping[int, int],
) -> EvidenceBatch | None:
    """The known evidence of the samples.

    Args:
        samples, owners: of the batch, and the first sample of each one's memory.
        watching: queries of each sample that are to look at its evidence.
        first_entries: the first entry of each owner's memory.
    """
    known = {number: sample.evidence for number, sample in enumerate(samples) if sample.evidence is not None}
    if not known:
        return None
    sizes = [len(watching[number]) for number in known]
    num_watching = dict.fromkeys(first_entries, 0)
    for number, size in zip(known, sizes):
        num_watching[owners[number]] += size
    entries = [first_entries[owners[number]] + evidence for number, evidence in known.items()]
    return EvidenceBatch(
        watching_index=_join(watching[number] for number in known),
        watching_sample=torch.from_numpy(np.arange(len(known)).repeat(sizes)),
        watching_segments=Segments(tuple(sizes)),
        recall_segments=Segments(tuple(num_watching.values())),
        entry_index=_join(entries),
        entry_segments=Segments(tuple(map(len, entries))),
    )


def _memory_owners(samples: Sequence[VisualSample]) -> list[int]:
    """For each sample the first of the consecutive samples that share its memory."""
    owners: list[int] = []
    for number, sample in enumerate(samples):
        shared = number > 0 and samples[number - 1].layout.memory_index is sample.layout.memory_index
        owners.append(owners[-1] if shared else number)
    return owners


def _join(parts: object) -> Tensor:
    return torch.from_numpy(np.concatenate(list(parts)))  # type: ignore[call-overload]
