"""MemAug's queries: which tokens of a batch look into the memory, where they stand, and which others they see.

The published way (`memaug.recall: kept`): kept tokens and prompt text of a sample see each other.

    system text, kept tokens, question        one segment; each query sees all of it

The way of recall tokens (`memaug.recall: question`): kept tokens see kept tokens only. So they are augmented once for
all questions about a memory, and what a decoder makes of them can be kept. Learnt recall tokens stand between the
kept tokens and the text behind them. Recall tokens and text see the kept tokens and each other.

    kept tokens                               a segment for all samples with this layout; sees itself
    system text, recall tokens, question      a segment for each sample; sees the kept tokens and itself

Text is all that MemAug may read of a conversation, with earlier questions and, when a model is asked, their answers.
So recall tokens look for what the conversation is about now. A training sample of several turns has one set of recall
tokens for all its questions; with `data.questions: segments` each question has its own.

Shapes: L tokens of a sample, Q queries, K kept tokens, R recall tokens.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from hourllava.errors import InputError
from hourllava.model.forgetting import Indices
from hourllava.model.layout import VisualLayout


def query_layout(
    is_visual: Sequence[bool] | NDArray[np.bool_],
    is_prompt_text: Sequence[bool] | NDArray[np.bool_],
    layout: VisualLayout,
) -> tuple[Indices, Indices]:
    """MemAug's queries of one sample: its visual tokens and prompt text, in conversation order, and their positions.

    Text tokens count up by one from the largest position so far + 1. Kept tokens have their memory positions, shifted
    behind everything before them; the largest counts for the text after them. Recall tokens are shifted as the kept
    tokens before them.

    Args:
        is_visual: [L] which tokens of the sample are visual: the layout's kept tokens, then its recall tokens.
        is_prompt_text: [L] which tokens are text that MemAug may read.
        layout: the sample's layout.

    Returns:
        query_index [Q] into the sample's tokens, query_positions [Q].
    """
    is_visual, is_prompt_text = np.asarray(is_visual, bool), np.asarray(is_prompt_text, bool)
    num_visual = int(is_visual.sum())
    if num_visual != layout.num_visual_tokens:
        raise InputError(
            f"the prompt holds {num_visual} visual tokens but its layout keeps {layout.num_visual_tokens}; "
            "expand each placeholder to the number of tokens its layout keeps"
        )
    query_index = np.flatnonzero(is_visual | is_prompt_text)
    visual_queries = np.flatnonzero(is_visual[query_index])
    positions = np.empty(len(query_index), np.int64)
    next_position, done, shift = 0, 0, 0
    for kept, kept_positions in _split(visual_queries, layout.kept_positions, layout.kept_per_visual):
        shift = next_position + kept[0] - done
        positions[done : kept[0]] = next_position + np.arange(kept[0] - done)
        positions[kept] = shift + kept_positions
        next_position = shift + kept_positions.max() + 1
        done = kept[-1] + 1
    if layout.recall_positions is not None and layout.num_recall_tokens:
        positions[done : done + layout.num_recall_tokens] = shift + layout.recall_positions
        next_position = max(next_position, shift + layout.recall_positions.max() + 1)
        done += layout.num_recall_tokens
    positions[done:] = next_position + np.arange(len(query_index) - done)
    return query_index, positions


def _split(first: Indices, second: Indices, lengths: Sequence[int]) -> list[tuple[Indices, Indices]]:
    bounds = np.cumsum(lengths)
    return list(zip(np.split(first, bounds), np.split(second, bounds)[: len(lengths)]))


@dataclasses.dataclass(frozen=True)
class QueriesOfSample:
    """Which queries of a batch are a sample's kept tokens [K] and recall tokens [R].

    Samples with the same layout share the queries of their kept tokens where these do not see the question.
    """

    kept: Indices
    recall: Indices

    @property
    def watching(self) -> Indices:
        """The queries whose attention tells what the sample looks at: recall tokens where there are any."""
        return self.recall if len(self.recall) else self.kept


@dataclasses.dataclass(frozen=True)
class _KeptPart:
    """The kept tokens that the last sample has added."""

    owner: int
    layout: VisualLayout
    positions: Indices
    queries: Indices


class QueryParts:
    """Joins the queries of samples to those of a batch: parts that follow one another, each of them one segment.

    Attributes:
        index: of each part, flat places of its queries in the inputs of the batch.
        positions: of each part, rotary positions.
        owners: of each part, the number of its memory's first sample.
        seen: of each part, the queries that it sees, by their number in the batch.
        has_recall: whether kept tokens are parts of their own.
    """

    def __init__(self) -> None:
        self.index: list[Indices] = []
        self.positions: list[Indices] = []
        self.owners: list[int] = []
        self.seen: list[Indices] = []
        self.has_recall = False
        self._num_queries = 0
        self._kept: _KeptPart | None = None

    @property
    def lengths(self) -> tuple[int, ...]:
        """Queries of each part."""
        return tuple(map(len, self.index))

    def add(
        self,
        owner: int,
        first_token: int,
        is_visual: NDArray[np.bool_],
        is_prompt_text: NDArray[np.bool_],
        layout: VisualLayout,
    ) -> QueriesOfSample:
        """Add a sample.

        Args:
            owner: number of its memory's first sample.
            first_token: flat index of its first token in the inputs of the batch.
            is_visual, is_prompt_text, layout: as for `query_layout`.
        """
        index, positions = query_layout(is_visual, is_prompt_text, layout)
        kept, recall = np.split(np.flatnonzero(is_visual[index]), [len(layout.kept_index)])
        if layout.recall_positions is None:
            queries = self._append(owner, first_token + index, positions)
            return QueriesOfSample(queries[kept], queries[recall])
        self.has_recall = True
        known = self._kept
        is_same = known is not None and known.owner == owner and known.layout is layout
        if known is None or not is_same or not np.array_equal(known.positions, positions[kept]):
            queries = self._append(owner, first_token + index[kept], positions[kept])
            known = self._kept = _KeptPart(owner, layout, positions[kept], queries)
        asking = np.delete(np.arange(len(index)), kept)
        queries = self._append(owner, first_token + index[asking], positions[asking], known.queries)
        return QueriesOfSample(known.queries, queries[np.searchsorted(asking, recall)])

    def _append(self, owner: int, index: Indices, positions: Indices, sees: Indices | None = None) -> Indices:
        """Add a part, which sees itself and the queries `sees`; gives its queries."""
        queries = self._num_queries + np.arange(len(index))
        self.index.append(index)
        self.positions.append(positions)
        self.owners.append(owner)
        self.seen.append(queries if sees is None else np.concatenate([sees, queries]))
        self._num_queries += len(index)
        return queries
