"""Grounding: teaches MemAug where to look, from the moments of a video that show the answer.

A record may name these moments (`evidence` of an answer). A part of the attention of the sample's recall tokens (its
kept tokens, if it has none), in every block and head, should then fall on the memory entries of these moments.
`hourllava.inference.questions.evidence` measures the same share when a question is asked. The paper trains by answers
alone, which is a long search among thousands of frames.

    grounding = Grounding(layouts.evidence, layouts.memory_segments)
    model.recall(embeds, visuals, grounding.observe)
    loss_R = grounding_loss(grounding.shares())

Shapes: R samples with evidence, W recall or kept tokens of theirs, Q queries, H heads, E head width.
"""

import torch
from torch import Tensor

from hourllava.model.attention import Segments
from hourllava.model.attention_share import share_of_marked_keys
from hourllava.model.batch import EvidenceBatch
from hourllava.model.memaug import MemoryKeysValues

# This share stands out among thousands of frames, and leaves heads free to look at other things.
ENOUGH = 0.3

# Smaller shares count as this one, so that the logarithm stays finite.
LEAST_SHARE = 1e-6


class Grounding:
    """Collects the share of attention on the evidence of each sample; pass `observe` to MemAug.

    Args:
        evidence: of the batch.
        memory_segments: entries of each memory of the batch.
    """

    def __init__(self, evidence: EvidenceBatch, memory_segments: Segments) -> None:
        self.evidence, self.memory_segments = evidence, memory_segments
        self._shares_WH: list[Tensor] = []

    def observe(self, query_QHE: Tensor, memory: MemoryKeysValues) -> None:
        """Add one block's attention."""
        evidence, (key_MGE,) = self.evidence, memory.keys
        watching = query_QHE.index_select(0, evidence.watching_index)
        shares_WH = share_of_marked_keys(
            watching,
            key_MGE,
            evidence.entry_index,
            (evidence.recall_segments, evidence.watching_segments),
            self.memory_segments,
            evidence.entry_segments,
        )
        self._shares_WH.append(shares_WH)

    def shares(self) -> Tensor:
        """[R] share of each sample's attention, a mean over these tokens, heads and blocks; with a gradient."""
        share_W = torch.stack(self._shares_WH).mean((0, 2))
        evidence = self.evidence
        counted_2W = torch.stack([share_W, torch.ones_like(share_W)])
        nothing_2R = share_W.new_zeros(2, len(evidence.watching_segments.lengths))
        sums_R, counts_R = nothing_2R.index_add(1, evidence.watching_sample, counted_2W)
        return sums_R / counts_R


def grounding_loss(shares_R: Tensor) -> Tensor:
    """[R] negative logarithm of share / `ENOUGH`; 0 for larger shares."""
    return -(shares_R.clamp(LEAST_SHARE, ENOUGH) / ENOUGH).log()
