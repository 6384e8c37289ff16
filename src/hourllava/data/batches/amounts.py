"""Streams of a training run, and how many samples of each an epoch takes."""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from hourllava.data.batches.cost import Flops, Lengths, check_lengths
from hourllava.data.batches.packing import TARGET_FILL, Ints
from hourllava.errors import ConfigError


@dataclasses.dataclass(frozen=True)
class Stream:
    """The samples of one stream, and how many of them an epoch takes.

    Give at most one of `proportion`, `repeat` and `choose`; without them, an epoch takes every sample once. All samples
    come equally often, except for a remainder that each epoch draws anew.

    Attributes:
        name: for messages.
        lengths: [N, 3], see `hourllava.data.batches.cost`.
        costs: [N] estimated operations of each sample.
        proportion: weight among the streams; an epoch is then as long as all streams together. For all streams or none.
        repeat: how often an epoch takes each sample; 0.5 takes half of the stream.
        choose: how many samples an epoch takes.
    """

    name: str
    lengths: Lengths
    costs: Flops
    proportion: float | None = None
    repeat: float | None = None
    choose: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "lengths", check_lengths(self.lengths, self.name))
        if len(self.costs) != len(self.lengths):
            raise ConfigError(f"stream {self.name} has {len(self.lengths)} samples but {len(self.costs)} costs")
        amounts = [amount for amount in (self.proportion, self.repeat, self.choose) if amount is not None]
        if len(amounts) > 1:
            raise ConfigError(f"stream {self.name}: give one of proportion, repeat and choose, not several")
        if any(not np.isfinite(amount) or amount < 0 for amount in amounts):
            raise ConfigError(f"stream {self.name}: proportion, repeat and choose must be 0 or more, got {amounts[0]}")

    @property
    def tokens(self) -> Ints:
        """[N] tokens of each sample in the decoder's sequence."""
        return self.lengths[:, 1:].sum(axis=1, dtype=np.int64)

    @property
    def is_left_out(self) -> bool:
        """Whether its amount was set to 0."""
        return 0 in (self.proportion, self.repeat, self.choose)


def samples_per_epoch(streams: Sequence[Stream]) -> list[int]:
    """Samples an epoch takes from each stream: at least one, unless its amount is 0.

    Raises:
        ConfigError: proportions for some streams only, an empty stream that is not left out, or none at all.
    """
    has_proportion = [stream.proportion is not None for stream in streams]
    if any(has_proportion) and not all(has_proportion):
        without = streams[has_proportion.index(False)].name
        raise ConfigError(f"stream {without} has no proportion but others have; give proportions to all or to none")
    total, weights = sum(len(stream.lengths) for stream in streams), sum(stream.proportion or 0.0 for stream in streams)
    amounts = []
    for stream in streams:
        num_samples = len(stream.lengths)
        amount: float = num_samples
        if stream.proportion is not None:
            amount = total * stream.proportion / weights if weights else 0
        elif stream.repeat is not None:
            amount = stream.repeat * num_samples
        elif stream.choose is not None:
            amount = stream.choose
        wanted = 0 if stream.is_left_out else max(round(amount), 1)
        if wanted > 0 and num_samples == 0:
            raise ConfigError(
                f"stream {stream.name} is to give {wanted} samples but has none; leave it out, or check its folder"
            )
        amounts.append(wanted)
    if sum(amounts) == 0:
        raise ConfigError("the streams give no samples; check their folders and amounts")
    return amounts


def check_fits(stream: Stream, token_budget: int) -> None:
    """Raise ConfigError, naming it, if a sample is longer than the budget."""
    longest = int(stream.tokens.argmax())
    num_tokens = int(stream.tokens[longest])
    if num_tokens > token_budget:
        raise ConfigError(
            f"sample {longest} of stream {stream.name} has {num_tokens} tokens, more than the token budget of "
            f"{token_budget}; raise token_budget to at least {num_tokens} or leave the sample out"
        )


def draw_samples(num_samples: int, amount: int, rng: np.random.Generator) -> Ints:
    """[amount] samples: each equally often, and a random part of them once more."""
    whole, rest = divmod(amount, num_samples)
    every = np.tile(np.arange(num_samples), whole)
    return np.concatenate([every, rng.permutation(num_samples)[:rest]]) if rest else every


def micro_batches_for(
    streams: Sequence[Stream],
    token_budget: int,
    *,
    mean_samples: float | None = None,
    mean_tokens: float | None = None,
    multiple_of: int = 1,
) -> int:
    """Micro-batches per step for a global batch given in samples or in tokens.

    Args:
        streams: of the plan; from them follow the mean tokens of a sample.
        token_budget: of a micro-batch.
        mean_samples, mean_tokens: mean of a step; give one of the two.
        multiple_of: the result is the nearest multiple of this above 0; the largest number of ranks to train on.
    """
    mean_tokens = _mean_tokens(streams, mean_samples, mean_tokens)
    return max(round(mean_tokens / token_budget / multiple_of), 1) * multiple_of


def row_tokens_for(
    streams: Sequence[Stream],
    token_budget: int,
    *,
    mean_samples: float | None = None,
    mean_tokens: float | None = None,
    multiple_of: int = 1,
) -> int:
    """Maximum tokens of a micro-batch: the budget, or less if a step of full micro-batches would be twice too large.

    It is never less than the tokens of the longest sample.

    Args:
        as of `micro_batches_for`.
    """
    mean_tokens = _mean_tokens(streams, mean_samples, mean_tokens)
    wanted = math.ceil(mean_tokens / multiple_of / TARGET_FILL)
    if 2 * wanted >= token_budget:
        return token_budget
    drawn = [stream for stream, amount in zip(streams, samples_per_epoch(streams)) if amount > 0]
    longest = max(int(stream.tokens.max()) for stream in drawn)
    return min(max(wanted, longest), token_budget)


def _mean_tokens(streams: Sequence[Stream], mean_samples: float | None, mean_tokens: float | None) -> float:
    """Mean tokens of a step that is given in samples or in tokens."""
    if (mean_samples is None) == (mean_tokens is None):
        raise ConfigError("give the global batch in samples or in tokens, one of the two")
    if mean_tokens is not None:
        return mean_tokens
    assert mean_samples is not None
    amounts = np.array(samples_per_epoch(streams))
    means = np.array([stream.tokens.mean() if len(stream.tokens) else 0.0 for stream in streams])
    return mean_samples * float((amounts * means).sum() / amounts.sum())
