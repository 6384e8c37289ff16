"""Intervals: published values, Wilson's interval for one question per video, and coverage in simulated worlds."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hourllava.evaluation.intervals import (
    accuracy_of,
    difference_of,
    effective_number,
    intraclass_correlation,
    mean_interval,
    t_quantile,
    wilson_interval,
)


@pytest.mark.parametrize(
    ("num_right", "num_questions", "low", "high"),
    [  # Newcombe 1998, Statistics in Medicine 17:857, table I, method 3
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0000, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_intervals_are_the_published_ones(num_right, num_questions, low, high):
    assert wilson_interval(num_right / num_questions, num_questions) == pytest.approx((low, high), abs=5e-5)
    mirrored = wilson_interval(1 - num_right / num_questions, num_questions)
    assert mirrored == pytest.approx((1 - high, 1 - low), abs=5e-5)


@pytest.mark.parametrize(
    ("degrees", "value"),  # any table of Student's t, two-sided 5 %
    [(1, 12.7062), (2, 4.3027), (3, 3.1824), (4, 2.7764), (7, 2.3646), (10, 2.2281), (30, 2.0423), (60, 2.0003),
     (120, 1.9799), (1000, 1.9623)],
)  # fmt: skip
def test_quantiles_are_the_tabulated_ones(degrees, value):
    assert t_quantile(degrees) == pytest.approx(value, abs=5e-5)


def test_nothing_asked_says_nothing():
    assert wilson_interval(0, 0) == (0.0, 1.0)
    cell = accuracy_of([], [])
    assert (cell["accuracy"], cell["low"], cell["high"], cell["videos"]) == (None, 0.0, 1.0, 0)
    assert difference_of([], [], [])["difference"] is None
    assert mean_interval([]) is mean_interval([0.3]) is None


hits_of_videos = st.lists(st.lists(st.booleans(), min_size=1, max_size=9), min_size=1, max_size=9)


def flat(videos):
    return [hit for some in videos for hit in some], [k for k, some in enumerate(videos) for _ in some]


@given(st.lists(st.booleans(), min_size=1, max_size=60))
def test_one_question_a_video_gives_wilsons_interval(hits):
    cell = accuracy_of(hits, range(len(hits)))
    assert (cell["low"], cell["high"]) == pytest.approx(wilson_interval(sum(hits) / len(hits), len(hits)))


@given(hits_of_videos)
def test_an_effective_number_lies_between_videos_and_questions(videos):
    hits, names = flat(videos)
    effective = effective_number(hits, names)
    least = len(hits) ** 2 / sum(len(some) ** 2 for some in videos)
    assert least * (1 - 1e-9) <= effective <= len(hits) * (1 + 1e-9)
    cell = accuracy_of(hits, names)
    assert 0 <= cell["low"] <= cell["accuracy"] <= cell["high"] <= 1
    narrow = wilson_interval(sum(hits) / len(hits), len(hits))
    assert cell["high"] - cell["low"] >= (narrow[1] - narrow[0]) * (1 - 1e-9)
    assert cell["correlation"] is None or cell["correlation"] <= 1 + 1e-9


@given(hits_of_videos, st.randoms(use_true_random=False))
def test_the_order_of_the_questions_does_not_matter(videos, chance):
    pairs = list(zip(*flat(videos)))
    shuffled = chance.sample(pairs, len(pairs))
    ours, theirs = (effective_number(*zip(*some)) for some in (pairs, shuffled))
    assert ours == pytest.approx(theirs)


def test_videos_that_are_all_right_or_all_wrong_count_as_one_question_each():
    hits, names = flat([[k % 3 > 0] * 20 for k in range(30)])
    assert effective_number(hits, names) == pytest.approx(30, rel=0.1)
    assert intraclass_correlation(hits, names) == pytest.approx(1)
    alternating, names = flat([[True, False] * 10] * 30)
    assert effective_number(alternating, names) == pytest.approx(600, rel=0.1)
    assert intraclass_correlation(alternating, names) < 0


@given(hits_of_videos, st.randoms(use_true_random=False))
def test_a_difference_is_the_negative_of_its_reverse(videos, chance):
    ours, names = flat(videos)
    theirs = [chance.random() < 0.5 for _ in ours]
    one, other = difference_of(ours, theirs, names), difference_of(theirs, ours, names)
    assert one["difference"] == -other["difference"]
    assert (one["low"], one["high"]) == pytest.approx((-other["high"], -other["low"]))
    assert one["low"] - 1e-9 <= one["difference"] <= one["high"] + 1e-9


def test_a_paired_interval_is_narrower_than_two_shares_suggest():
    ours = [k % 10 < 6 for k in range(200)]
    theirs = [k % 10 < 5 for k in range(200)]  # right in nearly the same questions
    cell = difference_of(ours, theirs, range(200))
    assert cell["low"] > 0.05
    assert cell["high"] < 0.15
    assert wilson_interval(sum(ours) / 200, 200)[0] < wilson_interval(sum(theirs) / 200, 200)[1]  # these overlap


def test_seeds_are_few_independent_values():
    low, high = mean_interval([0.02, 0.08])
    assert (low + high) / 2 == pytest.approx(0.05)
    assert (high - low) / 2 == pytest.approx(12.7062 * 0.03, rel=1e-4)


def alike(chance, share, correlation, sizes):
    """Draw whether answers are right, [n], and their videos, [n], from a beta-binomial distribution."""
    videos = np.repeat(np.arange(len(sizes)), sizes)
    spread = (1 - correlation) / correlation
    shares = chance.beta(share * spread, (1 - share) * spread, len(sizes))
    return chance.random(len(videos)) < shares[videos], videos


@pytest.mark.slow
@pytest.mark.parametrize(
    "sizes", [[22] * 4, [22] * 8, [44] * 20, [*range(2, 40, 2)] * 2], ids=["4", "8", "20", "uneven"]
)
@pytest.mark.parametrize("correlation", [1e-6, 0.05, 0.2])
@pytest.mark.parametrize("share", [0.25, 0.75, 0.9])
def test_intervals_hold_the_truth_in_95_of_100_worlds(share, correlation, sizes):
    chance = np.random.default_rng([int(100 * share), int(100 * correlation), len(sizes)])
    held = held_by_wilson = 0
    for _ in range(1000):
        hits, videos = alike(chance, share, correlation, sizes)
        cell = accuracy_of(hits.tolist(), videos.tolist())
        held += cell["low"] <= share <= cell["high"]
        low, high = wilson_interval(hits.mean(), len(hits))
        held_by_wilson += low <= share <= high
    assert held >= 905
    if len(sizes) > 8:
        assert held <= 990  # with fewer videos the correlation is poorly known, so intervals are wider
    if correlation >= 0.05:
        assert held_by_wilson < 900


@pytest.mark.slow
@pytest.mark.parametrize("correlation", [0.05, 0.3])
@pytest.mark.parametrize("sizes", [[22] * 8, [44] * 20], ids=["8", "20"])
def test_differences_hold_the_truth_in_95_of_100_worlds(correlation, sizes):
    """The other model guesses some answers, which cluster in videos."""
    chance = np.random.default_rng([int(100 * correlation), len(sizes)])
    held = 0
    for _ in range(1000):
        ours, videos = alike(chance, 0.7, correlation, sizes)
        is_guess, _ = alike(chance, 0.2, correlation, sizes)
        theirs = np.where(is_guess, chance.random(len(videos)) < 0.5, ours)
        cell = difference_of(ours.tolist(), theirs.tolist(), videos.tolist())
        held += cell["low"] <= 0.2 * (0.7 - 0.5) <= cell["high"]
    assert 920 <= held <= 995


@pytest.mark.slow
@pytest.mark.parametrize("correlation", [0.05, 0.3])
def test_the_correlation_is_that_of_the_world(correlation):
    chance = np.random.default_rng(int(100 * correlation))
    found = [intraclass_correlation(*map(list, alike(chance, 0.7, correlation, [44] * 40))) for _ in range(200)]
    assert np.mean(found) == pytest.approx(correlation, rel=0.1)
