"""Noise in the answers that the decoder reads: what changes, and what never does."""

import numpy as np
import pytest
import torch

from hourllava.training.answer_tokens import with_answer_noise

# Five answers of 2, 3, 2, 1 and 2 tokens, each ended by 7; 0 is prompt.
LABELS = torch.tensor([[0, 0, 11, 7, 0, 21, 22, 7, 0, 13, 7, 0, 7, 0, 15, 7, 0, 0]])
IDS = torch.where(LABELS == 0, torch.arange(LABELS.numel()) + 100, LABELS)
LABELS[LABELS == 0] = -100


def test_only_the_same_places_of_answers_as_long_are_exchanged():
    seen = np.array([with_answer_noise(IDS, LABELS, 1.0, seed)[0].tolist() for seed in range(200)])
    for place, values in enumerate(seen.T):
        expected = {11, 13, 15} if place in (2, 9, 14) else {int(IDS[0, place])}
        assert set(values.tolist()) == expected
    assert (np.sort(seen, axis=1) == np.sort(IDS.numpy())).all()  # with share 1 tokens are permuted


@pytest.mark.parametrize("share", [0.0, 0.2, 0.7])
def test_the_share_that_is_drawn(share):
    """All answers differ, so nearly every replaced token changes."""
    labels = torch.full((1, 40_000), -100)
    labels[0, 1::4] = torch.arange(10_000)
    ids = torch.arange(40_000)[None]
    changed = with_answer_noise(ids, labels, share, seed=5) != ids
    assert not changed[labels == -100].any()
    assert changed[labels != -100].float().mean() == pytest.approx(share, abs=0.02)


def test_the_same_seed_gives_the_same_and_the_row_itself_stays():
    ids = IDS.clone()
    first, again, other = (with_answer_noise(ids, LABELS, 1.0, seed) for seed in (1, 1, 4))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(ids, IDS)
    nothing = torch.full_like(LABELS, -100)
    assert torch.equal(with_answer_noise(ids, nothing, 1.0, 1), ids)
