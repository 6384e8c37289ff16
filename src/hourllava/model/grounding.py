"""Grounding: teaching MemAug where to look, from moments that are known to show the answer.

A record may tell the moments of the video that it is about (`evidence` of an answer). Of all attention of a question's
kept tokens, in every block and head, some should then fall on them: on the entries of these moments in the memory.
`hourllava.inference.evidence` measures the same thing when a question is asked. The paper trains by answers alone;
among thousands of frames that is a long search.

    grounding = Grounding(visuals.evidence, visuals.memory_segments)
    model.recall(embeds, visuals, memory, grounding.observe)
    loss_R = grounding_loss(grounding.shares())

Shapes: R samples with evidence, W kept tokens of theirs, Q queries, H heads, E head width.
"""

import torch
from torch import Tensor

from hourllava.model.attention import Segments
from hourllava.model.attention_share import share_of_marked_keys
from hourllava.model.batch import EvidenceBatch
from hourllava.model.memaug import MemoryKeysValues

# Enough to stand out among thousands of frames; heads stay free to look at other things.
ENOUGH = 0.3

# A share below is as good as none, and its logarithm no more urgent.
LEAST_SHARE = 1e-6


class Grounding:
    """Collects how much of their attention samples give to their evidence; pass `observe` to MemAug.

    Args:
        evidence: of the batch.
        memory_segments: entries of each memory of the batch.
    """

    def __init__(self, evidence: EvidenceBatch, memory_segments: Segments) -> None:
        self.evidence, self.memory_segments = evidence, memory_segments
        self._shares_WH: list[Tensor] = []

    def observe(self, query_QHE: Tensor, memory: MemoryKeysValues) -> None:
        """Look at one block's attention."""
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
        """[R] share of each sample's attention, a mean over its kept tokens, heads and blocks; with a gradient."""
        share_W = torch.stack(self._shares_WH).mean((0, 2))
        evidence = self.evidence
        counted_2W = torch.stack([share_W, torch.ones_like(share_W)])
        nothing_2R = share_W.new_zeros(2, len(evidence.watching_segments.lengths))
        sums_R, counts_R = nothing_2R.index_add(1, evidence.watching_sample, counted_2W)
        return sums_R / counts_R


def grounding_loss(shares_R: Tensor) -> Tensor:
    """[R] negative logarithm of the share, as a part of what is enough: 0 from there on."""
    return -(shares_R.clamp(LEAST_SHARE, ENOUGH) / ENOUGH).log()
