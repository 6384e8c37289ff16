"""Choosing tokens from logits: the likeliest token, or a seeded random one.

A row draws its random numbers from its own seed, one per token, before it is decoded. So its tokens depend neither on
the rows beside it nor on the device that computes the logits.

Shapes: B rows, V vocabulary.
"""

import dataclasses
import math

import torch
from torch import Tensor

from hourllava.errors import ConfigError

# Lower temperatures act like this one, which acts like 0; float32 cannot hold them.
MIN_TEMPERATURE = 1e-30


@dataclasses.dataclass(frozen=True)
class Sampling:
    """How the tokens of one answer are chosen.

    Attributes:
        temperature: 0 takes the likeliest token; larger values flatten the probabilities.
        top_p: tokens are drawn from the likeliest ones that together have this probability; above 0, at most 1.
        seed: of the random numbers. Equal questions with equal seeds get equal answers.

    Raises:
        ConfigError: a number is outside what is allowed.
    """

    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.temperature < math.inf:
            raise ConfigError(f"temperature is {self.temperature}; it must be 0 (always the likeliest token) or more")
        if not 0 < self.top_p <= 1:
            raise ConfigError(f"top_p is {self.top_p}; it must lie above 0 and not above 1")
        if not -(2**63) <= self.seed < 2**64:
            raise ConfigError(f"seed is {self.seed}; it must have at most 64 bits")

    @property
    def is_greedy(self) -> bool:
        """Whether the likeliest token is always taken, so that no random number is needed."""
        return self.temperature == 0

    def uniforms(self, num_tokens: int) -> Tensor:
        """[num_tokens] random numbers from 0 to 1, float32 on the CPU; those of fewer tokens are the first of them."""
        return torch.rand(num_tokens, generator=torch.Generator().manual_seed(self.seed))


def draw(logits_BV: Tensor, sampling: Sampling, uniform_B: Tensor) -> Tensor:
    """[B, V] -> [B] token ids, drawn with one random number each; nothing waits for the device.

    Args:
        logits_BV: on any device.
        sampling: not greedy.
        uniform_B: random numbers from 0 to 1, on the same device.
    """
    logits_BV = logits_BV.float()
    # The largest logit becomes 0 first, because a tiny temperature would make it infinite.
    scaled = (logits_BV - logits_BV.amax(-1, keepdim=True)) / max(sampling.temperature, MIN_TEMPERATURE)
    probabilities, order = scaled.softmax(-1).sort(-1, descending=True)
    # A token is a candidate if the likelier ones have less than top_p together; the likeliest always is.
    before = probabilities.cumsum(-1) - probabilities
    probabilities = probabilities.masked_fill(before >= sampling.top_p, 0.0)
    reached = probabilities.cumsum(-1)
    # The first candidate whose sum passes the random share of the whole. Rounding may leave none: then the last one.
    place = (reached <= uniform_B[:, None] * reached[:, -1:]).sum(-1, keepdim=True)
    last = (probabilities > 0).sum(-1, keepdim=True) - 1
    return order.gather(1, torch.minimum(place, last))[:, 0]
