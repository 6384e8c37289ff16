"""The batch plan: the samples of every training step, known before any of them is read.

A *micro-batch* is one packed row of whole samples without padding, at most `token_budget` tokens: the input of one
forward pass on one rank. A *step* is `micro_batches_per_step` of them, on all ranks together. The plan is a pure
function of lengths, settings and epoch, but not of the number of ranks: these only share a step's micro-batches, each
the same number, as FSDP's collectives need. So training can stop on 8 ranks and go on with 2, and step k holds the same
samples. A run resumes at step k by asking for `step(k)`; it reads nothing from before.

The published global batch is a number of samples, but samples differ a hundredfold in cost. Here it is a number of
micro-batches, that is, of tokens: `amounts.micro_batches_for` finds the number that holds 128 samples on average.

See docs/batching.md. `hourllava.data.batches.packing` chooses the samples of a step.
"""

import dataclasses
import hashlib
from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from hourllava.data.batches.amounts import Stream, check_fits, draw_samples, samples_per_epoch
from hourllava.data.batches.packing import Ints, pack_steps
from hourllava.errors import ConfigError

Batching = Literal["mixed", "per_stream"]


@dataclasses.dataclass(frozen=True)
class PlanSettings:
    """All that decides a plan besides the streams.

    Attributes:
        token_budget: maximum tokens of a micro-batch.
        micro_batches_per_step: of all ranks together; a multiple of every number of ranks to train on.
        seed: of the order.
        num_epochs: epochs of the plan.
        batching: `mixed` draws from all streams together, `per_stream` takes each step from one stream (stage 3).
    """

    token_budget: int = 32768
    micro_batches_per_step: int = 8
    seed: int = 0
    num_epochs: int = 1
    batching: Batching = "mixed"

    def __post_init__(self) -> None:
        for name in ("token_budget", "micro_batches_per_step", "num_epochs"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be at least 1")
        if self.seed < 0:
            raise ConfigError(f"seed is {self.seed}; it must be 0 or more")
        if self.batching not in get_args(Batching):
            raise ConfigError(f"batching is {self.batching!r}; choose one of {', '.join(get_args(Batching))}")


class Draw(NamedTuple):
    """One sample of a plan.

    Attributes:
        stream, sample: number of the stream, and of the sample in it.
        num_tokens: tokens of the sample, as the plan expects them.
        seed: of the sample's random choices; it differs each time the sample comes.
    """

    stream: int
    sample: int
    num_tokens: int
    seed: int


MicroBatch = list[Draw]
"""Its samples; empty only if an epoch has fewer samples than a step has micro-batches."""


class Balance(NamedTuple):
    """How evenly the steps of an epoch are spread over a number of ranks.

    Attributes:
        fill: filled share of the token budget.
        imbalance: largest difference of a rank's cost from the mean of its step, as a share of the mean.
        efficiency: mean cost of a rank over the costliest rank's, if ranks wait for each other after each step.
        lockstep_efficiency: the same if they wait after each micro-batch, as with FSDP.
    """

    fill: float
    imbalance: float
    efficiency: float
    lockstep_efficiency: float


@dataclasses.dataclass(frozen=True)
class _Epoch:
    """One epoch's micro-batches: [n] samples numbered over all streams, [micro-batches + 1] start of each."""

    samples: NDArray[np.uint32]
    offsets: Ints


class BatchPlan:
    """The steps of a training run, over all its epochs.

    Args:
        streams: of the run; at least one sample in all.
        settings: budget, batch, order.
        max_steps: leaves out epochs that begin after so many steps, and the time to build them.

    Raises:
        ConfigError: a sample longer than the budget, nothing to train on, or amounts that contradict each other.
    """

    def __init__(self, streams: Sequence[Stream], settings: PlanSettings, *, max_steps: int | None = None) -> None:
        self.streams, self.settings = tuple(streams), settings
        self._amounts = samples_per_epoch(self.streams)
        for stream, amount in zip(self.streams, self._amounts):
            if amount > 0:
                check_fits(stream, settings.token_budget)
        sizes = [len(stream.lengths) for stream in self.streams]
        self._first = np.cumsum([0, *sizes])
        self._tokens = np.concatenate([stream.tokens for stream in self.streams])
        self._costs = np.concatenate([stream.costs for stream in self.streams]).astype(np.float64)
        self._built: dict[int, _Epoch] = {}
        steps_per_epoch: list[int] = []
        for epoch in range(settings.num_epochs):
            if max_steps is not None and sum(steps_per_epoch) >= max_steps:
                break
            # An epoch with another part of a stream may need one step more or less.
            steps_per_epoch.append((len(self._epoch(epoch).offsets) - 1) // settings.micro_batches_per_step)
        self.steps_per_epoch = tuple(steps_per_epoch)
        """Steps of each epoch."""
        self._first_step = np.cumsum([0, *self.steps_per_epoch])

    @property
    def num_steps(self) -> int:
        """Steps of all epochs."""
        return sum(self.steps_per_epoch)

    @property
    def samples_per_epoch(self) -> int:
        """Samples an epoch takes from all streams, repeats included."""
        return sum(self._amounts)

    def step(self, number: int) -> list[MicroBatch]:
        """The micro-batches of a step, costliest first; the same for any number of ranks.

        Args:
            number: 0 to `num_steps` - 1, counted over all epochs.
        """
        return self._micro_batches(number, range(self.settings.micro_batches_per_step))

    def rank_step(self, number: int, rank: int, world_size: int) -> list[MicroBatch]:
        """One rank's micro-batches of a step, in order; equally many for every rank.

        At any time the ranks work on micro-batches of similar cost, so they also finish together if each micro-batch
        ends in a collective.

        Raises:
            ConfigError: the step's micro-batches cannot be shared out equally.
        """
        places = _places_of_ranks(self.settings.micro_batches_per_step, world_size)
        return self._micro_batches(number, places[:, rank].tolist())

    def micro_batches_of_rank(self, world_size: int) -> int:
        """Micro-batches of each rank in a step: its gradient accumulation.

        Raises:
            ConfigError: the step's micro-batches cannot be shared out equally.
        """
        return len(_places_of_ranks(self.settings.micro_batches_per_step, world_size))

    def balance(self, world_size: int, epoch: int = 0) -> Balance:
        """How evenly an epoch is spread over a number of ranks."""
        built, size = self._epoch(epoch), self.settings.micro_batches_per_step
        places = _places_of_ranks(size, world_size)
        num_micro_batches = len(built.offsets) - 1
        micro_batch = np.repeat(np.arange(num_micro_batches), np.diff(built.offsets))
        costs = np.bincount(micro_batch, self._costs[built.samples], minlength=num_micro_batches)
        rounds = costs.reshape(-1, size)[:, places]  # [steps, rounds, ranks]
        per_rank = rounds.sum(axis=1)
        mean = per_rank.mean(axis=1)
        return Balance(
            fill=float(self._tokens[built.samples].sum() / (num_micro_batches * self.settings.token_budget)),
            imbalance=float(np.abs(per_rank / mean[:, None] - 1).max()),
            efficiency=float(mean.sum() / per_rank.max(axis=1).sum()),
            lockstep_efficiency=float(mean.sum() / rounds.max(axis=2).sum()),
        )

    def fingerprint(self) -> str:
        """Hex digest of the first epoch's order: a checkpoint keeps it, a resumed run compares it.

        It changes with lengths and settings, and with NumPy if its generators ever change; not with the ranks.
        """
        epoch = self._epoch(0)
        digest = hashlib.sha256(epoch.samples.tobytes())
        digest.update(epoch.offsets.tobytes())
        digest.update(repr(self.settings).encode())
        return digest.hexdigest()

    def _micro_batches(self, step: int, places: Iterable[int]) -> list[MicroBatch]:
        """The micro-batches at these places of a step."""
        assert 0 <= step < self.num_steps, f"step {step} of {self.num_steps}"
        epoch_number = int(np.searchsorted(self._first_step, step, side="right")) - 1
        first = (step - int(self._first_step[epoch_number])) * self.settings.micro_batches_per_step
        epoch = self._epoch(epoch_number)
        return [self._micro_batch(epoch_number, epoch, first + place) for place in places]

    def _micro_batch(self, epoch_number: int, epoch: _Epoch, number: int) -> MicroBatch:
        start, end = epoch.offsets[number : number + 2].tolist()
        samples = epoch.samples[start:end].astype(np.int64)
        streams = np.searchsorted(self._first, samples, side="right") - 1
        places = range(start, end)
        return [
            Draw(int(stream), int(sample), int(num_tokens), _seed_of_draw(self.settings.seed, epoch_number, place))
            for stream, sample, num_tokens, place in zip(
                streams, samples - self._first[streams], self._tokens[samples], places
            )
        ]

    def _epoch(self, number: int) -> _Epoch:
        """The epoch, built unless it is one of the two that were built last.

        Two, because a loader reads ahead into the next epoch while the trainer still asks for the present one, and
        building an epoch of 100,000 samples takes 0.3 s.
        """
        if number not in self._built:
            built = self._build(number)
            self._built = dict([*self._built.items(), (number, built)][-2:])
        return self._built[number]

    def _build(self, number: int) -> _Epoch:
        settings = self.settings
        rng = np.random.default_rng([settings.seed, number])
        chosen = [
            draw_samples(len(stream.lengths), amount, rng) + first
            for stream, amount, first in zip(self.streams, self._amounts, self._first)
            if amount > 0
        ]
        groups = chosen if settings.batching == "per_stream" else [np.concatenate(chosen)]
        size = settings.micro_batches_per_step
        samples, lengths = [], []
        for group in groups:
            packed = pack_steps(self._tokens[group], self._costs[group], settings.token_budget, size, rng)
            samples.append(group[packed.order])
            lengths.append(np.diff(packed.offsets).reshape(-1, size))
        if len(groups) == 1:
            return _Epoch(samples[0].astype(np.uint32), _offsets(lengths[0].ravel()))
        return _shuffle_steps(np.concatenate(samples), np.concatenate(lengths), rng)


def _shuffle_steps(samples: Ints, lengths: Ints, rng: np.random.Generator) -> _Epoch:
    """The epoch with its steps in random order; `lengths` [steps, micro-batches] counts the samples of each."""
    steps = rng.permutation(len(lengths))
    per_step = lengths.sum(axis=1)
    step_of_sample = np.repeat(np.argsort(steps), per_step)
    return _Epoch(
        samples[np.argsort(step_of_sample, kind="stable")].astype(np.uint32), _offsets(lengths[steps].ravel())
    )


def _offsets(lengths: Ints) -> Ints:
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])


def _places_of_ranks(micro_batches_per_step: int, world_size: int) -> Ints:
    """[rounds, ranks] place in the step of each rank's micro-batch in each round.

    Places are ordered by cost. Every other round runs backwards, so that no rank always gets the costliest.
    """
    if world_size < 1 or micro_batches_per_step % world_size:
        raise ConfigError(
            f"a step of {micro_batches_per_step} micro-batches cannot be shared out equally to {world_size} ranks; "
            "choose it (in a recipe: batch.multiple_of) as a multiple of every number of ranks to train on"
        )
    places = np.arange(micro_batches_per_step).reshape(-1, world_size)
    places[1::2] = places[1::2, ::-1]
    return places


def _seed_of_draw(seed: int, epoch: int, place: int) -> int:
    """A seed of 63 bits that neighbouring draws do not share."""
    return int(np.random.SeedSequence([seed, epoch, place]).generate_state(1, np.uint64)[0] >> 1)
