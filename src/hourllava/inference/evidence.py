"""Where an answer comes from: which moments of the video its prompt looked at.

MemAug lets the kept tokens and the question look into the memory, in every block and head. Only the kept tokens go on
to the decoder, so their attention, which depends on the question, says how much each frame mattered: summed over
tokens, heads and blocks. Frames that stand out are merged into a few spans of time.

Shapes: Q queries, M memory entries, H heads, G key/value heads, E head width, T frames.
"""

import dataclasses

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from hourllava.model.memaug import MemoryKeysValues

MAX_SPAN_SECONDS = 60.0

# A span grows from its peak as long as frames have at least this part of the peak's mass.
SPAN_FLOOR = 0.5

# Kept tokens whose attention is watched: the 3B model has 8,700 of an hour, and their scores are written out here.
MAX_QUERIES = 256

# Scores are made for at most so many (head, key) pairs at a time: 128 MiB.
MAX_SCORES = 2**25


@dataclasses.dataclass(frozen=True)
class Span:
    """A stretch of the video and the share of the prompt's attention it got (0 to 1)."""

    start_seconds: float
    end_seconds: float
    weight: float


class AttentionMass:
    """Collects how much the kept tokens of a prompt attend to each memory entry; pass `observe` to MemAug.

    Args:
        kept_queries: [N] rows of MemAug's queries that are the prompt's kept tokens; of many, some are watched, drawn
            at random but always the same.
        num_entries: M.
    """

    def __init__(self, kept_queries: Tensor, num_entries: int) -> None:
        # Not every n-th: frames keep equally many tokens, and it would always be the same one of each.
        drawn = np.random.default_rng(0).permutation(len(kept_queries))[:MAX_QUERIES]
        self.queries = kept_queries[torch.from_numpy(drawn).to(kept_queries.device)]
        self.mass_M = torch.zeros(num_entries)
        self.num_blocks = 0

    def observe(self, query_QHE: Tensor, memory: MemoryKeysValues) -> None:
        """Add one block's attention."""
        query_NHE = query_QHE[self.queries]
        keys = list(memory.keys)
        num_groups, width = keys[0].shape[1:]
        rows = max(1, MAX_SCORES // (query_NHE.shape[1] * self.mass_M.shape[0]))
        total = torch.zeros_like(self.mass_M, device=query_NHE.device)
        for query in query_NHE.split(rows):
            query_GNE = query.unflatten(1, (num_groups, -1)).transpose(0, 1).flatten(1, 2)
            scores = [query_GNE @ key.to(query.device).permute(1, 2, 0) for key in keys]
            weights_GNM = (torch.cat(scores, -1).float() * width**-0.5).softmax(-1)
            total += weights_GNM.sum((0, 1))
        self.mass_M += (total / (query_NHE.shape[0] * query_NHE.shape[1])).cpu()
        self.num_blocks += 1

    def per_frame(self, num_frames: int, frame_of_entry: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        """[T] share of each frame; they add up to 1.

        Args:
            num_frames: T.
            frame_of_entry: [M] the frame each memory entry is part of.
        """
        mass = self.mass_M.double().numpy() / max(self.num_blocks, 1)
        return np.bincount(frame_of_entry, weights=mass, minlength=num_frames).astype(np.float64)


def spans_of(
    share_T: npt.NDArray[np.float64],
    start_seconds_T: npt.NDArray[np.float64],
    end_seconds: float,
    max_spans: int = 3,
) -> list[Span]:
    """The stretches of video that got most attention, strongest first.

    A span grows from the frame with the largest share among those not yet taken, to both sides, while frames have at
    least half of the peak's share and the span is not longer than a minute.

    Args:
        share_T: attention share of each frame.
        start_seconds_T: when each frame appears; it stays until the next one does.
        end_seconds: when the last frame goes.
        max_spans: most spans to give.
    """
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
        free[first : last + 1] = -1.0  # below any floor: no other span may take them
    return sorted(spans, key=lambda span: -span.weight)
