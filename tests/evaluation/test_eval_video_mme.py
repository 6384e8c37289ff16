"""benchmarks/eval_video_mme.py: a video goes the way of the command, and hours follow from lengths."""

import importlib
from pathlib import Path

import pytest

from conftest import tiny_checkpoint
from evaluation.benchmarks.miniatures import put_video
from hourllava.inference.engine import HourLlava

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def script():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(BENCHMARKS)
        return importlib.import_module("eval_video_mme")


def test_a_video_is_watched_and_asked_three_questions(script, tmp_path):
    put_video(tmp_path / "x.mp4", 3)
    with HourLlava.from_pretrained(tiny_checkpoint(), device="cpu") as engine:
        figures = script.measured(engine, tmp_path / "x.mp4")
    assert figures["frames"] == 3
    assert 0 < figures["watch s"] + figures["three answers s"] <= figures["all s"]


def test_hours_follow_a_straight_line(script):
    """A video of n seconds takes 2 + n / 100 seconds."""
    hours = script.estimated([60.0, 600.0, 2400.0], [2.6, 8.0, 26.0])
    assert hours["short"] == pytest.approx(300 * (2 + 0.81) / 3600)
    assert hours["long"] == pytest.approx(300 * (2 + 24.71) / 3600)
    assert hours["all"] == pytest.approx(hours["short"] + hours["medium"] + hours["long"])
    assert sum(script.GROUPS.values()) * script.VIDEOS_PER_GROUP / 3600 == pytest.approx(254, rel=0.01)
