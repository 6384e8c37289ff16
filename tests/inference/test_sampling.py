"""Tokens that are drawn: seeded, as probable as they should be, at any temperature."""

import pytest
import torch

from hourllava.errors import ConfigError
from hourllava.inference.rows.sampling import Sampling, draw


def drawn(logits_V, num_draws=2000, **settings):
    sampling = Sampling(**settings)
    logits = logits_V.expand(num_draws, -1)
    return draw(logits, sampling, sampling.uniforms(num_draws))


def test_chance_is_seeded_and_follows_the_probabilities():
    logits = torch.tensor([2.0, 1.0, 0.0, -1.0])
    frequencies = torch.bincount(drawn(logits, temperature=1.0, seed=1), minlength=4) / 2000
    torch.testing.assert_close(frequencies, logits.softmax(-1), atol=0.04, rtol=0)
    assert drawn(logits, temperature=1.0, seed=5).tolist() == drawn(logits, temperature=1.0, seed=5).tolist()
    assert drawn(logits, temperature=1.0, seed=5).tolist() != drawn(logits, temperature=1.0, seed=6).tolist()
    assert set(drawn(logits, 50, temperature=0.05).tolist()) == {0}
    nucleus = drawn(logits, temperature=1.0, top_p=0.8)  # 0.64 + 0.24 reach 0.8
    share = torch.bincount(nucleus, minlength=4) / 2000
    torch.testing.assert_close(share, torch.tensor([0.731, 0.269, 0.0, 0.0]), atol=0.04, rtol=0)


@pytest.mark.parametrize("temperature", [1e-320, 1e-300, 1e-40, 1e-30, 1e-6])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e4])
def test_a_tiny_temperature_takes_the_likeliest(temperature, scale):
    logits = torch.randn(3, 50, generator=torch.Generator().manual_seed(0)) * scale
    logits[:, 7] = -torch.inf
    for dtype in (torch.float32, torch.bfloat16):
        for uniform in (0.0, 0.5, 1.0 - 2**-24):
            chosen = draw(logits.to(dtype), Sampling(temperature), torch.full((3,), uniform))
            assert logits.to(dtype).gather(1, chosen[:, None])[:, 0].tolist() == logits.to(dtype).amax(1).tolist()


def test_a_huge_temperature_takes_any():
    assert set(drawn(torch.tensor([50.0, 0.0, -50.0]), 50, temperature=1e300).tolist()) == {0, 1, 2}


@pytest.mark.parametrize("top_p", [1e-9, 0.3, 0.9, 1.0])
@pytest.mark.parametrize("num_tokens", [1, 7, 150_000])
def test_a_drawn_token_is_a_candidate_whatever_the_number(top_p, num_tokens):
    """Rounding of sums must never give a token without probability."""
    logits = torch.randn(1, num_tokens, generator=torch.Generator().manual_seed(0))
    logits[:, ::3] = -torch.inf
    logits[:, -1] = 0.0
    for uniform in (0.0, 1e-12, 0.9999, 1.0 - 2**-24):
        token = draw(logits, Sampling(1.0, top_p), torch.tensor([uniform]))
        assert torch.isfinite(logits[0, token])


def test_numbers_of_a_row_do_not_depend_on_its_limit():
    assert Sampling(seed=3).uniforms(5).tolist() == Sampling(seed=3).uniforms(500)[:5].tolist()


@pytest.mark.parametrize(
    "options",
    [
        {"temperature": -1}, {"temperature": float("nan")}, {"temperature": float("inf")}, {"top_p": 0},
        {"top_p": 1.5}, {"top_p": float("nan")}, {"seed": 2**64}, {"seed": -(2**63) - 1},
    ],
)  # fmt: skip
def test_bad_sampling_is_refused(options):
    with pytest.raises(ConfigError, match=next(iter(options))):
        Sampling(**options)
