"""Layouts: the same few promises for videos, images, tiled images; positions of queries. Golden cases fix the rest."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from conftest import examples, tiny_config
from hourllava.errors import InputError
from hourllava.model.batch import VisualSample, batch_visuals
from hourllava.model.config import ForgettingConfig, HourLlavaConfig
from hourllava.model.layout import (
    NEWLINE,
    best_tile_grid,
    image_layout,
    num_kept_video_tokens,
    tiled_image_layout,
    video_layout,
)
from hourllava.model.queries import query_layout

CONFIGS = {
    spatial: tiny_config(forgetting=ForgettingConfig(spatial=spatial), min_video_frames=128)
    for spatial in ("random", "uniform")
}


def check_promises(layout, config):
    num_tokens = layout.num_patch_tokens
    if layout.resize is not None:
        assert layout.resize.source_index.max() < num_tokens
        num_tokens += layout.resize.new_height * layout.resize.new_width
    assert layout.memory_index.min() >= NEWLINE
    assert layout.memory_index.max() < num_tokens
    assert layout.memory_positions.min() >= 0
    assert layout.memory_positions.max() < len(layout.memory_index)
    assert (np.diff(layout.kept_index) > 0).all()  # sorted and unique
    assert layout.kept_index[0] >= 0
    assert layout.kept_index[-1] < len(layout.memory_index)
    assert sum(layout.kept_per_visual) == len(layout.kept_index)


@pytest.mark.parametrize("spatial", CONFIGS)
@pytest.mark.parametrize("num_frames", [1, 127, 128, 511, 2048, 2049, 90_000])
def test_video_layout(num_frames, spatial):
    config = CONFIGS[spatial]
    layout = video_layout(num_frames, config)
    check_promises(layout, config)
    num_memory_frames = max(num_frames, 128)
    assert len(layout.memory_index) == num_memory_frames * 17
    assert len(layout.kept_index) == num_kept_video_tokens(num_frames, config)
    assert len(layout.kept_index) == min(512, num_memory_frames // 4) * 5
    np.testing.assert_array_equal(layout.memory_positions, np.arange(num_memory_frames * 17))
    assert (layout.memory_index[16::17] == NEWLINE).all()
    shown = layout.memory_index.reshape(-1, 17)[:, 0] // 16
    np.testing.assert_array_equal(
        shown, np.linspace(0, num_frames - 1, num_memory_frames, dtype=int)
    )  # every frame, in order


@examples(60)
@given(num_frames=st.integers(1, 3000), spatial=st.sampled_from(list(CONFIGS)), seed=st.integers(0, 2**32))
def test_any_video(num_frames, spatial, seed):
    layout = video_layout(num_frames, CONFIGS[spatial], seed=seed)
    check_promises(layout, CONFIGS[spatial])
    assert len(layout.kept_index) == num_kept_video_tokens(num_frames, CONFIGS[spatial])


@examples(40)
@given(num_images=st.integers(1, 9), spatial=st.sampled_from(list(CONFIGS)), seed=st.integers(0, 2**32))
def test_any_number_of_images(num_images, spatial, seed):
    layout = image_layout(num_images, CONFIGS[spatial], seed=seed)
    check_promises(layout, CONFIGS[spatial])
    assert layout.kept_per_visual == (10,) * num_images  # a quarter of 6 x 6, and a newline
    newlines = layout.memory_index == NEWLINE
    assert newlines.sum() == num_images
    assert set(layout.memory_positions[newlines]) == {num_images * 36}


@examples(60)
@given(
    width=st.integers(1, 4000),
    height=st.integers(1, 4000),
    spatial=st.sampled_from(list(CONFIGS)),
    seed=st.integers(0, 2**32),
)
def test_any_tiled_image(width, height, spatial, seed):
    config = CONFIGS[spatial]
    layout = tiled_image_layout(width, height, config, seed=seed)
    check_promises(layout, config)
    assert layout.num_patch_tokens == best_tile_grid(width, height, config).num_views * 36
    newlines = np.flatnonzero(layout.memory_index == NEWLINE)
    assert set(np.diff(newlines)) <= {newlines[0] - 36 + 1}  # rows of one length
    kept_newlines = set(layout.kept_index) & set(newlines)
    kept_rows = {np.searchsorted(newlines, entry) for entry in layout.kept_index if entry >= 36}
    assert len(kept_newlines) == len(kept_rows)  # one newline for each row of which something is kept


def test_large_images_are_shrunk_to_the_limit():
    config = HourLlavaConfig.preset("hourllava-3b")
    layout = tiled_image_layout(4000, 3000, config)
    assert layout.resize is not None
    assert layout.resize.new_height * layout.resize.new_width <= 9 * 27 * 27
    assert layout.resize.new_width / layout.resize.new_height == pytest.approx(4 / 3, rel=0.03)
    assert tiled_image_layout(700, 700, config).resize is None


@pytest.mark.parametrize(("size", "grid"), [((384, 384), (1, 1)), ((800, 300), (3, 1)), ((300, 1700), (1, 5))])
def test_best_tile_grid(size, grid):
    best = best_tile_grid(*size, HourLlavaConfig.preset("hourllava-3b"))
    assert (best.columns, best.rows) == grid


def test_no_visuals_are_refused():
    with pytest.raises(InputError, match="at least 1 frame"):
        video_layout(0, CONFIGS["uniform"])
    with pytest.raises(InputError, match="at least 1 image"):
        image_layout(0, CONFIGS["uniform"])
    with pytest.raises(InputError, match="at least 1 x 1"):
        tiled_image_layout(0, 5, CONFIGS["uniform"])


def test_query_positions_of_text_video_text():
    layout = video_layout(8, tiny_config(forgetting=ForgettingConfig(spatial="uniform")))
    num_kept = len(layout.kept_index)
    is_visual = np.array([False] * 3 + [True] * num_kept + [False] * 4)
    is_prompt = np.array([True] * 3 + [False] * num_kept + [True, True, False, True])
    index, positions = query_layout(is_visual, is_prompt, layout)
    assert index.tolist() == [*range(3 + num_kept + 2), 3 + num_kept + 3]
    last = 3 + 8 * 17 - 1  # the newline of the last frame
    expected = [0, 1, 2, *(3 + layout.kept_positions), last + 1, last + 2, last + 3]
    np.testing.assert_array_equal(positions, expected)


def test_prompt_and_layout_must_agree():
    layout = video_layout(8, tiny_config())
    with pytest.raises(InputError, match="the prompt holds 2 visual tokens"):
        query_layout([True, True], [False, False], layout)


def test_samples_of_one_memory_share_it():
    config = tiny_config()
    layout = video_layout(20, config)
    other = video_layout(9, config)
    # The same memory, other tokens kept: a question's own forgetting.
    narrower = dataclasses.replace(layout, kept_index=layout.kept_index[:4], kept_per_visual=(4,))

    def sample(layout, start, num_text):
        num_kept = len(layout.kept_index)
        is_visual = np.array([True] * num_kept + [False] * num_text)
        return VisualSample(layout, start, is_visual, ~is_visual)

    batch = batch_visuals([sample(layout, 0, 2), sample(narrower, 100, 3), sample(other, 200, 1)])
    kept, other_kept = len(layout.kept_index), len(other.kept_index)
    assert batch.memory_segments.lengths == (20 * 17, 9 * 17)
    assert batch.query_segments.lengths == (kept + 2, 4 + 3, other_kept + 1)
    assert batch.recall_segments.lengths == (kept + 2 + 4 + 3, other_kept + 1)
    assert batch.num_video_tokens == 29 * 16
    assert batch.newline_index == 29 * 16
    own = layout.memory_index[layout.kept_index]
    np.testing.assert_array_equal(batch.kept_index[:kept], np.where(own == NEWLINE, 29 * 16, own))
    assert batch.kept_index[kept : kept + 4].tolist() == batch.kept_index[:4].tolist()
    assert batch.input_index[kept : kept + 4].tolist() == [100, 101, 102, 103]
