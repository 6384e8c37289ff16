"""Needle videos: the card lies at its depth, and the map shows the accuracy of each cell."""

import numpy as np
import pytest
from PIL import Image

from hourllava.errors import ConfigError
from hourllava.plotting import save_figure
from hourllava.world.drawing.render import render_frames
from hourllava.world.making.needles import NeedleResult, draw_needle_map, needle_accuracy, needle_cases
from hourllava.world.vocabulary import COLOURS


def test_needle_cases_put_the_card_at_its_depth():
    cases = [*needle_cases((60, 3600), repeats=2), *needle_cases((86400,), num_depths=2)]
    assert len(cases) == 42
    for case in cases:
        assert abs(case.needle.start_seconds - case.depth * case.length_seconds) <= 2
        assert case.question.answer == case.needle.colour
        assert len(case.script.needles) == 8
        frame = render_frames(case.script, [case.needle.start_seconds], 64)[0]
        assert (np.abs(frame.astype(int) - COLOURS[case.needle.colour]).max(-1) <= 12).mean() > 0.2
    assert len({case.script.seed for case in cases}) == 20


def test_needle_map_shows_the_accuracy(tmp_path):
    results = [NeedleResult(60, 0.05, True), NeedleResult(60, 0.05, False), NeedleResult(3600, 0.95, True)]
    assert needle_accuracy(results) == {(60, 0.05): 0.5, (3600, 0.95): 1.0}
    figure = draw_needle_map(results)
    (axes,) = figure.axes
    np.testing.assert_array_equal(axes.images[0].get_array().filled(-1), [[0.5, -1], [-1, 1]])  # depths down
    assert [label.get_text() for label in axes.get_xticklabels()] == ["1 min", "1 h"]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["5 %", "95 %"]
    assert {text.get_text(): text.get_position() for text in axes.texts} == {"50": (0, 0), "100": (1, 1)}
    path = save_figure(figure, tmp_path / "needles.png")
    with Image.open(path) as image:
        assert image.size[0] > 500
    with pytest.raises(ConfigError, match="no needle results"):
        draw_needle_map([])


@pytest.mark.parametrize("kwargs", [{"lengths_seconds": (30,)}, {"num_depths": 0}, {"cards": 60}])
def test_bad_needle_settings_are_refused(kwargs):
    with pytest.raises(ConfigError):
        next(needle_cases(**kwargs))
