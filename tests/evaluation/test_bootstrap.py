"""Intervals by drawing videos: exact cases, symmetries, and coverage in simulated worlds."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from conftest import examples
from evaluation.test_intervals import alike, flat
from hourllava.evaluation.bootstrap import MIN_VIDEOS, bootstrap_accuracy, bootstrap_difference
from hourllava.evaluation.intervals import accuracy_of, difference_of

some_hits = st.lists(st.lists(st.booleans(), min_size=1, max_size=4), min_size=1, max_size=14)


def test_nothing_asked_says_nothing():
    assert bootstrap_accuracy([], [])["accuracy"] is None
    cell = bootstrap_difference([], [], [])
    assert (cell["difference"], cell["p"]) == (None, 1.0)


@examples(40)
@given(some_hits)
def test_an_interval_holds_its_share(videos):
    hits, names = flat(videos)
    for groups in (None, [k % 3 for k in range(len(hits))]):
        cell = bootstrap_accuracy(hits, names, groups)
        assert 0 <= cell["low"] <= cell["accuracy"] <= cell["high"] <= 1
    cell = bootstrap_accuracy(hits, names)
    assert cell["accuracy"] == sum(hits) / len(hits)
    if len(videos) < MIN_VIDEOS or len(set(hits)) == 1:
        expected = accuracy_of(hits, names)
        assert cell["interval"] == "wilson"
        assert (cell["low"], cell["high"]) == (expected["low"], expected["high"])
    assert bootstrap_accuracy(hits, names) == cell  # drawn alike every time


@examples(40)
@given(some_hits, st.randoms(use_true_random=False))
def test_a_difference_is_the_negative_of_its_reverse(videos, chance):
    ours, names = flat(videos)
    theirs = [chance.random() < 0.5 for _ in ours]
    one, other = bootstrap_difference(ours, theirs, names), bootstrap_difference(theirs, ours, names)
    assert one["difference"] == -other["difference"]
    assert (one["won"], one["lost"]) == (other["lost"], other["won"])
    assert one["p"] == other["p"]
    assert one["low"] <= one["difference"] <= one["high"]
    assert (one["low"], one["high"]) == pytest.approx((-other["high"], -other["low"]))


def test_one_question_a_video_is_nearly_wilsons():
    hits = [k % 10 < 6 for k in range(400)]
    cell, wilson = bootstrap_accuracy(hits, range(400)), accuracy_of(hits, range(400))
    assert cell["interval"] == "bootstrap"
    assert (cell["low"], cell["high"]) == pytest.approx((wilson["low"], wilson["high"]), abs=0.005)


def test_videos_that_are_all_right_or_all_wrong_widen_the_interval():
    hits, names = flat([[k % 3 > 0] * 15 for k in range(60)])
    clustered, independent = bootstrap_accuracy(hits, names), bootstrap_accuracy(hits, range(len(hits)))
    ratio = (clustered["high"] - clustered["low"]) / (independent["high"] - independent["low"])
    assert ratio == pytest.approx(15**0.5, rel=0.15)


def test_a_mean_over_groups_weighs_them_alike():
    hits = [True] * 30 + [False] * 10
    groups = ["easy"] * 30 + ["hard"] * 10
    cell = bootstrap_accuracy(hits, range(40), groups)
    assert cell["accuracy"] == 0.5
    mixed = bootstrap_accuracy([k % 2 == 0 for k in range(40)], range(40), groups)
    # SE = sqrt(sum of SE_t^2) / T: 0.5 / 2 * sqrt(1 / 30 + 1 / 10)
    assert (mixed["high"] - mixed["low"]) / 2 == pytest.approx(1.96 * 0.25 * (1 / 30 + 1 / 10) ** 0.5, rel=0.15)


@pytest.mark.parametrize(("won", "lost"), [(12, 2), (8, 8), (0, 6), (1, 0)])
def test_p_is_that_of_mcnemars_exact_test(won, lost):
    """With one question a video, flipped signs are coin tosses."""
    ours = [True] * won + [False] * lost + [True] * 20
    theirs = [False] * won + [True] * lost + [True] * 20
    cell = bootstrap_difference(ours, theirs, range(len(ours)))
    tosses = np.random.default_rng(5).binomial(won + lost, 0.5, 200_000)
    expected = np.mean(np.abs(2 * tosses - won - lost) >= abs(won - lost))
    assert cell["p"] == pytest.approx(expected, abs=0.015)
    assert (cell["won"], cell["lost"]) == (won, lost)


def test_few_videos_have_the_interval_for_few_videos():
    ours, theirs, names = [True, False] * 4, [False, False] * 4, [0, 0, 1, 1, 2, 2, 3, 3]
    cell, expected = bootstrap_difference(ours, theirs, names), difference_of(ours, theirs, names)
    assert (cell["low"], cell["high"], cell["interval"]) == (expected["low"], expected["high"], "wilson")


@pytest.mark.slow
@pytest.mark.parametrize("num_videos", [10, 20, 103])
@pytest.mark.parametrize("correlation", [0.02, 0.1, 0.3])
@pytest.mark.parametrize("share", [0.3, 0.45, 0.75])
def test_intervals_hold_the_truth_in_93_to_97_of_100_worlds(share, correlation, num_videos):
    """15 questions a video; 2,000 worlds, so a true 95 % is found as 94 to 96."""
    chance = np.random.default_rng([int(100 * share), int(100 * correlation), num_videos])
    held = 0
    for _ in range(2000):
        hits, videos = alike(chance, share, correlation, [15] * num_videos)
        cell = bootstrap_accuracy(hits.tolist(), videos.tolist())
        held += cell["low"] <= share <= cell["high"]
    assert 0.93 <= held / 2000 <= 0.97


@pytest.mark.slow
@pytest.mark.parametrize("correlation", [0.05, 0.3])
@pytest.mark.parametrize("num_videos", [20, 103])
def test_differences_hold_the_truth_and_p_is_uniform(correlation, num_videos):
    """The other model guesses some answers; with equal models, p is below 0.05 in 5 of 100 worlds."""
    chance = np.random.default_rng([int(100 * correlation), num_videos])
    sizes = [15] * num_videos
    held = rejected = 0
    for _ in range(1000):
        ours, videos = alike(chance, 0.7, correlation, sizes)
        is_guess, _ = alike(chance, 0.2, correlation, sizes)
        theirs = np.where(is_guess, chance.random(len(videos)) < 0.5, ours)
        cell = bootstrap_difference(ours.tolist(), theirs.tolist(), videos.tolist())
        held += cell["low"] <= 0.2 * (0.7 - 0.5) <= cell["high"]
        swapped = chance.random(num_videos) < 0.5  # no model is better: their answers are exchanged by video
        one, other = np.where(swapped[videos], ours, theirs), np.where(swapped[videos], theirs, ours)
        rejected += bootstrap_difference(one.tolist(), other.tolist(), videos.tolist())["p"] < 0.05
    assert 0.93 <= held / 1000 <= 0.97
    assert 0.03 <= rejected / 1000 <= 0.07
