"""Where an answer comes from: the moments of the video that its prompt looked at.

In every block and head of MemAug, the kept tokens and the question attend to the memory. Only the kept tokens reach the
decoder, and their attention depends on the question. So the importance of a frame is the attention of the kept tokens
to it, summed over tokens, heads and blocks. In a model with recall tokens, these alone see the question and reach the
decoder, so it is their attention. Frames that stand out are merged into a few evidence spans.

While a prompt is embedded, only queries of some of these tokens are kept. What they look at is measured when somebody
asks, so a question's first token does not wait for it. A GPU measures beside other work: what is launched is read
later.

Shapes: N questions, Q watched queries of each, R runs of memory entries, D decoder width, H heads, E head width, T
frames.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from hourllava.clock import format_clock
from hourllava.inference.memories.shown import MINUTE_SECONDS
from hourllava.model.attention_share import KeyRuns, share_of_each_run
from hourllava.model.devices import HostCopy, to_device
from hourllava.model.memaug import MemoryKeysValues

MAX_SPAN_SECONDS = MINUTE_SECONDS  # a picture that stays is a new one every minute, so that each fits

# A span grows from its peak while pictures have at least this part of the peak's share.
SPAN_FLOOR = 0.5

# Kept tokens that are sampled (an hour of the 3B model has 8,704): more of them give the same frames, and take longer.
MAX_QUERIES = 256


@dataclasses.dataclass(frozen=True)
class Span:
    """An evidence span: a stretch of the video that the prompt looked at.

    Attributes:
        start_seconds, end_seconds: on the player's clock, as subtitles. If the sound begins 7 s before the first
            picture, that picture is at 7.
        weight: share of the prompt's attention, 0 to 1.
    """

    start_seconds: float
    end_seconds: float
    weight: float


@dataclasses.dataclass(frozen=True)
class LaunchedEvidence:
    """Evidence that the device is measuring.

    Attributes:
        shares: [N, R] of the runs of memory entries, for N questions, on their way.
        number: of this question among them.
        spans_of: makes evidence spans from its shares.
    """

    shares: HostCopy
    number: int
    spans_of: Callable[[npt.NDArray[np.float64]], list[Span]]

    @property
    def is_here(self) -> bool:
        """Whether `spans` does not wait for the device."""
        return self.shares.is_here

    def spans(self) -> list[Span]:
        """The spans, strongest first."""
        return self.spans_of(self.shares.wait()[self.number].numpy())


@functools.lru_cache(maxsize=64)
def _drawn(num_queries: int, most: int, device: torch.device) -> Tensor:
    """[Q] which queries are watched, `most` of them at most.

    Not every n-th: frames keep equally many tokens, and it would always be the same one of each.
    """
    return to_device(np.random.default_rng(0).permutation(num_queries)[:most], device)


class WatchedQueries:
    """Keeps queries of a prompt, to measure later what they look at; pass `observe` to MemAug.

    Args:
        queries: rows of MemAug's queries that are the prompt's kept tokens, or its recall tokens if it has any; of
            many, some are watched, drawn at random but always the same.

    Attributes:
        rows: [Q] of the watched queries.
        blocks: of each MemAug block, its watched queries, rotated, and the memory they look into.
    """

    def __init__(self, queries: Tensor) -> None:
        self.rows = queries[_drawn(len(queries), MAX_QUERIES, queries.device)]
        self.blocks: list[tuple[Tensor, MemoryKeysValues]] = []

    def observe(self, query_XHE: Tensor, memory: MemoryKeysValues) -> None:
        """Keep one block's queries: 1 MB for the 3B model."""
        self.blocks.append((query_XHE[self.rows], memory))


def shares_of_runs(watched: Sequence[WatchedQueries], runs: KeyRuns) -> Tensor:
    """[N, R] share of each run in a question's attention, a mean over queries, heads and blocks; they add up to 1.

    Args:
        watched: of N questions about one memory, equally many queries each.
        runs: of memory entries.

    Returns:
        float64, on the device; zeros if there are no blocks.
    """
    shares = []
    for blocks in zip(*(one.blocks for one in watched), strict=True):
        query_NQHE = torch.stack([query_QHE for query_QHE, _ in blocks])
        shares.append(share_of_each_run(query_NQHE, blocks[0][1].keys, runs))
    return torch.stack(shares).mean(0) if shares else torch.zeros(len(watched), len(runs), dtype=torch.float64)


def share_of_frames(
    share_R: npt.NDArray[np.float64], runs: KeyRuns, num_frames: int | None = None
) -> npt.NDArray[np.float64]:
    """[T] share of each frame.

    Args:
        share_R: of each run.
        runs: of memory entries of one frame, labelled by the frame.
        num_frames: T; by default up to the last frame that has an entry.
    """
    return np.bincount(runs.label_of_run, weights=share_R, minlength=num_frames or 0).astype(np.float64)


def evidence_spans(
    share_T: npt.NDArray[np.float64],
    start_seconds_T: npt.NDArray[np.float64],
    end_seconds: float,
    max_spans: int = 3,
) -> list[Span]:
    """The stretches of a video that got the largest shares of attention, strongest first.

    The free picture with the largest share is the peak of the next span. The span grows to both sides while pictures
    have at least half of the peak's share and the span has at most a minute. (A single picture may be longer.)

    Args:
        share_T: attention share of each frame.
        start_seconds_T: when each frame appears, not decreasing. Frames with equal times show one picture, which stays
            until the next time.
        end_seconds: when the last picture ends. A frame that appears then or later counts with the picture before it.
        max_spans: limit on the number of spans.
    """
    is_new = np.append(True, (np.diff(start_seconds_T) > 0) & (start_seconds_T[1:] < end_seconds))
    share_T, start_seconds_T = np.add.reduceat(share_T, np.flatnonzero(is_new)), start_seconds_T[is_new]
    ends = np.append(start_seconds_T[1:], max(end_seconds, start_seconds_T[-1]))
    free = share_T.copy()
    spans: list[Span] = []
    while len(spans) < max_spans and free.max() > 0:
        first = last = int(free.argmax())
        floor = free[first] * SPAN_FLOOR
        while True:
            before, after = first - 1, last + 1
            fits_left = before >= 0 and ends[last] - start_seconds_T[before] <= MAX_SPAN_SECONDS
            left = free[before] if fits_left else -1.0
            fits_right = after < len(free) and ends[after] - start_seconds_T[first] <= MAX_SPAN_SECONDS
            right = free[after] if fits_right else -1.0
            if max(left, right) < floor:
                break
            if left >= right:
                first = before
            else:
                last = after
        weight = float(free[first : last + 1].sum())
        spans.append(Span(float(start_seconds_T[first]), float(ends[last]), weight))
        free[first : last + 1] = -1.0  # taken: below any floor
    return sorted(spans, key=lambda span: -span.weight)


def describe_spans(spans: list[Span]) -> str:
    """One line for people: `0:12:30-0:12:45 (34%), ...`."""
    return ", ".join(
        f"{format_clock(span.start_seconds)}-{format_clock(span.end_seconds)} ({span.weight:.0%})" for span in spans
    )
