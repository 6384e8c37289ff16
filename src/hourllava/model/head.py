"""The language-model head: logits for generation, the loss for training.

Shapes: N tokens, B rows, L tokens of a row, D width, V vocabulary.
"""

import dataclasses
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers.modeling_outputs import CausalLMOutputWithPast

from hourllava.model.attention import cut_into_chunks
from hourllava.model.backbones import DECODERS

IGNORED_LABEL = -100
"""Label of a token that is not supervised."""

# The loss makes at most this many logits at a time: in float32 they are 0.6 GB, 1,024 tokens of Qwen2's vocabulary.
LOSS_CHUNK_LOGITS = 1024 * 152_064


@dataclasses.dataclass
class HourLlavaOutput(CausalLMOutputWithPast):
    """The output of transformers' causal models, with the loss of each token.

    Attributes:
        target_losses: [B * L] cross-entropy of the prediction at each position, 0 where unsupervised; no gradient.
        evidence_shares: [R] share of attention on the evidence of each grounded sample; no gradient.
    """

    target_losses: Tensor | None = None
    evidence_shares: Tensor | None = None


@dataclasses.dataclass
class Targets:
    """The tokens that the N positions of a batch must predict.

    Attributes:
        ids_N: token ids, -100 where nothing is supervised.
        weights_N: weight of each in the loss, 0 where nothing is supervised.
        places_S: the supervised positions.
    """

    ids_N: Tensor
    weights_N: Tensor
    places_S: Tensor

    @classmethod
    def of(cls, labels_BL: Tensor, label_weights_BL: Tensor | None) -> "Targets":
        """Targets of labels. Call it before the forward pass: `nonzero()` waits for all queued GPU work."""
        ids_BL = next_token_targets(labels_BL)
        weights_N, ids_N = target_weights(ids_BL, label_weights_BL).flatten(), ids_BL.flatten()
        return cls(ids_N, weights_N, (ids_N != IGNORED_LABEL).nonzero()[:, 0])


class LanguageModelHead(nn.Linear):
    """Hidden states to logits; or to losses, without ever holding all logits.

    The loss is computed in this module because under FSDP only the module's own forward sees its whole weight.

    Args:
        text_config: of the decoder; its family may add a bias or multiply the logits.
    """

    def __init__(self, text_config: Any) -> None:
        family = DECODERS[text_config.model_type]
        super().__init__(text_config.hidden_size, text_config.vocab_size, bias=family.has_head_bias)
        self.logit_factor = float(family.logit_factor(text_config))

    def forward(self, hidden_ND: Tensor, targets: Targets | None = None) -> Tensor:
        """[..., D] -> [..., V] logits; with targets: [N] float32 cross-entropies, 0 where nothing is supervised."""
        if targets is None:
            return self._logits(hidden_ND)
        targets_N, places_S = targets.ids_N, targets.places_S
        losses_N = torch.zeros(
            len(targets_N), dtype=torch.promote_types(hidden_ND.dtype, torch.float32), device=hidden_ND.device
        )
        if not len(places_S):  # other ranks wait for our gradient of this weight
            return losses_N + self._losses(hidden_ND[:1], targets_N[:1].clamp(min=0)) * 0
        hidden_ND, targets_N = hidden_ND.index_select(0, places_S), targets_N[places_S]
        chunks = [
            checkpoint(self._losses, hidden_ND[chunk], targets_N[chunk], use_reentrant=False)
            for chunk in cut_into_chunks(len(targets_N), max(1, LOSS_CHUNK_LOGITS // self.out_features))
        ]
        return losses_N.index_put((places_S,), torch.cat(chunks))

    def _logits(self, hidden_ND: Tensor) -> Tensor:
        logits = super().forward(hidden_ND)
        return logits if self.logit_factor == 1.0 else logits * self.logit_factor

    def _losses(self, hidden_ND: Tensor, targets_N: Tensor) -> Tensor:
        logits = self._logits(hidden_ND)
        loss_dtype = torch.promote_types(logits.dtype, torch.float32)
        return F.cross_entropy(logits.to(loss_dtype), targets_N, reduction="none")


def target_weights(targets_BL: Tensor, label_weights_BL: Tensor | None) -> Tensor:
    """[B, L] weight of each target: 0 where nothing is supervised, else the label's weight or 1."""
    is_target_BL = targets_BL != IGNORED_LABEL
    return is_target_BL if label_weights_BL is None else is_target_BL * F.pad(label_weights_BL[:, 1:], (0, 1))


def next_token_targets(labels_BL: Tensor) -> Tensor:
    """[B, L] target of each position: the label of the next position, -100 at the end of a row.

    The last position of a packed sample gets -100 too, because `collate_packed` sets the first label of each sample so.
    """
    return F.pad(labels_BL[:, 1:], (0, 1), value=IGNORED_LABEL)
