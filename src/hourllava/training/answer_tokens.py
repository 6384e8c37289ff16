"""What training does to answers: how much each counts, and noise in what the decoder has read of them so far.

Noise: a word is predicted from the question, the video and the words before it, and what comes often after these needs
no looking. A decoder that has seen many a white star and no white cross says "white star" of both. If some of the words
before are those of other answers, only the video tells (Xie et al., Data noising as smoothing in neural network
language models, arXiv 1703.02573; here words come from the same place of answers of the same length).
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from hourllava.model.head import IGNORED_LABEL


def answer_weights(labels_1L: Tensor, power: float) -> Tensor:
    """[1, L] weight of each supervised token: n to the power of -`power` in an answer of n, 0 elsewhere.

    Args:
        labels_1L: of a packed row.
        power: 0: all tokens count the same; 1: all answers do; 0.5 lies between ("square averaging", InternVL 2.5).
    """
    answer_L = _numbered_answers(labels_1L[0])
    weights = answer_L.bincount().clamp(min=1).float() ** -power
    weights[0] = 0
    return weights[answer_L][None]


def with_answer_noise(input_ids_1L: Tensor, labels_1L: Tensor, share: float, seed: int) -> Tensor:
    """[1, L] the row with some tokens of its answers taken from other answers; labels stay what they were.

    Args:
        input_ids_1L, labels_1L: of a packed row.
        share: of the answers' tokens that are drawn anew: from all that stand at their place in answers as long.
        seed: of the draws.
    """
    answer_L = _numbered_answers(labels_1L[0])
    places_S = answer_L.nonzero()[:, 0]
    if not len(places_S):
        return input_ids_1L
    answer_S = answer_L[places_S]
    length_S = answer_L.bincount()[answer_S]
    first_S = torch.searchsorted(answer_S, answer_S)  # of each token's answer, among all answers' tokens
    kind_S = length_S * len(answer_L) + torch.arange(len(answer_S)) - first_S
    generator = torch.Generator().manual_seed(seed)
    order_S = kind_S.argsort(stable=True)  # kind by kind; the donors too, but shuffled within each
    shuffled_S = torch.randperm(len(kind_S), generator=generator)
    donors_S = shuffled_S[kind_S[shuffled_S].argsort(stable=True)]
    is_drawn_S = torch.rand(len(kind_S), generator=generator) < share
    noisy_L = input_ids_1L[0].clone()
    noisy_L[places_S[order_S[is_drawn_S]]] = input_ids_1L[0, places_S[donors_S[is_drawn_S]]]
    return noisy_L[None]


def _numbered_answers(labels_L: Tensor) -> Tensor:
    """[L] 1, 2, ... in the answers, the stretches of supervised tokens; 0 between them."""
    is_supervised = labels_L != IGNORED_LABEL
    starts = is_supervised & ~F.pad(is_supervised[:-1], (1, 0))
    return starts.cumsum(0) * is_supervised
