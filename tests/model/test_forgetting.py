"""Forgetting: counts known beforehand, indices well formed, methods do what they say."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from conftest import examples
from hourllava.errors import ConfigError, InputError
from hourllava.model.config import ForgettingConfig
from hourllava.model.forgetting import kept_frames, kept_tokens, num_kept_frames, num_kept_tokens

SPATIAL, TEMPORAL = ("random", "uniform"), ("uniform", "random", "keyframe", "question")


def rng(seed=0):
    return np.random.default_rng(seed)


def descriptors(num_frames, width=5, seed=1):
    return rng(seed).normal(size=(num_frames, width))


@examples(70)
@given(
    num_frames=st.integers(1, 3000),
    temporal=st.sampled_from(TEMPORAL),
    ratio=st.floats(0.01, 1.0),
    most=st.integers(1, 600),
    seed=st.integers(0, 2**32),
)
def test_kept_frames_are_sorted_unique_inside_and_as_many_as_promised(num_frames, temporal, ratio, most, seed):
    config = ForgettingConfig(temporal=temporal, temporal_keep_ratio=ratio, max_kept_frames=most)
    frames = kept_frames(num_frames, config, rng(seed), descriptors(num_frames), descriptors(1)[0])
    assert len(frames) == num_kept_frames(num_frames, config)
    assert (np.diff(frames) > 0).all()
    assert frames[0] >= 0
    assert frames[-1] == num_frames - 1  # the last frame is always kept


@examples(70)
@given(
    num_grids=st.integers(1, 20),
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    spatial=st.sampled_from(SPATIAL),
    ratio=st.floats(0.01, 1.0),
    seed=st.integers(0, 2**32),
)
def test_kept_tokens_are_sorted_unique_inside_and_as_many_as_promised(num_grids, height, width, spatial, ratio, seed):
    config = ForgettingConfig(spatial=spatial, spatial_keep_ratio=ratio)
    tokens = kept_tokens(num_grids, height, width, config, rng(seed))
    assert tokens.shape == (num_grids, num_kept_tokens(height, width, config))
    assert (np.diff(tokens, axis=1) > 0).all()
    assert tokens.min() >= 0
    assert tokens.max() < height * width


@pytest.mark.parametrize(
    ("num_frames", "count"),
    [(1, 1), (2, 1), (7, 2), (127, 31), (128, 32), (511, 127), (2048, 512), (2049, 512), (90_000, 512)],
)
def test_published_numbers_of_frames(num_frames, count):
    # min(512, T // 4) at linspace(0, T - 1), fractions cut off, and T - 1 appended if missing.
    expected = np.linspace(0, num_frames - 1, min(512, num_frames // 4), dtype=int)
    if num_frames - 1 not in expected:
        expected = np.append(expected, num_frames - 1)
    frames = kept_frames(num_frames, ForgettingConfig(), rng())
    assert len(frames) == count
    np.testing.assert_array_equal(frames, expected)


def test_uniform_tokens_are_even_rows_and_columns():
    tokens = kept_tokens(2, 8, 8, ForgettingConfig(spatial="uniform"), rng())
    assert [[token // 8 % 2, token % 8 % 2] for token in tokens[1]] == [[0, 0]] * 16


def test_random_is_seeded_and_reaches_every_token():
    config = ForgettingConfig(spatial="random", temporal="random")
    first, again, other = (kept_tokens(300, 8, 8, config, rng(seed)) for seed in (3, 3, 4))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
    counts = np.bincount(first.ravel(), minlength=64)
    assert counts.min() > 40  # 75 expected each
    assert counts.max() < 120
    frames = [kept_frames(400, config, rng(seed)) for seed in (3, 3, 4)]
    np.testing.assert_array_equal(frames[0], frames[1])
    assert (frames[0] != frames[2]).any()


def test_keyframe_keeps_the_frames_that_differ_from_their_surroundings():
    frames = np.tile([1.0, 0.0], (100, 1))
    frames[[20, 50, 77]] = [0.0, 1.0]
    config = ForgettingConfig(temporal="keyframe", temporal_keep_ratio=0.04)
    assert kept_frames(100, config, rng(), frames).tolist() == [20, 50, 77, 99]


def test_keyframe_likeness_is_the_mean_cosine_to_the_eight_nearest():
    frames = descriptors(30)
    unit = frames / np.linalg.norm(frames, axis=1, keepdims=True)
    cosine = unit @ unit.T
    likeness = [np.mean([cosine[t, s] for s in range(max(t - 4, 0), min(t + 5, 30)) if s != t]) for t in range(30)]
    likeness[-1] = -np.inf  # the last frame is always kept
    config = ForgettingConfig(temporal="keyframe", temporal_keep_ratio=0.5)
    assert kept_frames(30, config, rng(), frames).tolist() == sorted(np.argsort(likeness)[:15])


def test_question_keeps_the_frames_most_like_the_question():
    frames = np.zeros((40, 3))
    frames[:, 0] = 1
    frames[[5, 6, 30]] = [0, 0, 2]
    config = ForgettingConfig(temporal="question", temporal_keep_ratio=0.1)
    assert kept_frames(40, config, rng(), frames, np.array([0, 0, 1.0])).tolist() == [5, 6, 30, 39]


@pytest.mark.parametrize("method", ["keyframe", "question"])
def test_methods_that_look_need_something_to_look_at(method):
    with pytest.raises(InputError, match="needs frame_descriptors_TD"):
        kept_frames(40, ForgettingConfig(temporal=method), rng())


@pytest.mark.parametrize(
    "field", [{"spatial": "evenly"}, {"temporal": "last"}, {"spatial_keep_ratio": 0}, {"max_kept_frames": 0}]
)
def test_bad_settings_are_refused(field):
    with pytest.raises(ConfigError, match=next(iter(field))):
        ForgettingConfig(**field)
