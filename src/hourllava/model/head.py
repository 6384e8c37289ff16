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
    """What transformers' models return, and the loss token by token.

    Attributes:
        target_losses: [B * L] cross-entropy of each position's prediction, 0 where none is supervised; no gradient.
        evidence_shares: [R] of the samples that are grounded, the share of attention on their evidence; no gradient.
    """

    target_losses: Tensor | None = None
    evidence_shares: Tensor | None = None


@dataclasses.dataclass
class Targets:
    """What the N positions of a batch must predict.

    Attributes:
        ids_N: token ids, -100 where nothing is supervised.
        weights_N: what each counts in the loss, 0 where nothing is supervised.
        places_S: where something is.
    """

    ids_N: Tensor
    weights_N: Tensor
    places_S: Tensor

    @classmethod
    def of(cls, labels_BL: Tensor, label_weights_BL: Tensor | None) -> "Targets":
        """Best made before a forward pass: a GPU that is asked for the places first finishes all it was given."""
        ids_BL = next_token_targets(labels_BL)
        weights_N, ids_N = target_weights(ids_BL, label_weights_BL).flatten(), ids_BL.flatten()
        return cls(ids_N, weights_N, (ids_N != IGNORED_LABEL).nonzero()[:, 0])


class LanguageModelHead(nn.Linear):
    """Hidden states to logits, or straight to losses without ever holding all logits.

    The loss lives here, not beside it, because under FSDP only this module's own forward sees its whole weight.

    Args:
        text_config: of the decoder, whose family may add a bias or multiply the logits.
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
        if not len(places_S):  # other ranks' gradients of this weight wait for ours
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
    """[B, L] weight of what each position must predict (`next_token_targets`): 0 if nothing, else the label's or 1."""
    is_target_BL = targets_BL != IGNORED_LABEL
    return is_target_BL if label_weights_BL is None else is_target_BL * F.pad(label_weights_BL[:, 1:], (0, 1))


def next_token_targets(labels_BL: Tensor) -> Tensor:
    """[B, L] what each position must predict: the label of the next one, -100 at the end of a row.

    At the end of a packed sample, too, if the next one's first label is -100, as `collate_packed` makes it.
    """
    return F.pad(labels_BL[:, 1:], (0, 1), value=IGNORED_LABEL)
