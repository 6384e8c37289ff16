"""What training does to answers: their weights in the loss, and noise in the answer tokens that the decoder reads.

Why noise: the decoder predicts a word from the question, the video and the words before it. The words before may be
enough: a decoder that saw many white stars and no white cross says "white star" of both. Noise replaces some of these
words by words of other answers, so the decoder must look at the video (Xie et al., Data noising as smoothing in neural
network language models, arXiv 1703.02573; here the words come from the same position of answers of the same length).
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from hourllava.model.head import IGNORED_LABEL


def answer_weights(labels_1L: Tensor, power: float) -> Tensor:
    """[1, L] weight of each supervised token: 1 / n^power in an answer of n tokens; 0 for all other tokens.

    Args:
        labels_1L: the labels of a micro-batch.
        power: 0 gives all tokens the same weight, 1 all answers, 0.5 lies between ("square averaging", InternVL 2.5).
    """
    answer_L = _numbered_answers(labels_1L[0])
    weights = answer_L.bincount().clamp(min=1).float() ** -power
    weights[0] = 0
    return weights[answer_L][None]


def with_answer_noise(input_ids_1L: Tensor, labels_1L: Tensor, share: float, seed: int) -> Tensor:
    """[1, L] a micro-batch's tokens, some answer tokens replaced by those of other answers; labels do not change.

    Args:
        input_ids_1L, labels_1L: the tokens and labels of a micro-batch.
        share: share of the answer tokens to replace, each by a token from the same position of an answer of the same
            length.
        seed: seed of the random choices.
    """
    answer_L = _numbered_answers(labels_1L[0])
    places_S = answer_L.nonzero()[:, 0]
    if not len(places_S):
        return input_ids_1L
    answer_S = answer_L[places_S]
    length_S = answer_L.bincount()[answer_S]
    first_S = torch.searchsorted(answer_S, answer_S)  # where each token's answer begins, among all answer tokens
    kind_S = length_S * len(answer_L) + torch.arange(len(answer_S)) - first_S
    generator = torch.Generator().manual_seed(seed)
    order_S = kind_S.argsort(stable=True)  # sorted by kind; donors are sorted too, but shuffled within a kind
    shuffled_S = torch.randperm(len(kind_S), generator=generator)
    donors_S = shuffled_S[kind_S[shuffled_S].argsort(stable=True)]
    is_drawn_S = torch.rand(len(kind_S), generator=generator) < share
    noisy_L = input_ids_1L[0].clone()
    noisy_L[places_S[order_S[is_drawn_S]]] = input_ids_1L[0, places_S[donors_S[is_drawn_S]]]
    return noisy_L[None]


def _numbered_answers(labels_L: Tensor) -> Tensor:
    """[L] the number of each token's answer, from 1; 0 outside. An answer is a run of supervised tokens."""
    is_supervised = labels_L != IGNORED_LABEL
    starts = is_supervised & ~F.pad(is_supervised[:-1], (1, 0))
    return starts.cumsum(0) * is_supervised
