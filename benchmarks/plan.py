"""The batch plan on the stage-3 mixture: time to build it, fill, balance, and what the ranks gain by it.

    python benchmarks/plan.py                  # needs no data and no GPU, about 1 minute on one core

Lengths are those of `benchmarks/published_lengths.py`, costs those of `hourllava.data.batches.cost` for the 7B
model: estimated operations, not measured seconds. A step lasts as long as its slowest rank, so what the table compares
is how much of the ranks' time is work.

- `one each, wait`: the released scheme: each rank takes one sample, all wait for the longest, then take the next.
- `wait per step`: the same, kinder: each rank goes through its share of 128 samples, then waits.
- `plan`: packed micro-batches; ranks wait after every one of them, as FSDP makes them. With 64 ranks a step is larger
  than the published 128 samples: 64 micro-batches that each must hold the longest sample cannot be smaller.

Small samples also use a GPU badly when they run alone; that is not counted, so the gain is understated.
"""

import argparse
import resource
import time
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from hourllava.data.batches.amounts import Stream, micro_batches_for
from hourllava.data.batches.plan import Batching, BatchPlan, PlanSettings
from hourllava.model.config import HourLlavaConfig
from published_lengths import stage_3_streams

TOKEN_BUDGET = 32768
PUBLISHED_BATCH_SAMPLES = 128


def shuffled_per_step(streams: list[Stream], batching: Batching, num_samples: int) -> list[NDArray[np.float64]]:
    """[steps, samples] costs of the samples of each step, for each stream that steps are drawn from."""
    groups = [stream.costs for stream in streams]
    if batching == "mixed":
        groups = [np.concatenate(groups)]
    rng = np.random.default_rng(0)
    return [
        rng.permutation(group)[: len(group) // num_samples * num_samples].reshape(-1, num_samples) for group in groups
    ]


def one_each(streams: list[Stream], batching: Batching, ranks: int) -> tuple[float, float]:
    """Efficiency of one sample per rank: waiting after each sample, waiting after each step of 128."""
    steps = shuffled_per_step(streams, batching, PUBLISHED_BATCH_SAMPLES)
    rounds = [costs.reshape(len(costs), -1, ranks) for costs in steps]
    work = sum(costs.sum() for costs in rounds) / ranks
    return (
        work / sum(costs.max(axis=2).sum() for costs in rounds),
        work / sum(costs.sum(axis=1).max(axis=1).sum() for costs in rounds),
    )


def spread_within(plan: BatchPlan, streams: list[Stream]) -> tuple[float, float]:
    """Intraclass correlation of log tokens within micro-batches and steps of a plan: 0 by chance, 1 if sorted."""
    log_tokens = np.log(np.concatenate([stream.tokens for stream in streams]))
    first = np.cumsum([0, *(len(stream.lengths) for stream in streams)])
    steps = [plan.step(number) for number in range(0, plan.num_steps, max(plan.num_steps // 200, 1))]
    values, steps_of, micro_batches_of = [], [], []
    for number, step in enumerate(steps):
        for place, micro_batch in enumerate(step):
            values += [log_tokens[first[draw.stream] + draw.sample] for draw in micro_batch]
            steps_of += [number] * len(micro_batch)
            micro_batches_of += [number * len(step) + place] * len(micro_batch)
    return tuple(intraclass_correlation(np.array(values), np.array(groups)) for groups in (micro_batches_of, steps_of))


def intraclass_correlation(values: NDArray[np.float64], groups: NDArray[np.int64]) -> float:
    """One-way analysis of variance: the share of variance that lies between groups beyond what chance puts there."""
    counts = np.bincount(groups)
    means = np.bincount(groups, values) / counts
    between = (counts * (means - values.mean()) ** 2).sum() / (len(counts) - 1)
    within = ((values - means[groups]) ** 2).sum() / (len(values) - len(counts))
    size = (len(values) - (counts**2).sum() / len(values)) / (len(counts) - 1)
    return float((between - within) / (between + (size - 1) * within))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=3_300_000, help="for the build time")
    parser.add_argument("--mixture-samples", type=int, default=600_000, help="for the tables")
    arguments = parser.parse_args()
    config = HourLlavaConfig.preset("hourllava-7b")

    streams = list(stage_3_streams(arguments.samples, config))
    for size in (8, 64):
        started = time.perf_counter()
        plan = BatchPlan(streams, PlanSettings(TOKEN_BUDGET, size))
        seconds = time.perf_counter() - started
        started = time.perf_counter()
        plan.rank_step(plan.num_steps - 1, 0, 8)
        print(
            f"{plan.samples_per_epoch:,} samples into {plan.num_steps:,} steps of {size} micro-batches: "
            f"{seconds:.1f} s, then {1e3 * (time.perf_counter() - started):.2f} ms for a rank's share of the last step"
        )
    print(f"peak memory of the process {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GiB")

    streams = list(stage_3_streams(arguments.mixture_samples, config))
    for name, samples in (("128 samples", 128), ("256 samples", 256)):
        count = micro_batches_for(streams, TOKEN_BUDGET, mean_samples=samples)
        print(f"a global batch of {name} is {samples * mean_tokens(streams):,.0f} tokens: {count} micro-batches")
    print()
    print("| batches | ranks | budget | micro-batches | samples a step | fill | worst rank | one each, wait "
          "| wait per step | plan | gain | over wait per step |")  # fmt: skip
    print("|---|" + "---:|" * 11)
    plans = {}
    for batching in get_args(Batching):
        for ranks, budget, size in ((8, 32768, 8), (8, 32768, 64), (64, 32768, 64), (64, 16384, 64), (64, 12288, 64)):
            plan = BatchPlan(streams, PlanSettings(budget, size, batching=batching))
            plans[batching, budget, size] = plan
            balance, (waiting, waiting_per_step) = plan.balance(ranks), one_each(streams, batching, ranks)
            efficiency = balance.lockstep_efficiency
            print(
                f"| {batching} | {ranks} | {budget} | {size} | {plan.samples_per_epoch / plan.num_steps:.0f} "
                f"| {balance.fill:.1%} | {balance.imbalance:.1%} | {waiting:.1%} | {waiting_per_step:.1%} "
                f"| {efficiency:.1%} | {efficiency / waiting:.2f}x | {efficiency / waiting_per_step:.2f}x |"
            )
    print()
    print("intraclass correlation of log tokens (0 by chance, 1 if sorted by length, negative if evened out):")
    for (batching, budget, size), plan in plans.items():
        in_micro_batches, in_steps = spread_within(plan, streams)
        print(f"{batching}, {size} of {budget} tokens: micro-batches {in_micro_batches:+.4f}, steps {in_steps:+.4f}")


def mean_tokens(streams: list[Stream]) -> float:
    return float(np.concatenate([stream.tokens for stream in streams]).mean())


if __name__ == "__main__":
    main()
