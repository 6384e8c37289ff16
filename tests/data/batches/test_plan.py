"""The batch plan: every sample once, the same for any number of ranks, full, balanced, resumable."""

import itertools
import runpy
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from conftest import examples
from hourllava.data.batches.amounts import Stream, micro_batches_for, row_tokens_for, samples_per_epoch
from hourllava.data.batches.plan import BatchPlan, PlanSettings
from hourllava.errors import ConfigError, DataError
from hourllava.model.config import HourLlavaConfig

PUBLISHED = runpy.run_path(str(Path(__file__).parents[3] / "benchmarks" / "published_lengths.py"))
STAGE_3_SAMPLES, stage_3_streams = PUBLISHED["STAGE_3_SAMPLES"], PUBLISHED["stage_3_streams"]

WORLD_SIZES = (1, 2, 4, 8)


def stream(tokens, name="a", costs=None, **amounts):
    tokens = np.asarray(tokens)
    lengths = np.stack([tokens // 50, tokens // 2, tokens - tokens // 2], axis=1).astype(np.int32)
    return Stream(name, lengths, tokens * 1.0 if costs is None else np.asarray(costs, float), **amounts)


def random_stream(num_samples, seed=0, name="a", **amounts):
    rng = np.random.default_rng(seed)
    tokens = np.clip(rng.lognormal(4, 1, num_samples), 2, 1000).astype(int)
    return stream(tokens, name, costs=tokens * (1 + tokens / 500), **amounts)


def pairs(plan, steps=None):
    return [
        (draw.stream, draw.sample)
        for step in (range(plan.num_steps) if steps is None else steps)
        for micro_batch in plan.step(step)
        for draw in micro_batch
    ]


plans = st.builds(
    lambda tokens, size, seed, extra: (
        stream(tokens),
        PlanSettings(max(tokens) + extra, size, seed=seed),
    ),
    st.lists(st.integers(1, 400), min_size=1, max_size=120),
    st.sampled_from([1, 2, 4, 8, 24]),
    st.integers(0, 2**32),
    st.integers(0, 300),
)


@given(plans)
@examples(60)
def test_every_sample_once_within_the_budget(drawn):
    source, plan_settings = drawn
    plan = BatchPlan([source], plan_settings)
    assert sorted(pairs(plan)) == [(0, sample) for sample in range(len(source.lengths))]
    for step in range(plan.num_steps):
        micro_batches = plan.step(step)
        assert len(micro_batches) == plan_settings.micro_batches_per_step
        for micro_batch in micro_batches:
            assert sum(draw.num_tokens for draw in micro_batch) <= plan_settings.token_budget
            assert all(draw.num_tokens == source.tokens[draw.sample] for draw in micro_batch)


@given(plans)
@examples(40)
def test_ranks_share_a_step_equally_and_choose_nothing(drawn):
    plan = BatchPlan([drawn[0]], drawn[1])
    size = drawn[1].micro_batches_per_step
    for world_size in [ranks for ranks in (*WORLD_SIZES, 24) if size % ranks == 0]:
        for step in {0, plan.num_steps // 2, plan.num_steps - 1}:
            shares = [plan.rank_step(step, rank, world_size) for rank in range(world_size)]
            assert {len(share) for share in shares} == {size // world_size} == {plan.micro_batches_of_rank(world_size)}
            assert sorted(itertools.chain(*shares)) == sorted(plan.step(step))


@given(st.integers(0, 1000), st.integers(0, 100))
@examples(10)
def test_resume_is_arithmetic(seed, step):
    def new_plan():
        streams = [random_stream(120, name="a"), random_stream(50, 1, name="b", repeat=1.5)]
        return BatchPlan(streams, PlanSettings(1000, 4, seed=seed, num_epochs=3, batching="per_stream"))

    uninterrupted = new_plan()
    all_steps = [uninterrupted.step(number) for number in range(uninterrupted.num_steps)]
    resumed_at = step % len(all_steps)
    resumed = new_plan()
    assert [resumed.step(number) for number in range(resumed_at, resumed.num_steps)] == all_steps[resumed_at:]
    assert resumed.fingerprint() == uninterrupted.fingerprint()


def test_large_samples_get_a_micro_batch_each():
    plan = BatchPlan([stream([600] * 1000)], PlanSettings(1000, 8))
    assert plan.num_steps == 125
    assert {len(micro_batch) for step in range(125) for micro_batch in plan.step(step)} == {1}


def test_fewer_samples_than_micro_batches_leave_some_empty():
    plan = BatchPlan([stream([5, 6, 7])], PlanSettings(10, 8))
    assert sorted(len(micro_batch) for micro_batch in plan.step(0)) == [0] * 5 + [1] * 3
    assert plan.num_steps == 1


def test_equal_costs_may_all_be_zero():
    plan = BatchPlan([stream([3] * 100, costs=np.zeros(100))], PlanSettings(30, 2))
    assert sorted(pairs(plan)) == [(0, sample) for sample in range(100)]


def test_epochs_and_seeds_have_their_own_order():
    one = random_stream(2000)
    plan = BatchPlan([one], PlanSettings(4000, 4, num_epochs=2))
    first, second = (pairs(plan, range(k * plan.num_steps // 2, (k + 1) * plan.num_steps // 2)) for k in (0, 1))
    assert first != second
    assert sorted(first) == sorted(second)
    assert plan.steps_per_epoch[0] == plan.steps_per_epoch[1]
    other = BatchPlan([one], PlanSettings(4000, 4, seed=1))
    assert pairs(other) != first
    assert other.fingerprint() != plan.fingerprint()


def test_a_loader_that_reads_ahead_builds_no_epoch_twice(monkeypatch):
    plan = BatchPlan([random_stream(300)], PlanSettings(2000, 2, num_epochs=4))
    built = []
    build = BatchPlan._build
    monkeypatch.setattr(BatchPlan, "_build", lambda self, number: built.append(number) or build(self, number))
    for step in range(plan.num_steps - 5):
        plan.rank_step(step + 5, 0, 1)  # what is loaded
        plan.rank_step(step, 0, 1)  # what is trained on
    assert built == [0, 1, 2, 3]


def test_a_sample_has_another_seed_each_time():
    plan = BatchPlan([stream([10] * 50, repeat=3.0)], PlanSettings(100, 2, num_epochs=2))
    seeds = [draw.seed for step in range(plan.num_steps) for micro_batch in plan.step(step) for draw in micro_batch]
    assert len(set(seeds)) == len(seeds) == 300


@pytest.mark.parametrize("batching", ["mixed", "per_stream"])
def test_amounts(batching):
    streams = [
        random_stream(300, name="half", repeat=0.5),
        random_stream(200, 1, name="thrice and a bit", repeat=3.1),
        random_stream(400, 2, name="some", choose=90),
        random_stream(100, 3, name="none", choose=0),
        random_stream(50, 4, name="all"),
    ]
    plan = BatchPlan(streams, PlanSettings(2000, 4, batching=batching))
    drawn = pairs(plan)
    assert [sum(number == k for number, _ in drawn) for k in range(5)] == [150, 620, 90, 0, 50]
    times = np.bincount([sample for number, sample in drawn if number == 1])
    assert set(times.tolist()) == {3, 4}
    assert len({sample for number, sample in drawn if number == 0}) == 150


def test_proportions_are_of_all_samples():
    streams = [random_stream(1000, name="a", proportion=1.0), random_stream(200, 1, name="b", proportion=2.0)]
    drawn = pairs(BatchPlan(streams, PlanSettings(2000, 4)))
    assert [sum(number == k for number, _ in drawn) for k in range(2)] == [400, 800]


def test_per_stream_steps_hold_one_stream_in_random_turns():
    streams = [random_stream(3000, name="a"), random_stream(3000, 1, name="b")]
    plan = BatchPlan(streams, PlanSettings(2000, 4, batching="per_stream"))
    streams_of_steps = [{number for number, _ in pairs(plan, [step])} for step in range(plan.num_steps)]
    assert all(len(numbers) == 1 for numbers in streams_of_steps)
    first = [numbers == {0} for numbers in streams_of_steps]
    assert 0.25 * len(first) < sum(a != b for a, b in itertools.pairwise(first)) < 0.75 * len(first)
    mixed = BatchPlan(streams, PlanSettings(2000, 4))
    assert all({number for number, _ in pairs(mixed, [step])} == {0, 1} for step in range(mixed.num_steps))


@pytest.fixture(scope="module")
def published():
    return stage_3_streams(120_000, HourLlavaConfig.preset("hourllava-7b"))


def test_published_mixture(published):
    assert sum(len(part.lengths) for part in published) == pytest.approx(120_000, abs=5)
    long_videos = (published[1].lengths[:, 0] >= 180).sum()
    assert long_videos / 120_000 == pytest.approx(0.7e6 / sum(STAGE_3_SAMPLES.values()), rel=0.01)
    assert published[1].lengths[:, 0].max() <= 3600
    assert published[1].tokens.max() < 12_000


@pytest.mark.parametrize("batching", ["mixed", "per_stream"])
def test_published_mixture_is_full_and_balanced(published, batching):
    plan = BatchPlan(published, PlanSettings(32768, 8, batching=batching))
    for world_size in WORLD_SIZES:
        balance = plan.balance(world_size)
        assert balance.fill >= 0.97
        assert balance.imbalance <= 0.05
        assert balance.lockstep_efficiency >= 0.98
    steps = [plan.step(step) for step in range(0, plan.num_steps, 50)]
    fills = [sum(draw.num_tokens for draw in micro_batch) / 32768 for step in steps for micro_batch in step]
    assert min(fills) > 0.85


def test_64_ranks_are_balanced(published):
    balance = BatchPlan(published, PlanSettings(32768, 64)).balance(64)
    assert balance.imbalance <= 0.05
    assert balance.lockstep_efficiency >= 0.98


@pytest.mark.slow
def test_steps_are_no_choice_of_lengths(published):
    """Mean lengths of steps vary no more than those of as many samples drawn at random."""
    plan = BatchPlan(published, PlanSettings(32768, 8))
    tokens = [part.tokens for part in published]
    steps = [[tokens[number][sample] for number, sample in pairs(plan, [step])] for step in range(plan.num_steps)]
    means = np.array([np.mean(step) for step in steps])
    by_chance = np.concatenate(tokens).std() / np.sqrt(np.mean([len(step) for step in steps]))
    assert means.std() < 1.2 * by_chance
    # Nor do they drift in the course of the epoch.
    assert abs(np.corrcoef(means, np.arange(len(means)))[0, 1]) < 4 / np.sqrt(len(means))


def test_balance_counts_what_the_plan_says():
    one = random_stream(3000)
    plan = BatchPlan([one], PlanSettings(3000, 4))
    balance = plan.balance(2)
    costs = np.array(
        [
            [
                [sum(one.costs[draw.sample] for draw in micro_batch) for micro_batch in plan.rank_step(step, rank, 2)]
                for rank in range(2)
            ]
            for step in range(plan.num_steps)
        ]
    )  # [steps, ranks, rounds]
    per_rank = costs.sum(axis=2)
    mean = per_rank.mean(axis=1)
    assert balance.imbalance == pytest.approx(np.abs(per_rank / mean[:, None] - 1).max())
    assert balance.efficiency == pytest.approx(mean.sum() / per_rank.max(axis=1).sum())
    assert balance.lockstep_efficiency == pytest.approx(mean.sum() / costs.max(axis=1).sum())
    assert balance.fill == pytest.approx(one.tokens.sum() / (plan.num_steps * 4 * 3000))


def test_global_batch_in_samples_or_tokens():
    streams = [stream([1000] * 10), stream([400] * 10, repeat=2.0)]
    assert micro_batches_for(streams, 3000, mean_samples=80) == 16  # 600 tokens each
    assert micro_batches_for(streams, 3000, mean_tokens=48_000, multiple_of=8) == 16
    assert micro_batches_for(streams, 3000, mean_tokens=10, multiple_of=8) == 8
    with pytest.raises(ConfigError, match="one of the two"):
        micro_batches_for(streams, 3000)


@given(
    st.lists(st.integers(1, 400), min_size=1, max_size=200),
    st.integers(400, 40_000),
    st.floats(0.5, 500),
    st.sampled_from([1, 2, 8]),
)
@examples(60)
def test_small_steps_have_smaller_rows(tokens, budget, samples, multiple_of):
    """Never more than the budget, never less than a sample; steps of about what is asked for, if that can be."""
    streams = [stream(tokens)]
    asked = {"mean_samples": samples, "multiple_of": multiple_of}
    row_tokens = row_tokens_for(streams, budget, **asked)
    assert max(tokens) <= row_tokens <= budget
    size = micro_batches_for(streams, row_tokens, **asked)
    wanted_tokens = samples * sum(tokens) / len(tokens)
    if row_tokens < budget:
        assert size == multiple_of or row_tokens == max(tokens)
        assert row_tokens * size <= 2.2 * wanted_tokens + size or row_tokens == max(tokens)
    else:
        assert wanted_tokens >= 0.49 * budget * multiple_of or budget == max(tokens)


def test_every_stream_that_is_not_left_out_gives_a_sample():
    streams = [random_stream(300, name="a"), random_stream(9, 1, name="b", repeat=0.01), stream([5], "c", choose=0)]
    assert samples_per_epoch(streams) == [300, 1, 0]


@pytest.mark.parametrize(
    ("streams", "message"),
    [
        (
            [Stream("none", np.zeros((0, 3), np.int32), np.zeros(0)), stream([5])],
            "none is to give 1 samples but has no",
        ),
        ([stream([5, 12, 9], "short"), stream([5, 4000, 9], "long")], "sample 1 of stream long has 4000 tokens"),
        ([stream([5], "x", proportion=1.0), stream([5], "y")], "stream y has no proportion"),
        ([stream([5], choose=0)], "no samples"),
        ([], "no samples"),
        ([Stream("empty", np.zeros((0, 3), np.int32), np.zeros(0), choose=3)], "empty is to give 3 samples"),
    ],
)
def test_bad_streams(streams, message):
    with pytest.raises(ConfigError, match=message):
        BatchPlan(streams, PlanSettings(1000, 2))


@pytest.mark.parametrize(
    ("amounts", "message"),
    [
        ({"repeat": 1.0, "choose": 3}, "not several"),
        ({"repeat": -1.0}, "0 or more"),
        ({"proportion": np.nan}, "or more"),
    ],
)
def test_bad_amounts(amounts, message):
    with pytest.raises(ConfigError, match=message):
        stream([5], **amounts)


def test_bad_costs_and_lengths():
    with pytest.raises(ConfigError, match="2 samples but 1 costs"):
        stream([5, 6], costs=[1.0])
    with pytest.raises(DataError, match="sample 0"):
        Stream("a", np.zeros((1, 3), np.int32), np.zeros(1))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"token_budget": 0}, "token_budget is 0"),
        ({"micro_batches_per_step": 0}, "micro_batches_per_step is 0"),
        ({"num_epochs": 0}, "num_epochs is 0"),
        ({"seed": -1}, "seed is -1"),
        ({"batching": "random"}, "choose one of mixed, per_stream"),
    ],
)
def test_bad_settings(changes, message):
    with pytest.raises(ConfigError, match=message):
        PlanSettings(**changes)


def test_ranks_must_divide_a_step():
    plan = BatchPlan([random_stream(100)], PlanSettings(2000, 8))
    with pytest.raises(ConfigError, match="8 micro-batches cannot be shared out equally to 3 ranks"):
        plan.rank_step(0, 0, 3)


def test_samples_left_out_may_be_too_long():
    plan = BatchPlan([stream([5, 5]), stream([5000], "long", choose=0)], PlanSettings(10, 1))
    assert sorted(pairs(plan)) == [(0, 0), (0, 1)]


def test_epochs_after_the_last_step_are_not_built():
    streams, settings = [random_stream(300)], PlanSettings(2000, 2, num_epochs=10**6)
    short = BatchPlan(streams, settings, max_steps=10)
    whole = BatchPlan(streams, PlanSettings(2000, 2, num_epochs=5))
    assert whole.num_steps > short.num_steps >= 10
    assert [short.step(k) for k in range(10)] == [whole.step(k) for k in range(10)]
