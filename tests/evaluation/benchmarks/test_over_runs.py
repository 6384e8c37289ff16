"""Several runs of one benchmark: mean, spread, interval over runs."""

import json

import pytest

from cli.in_process import error_line, run_here
from evaluation.benchmarks.answers import answered, asked, write_run
from hourllava.evaluation.benchmarks.over_runs import spread


def runs_of(tmp_path, numbers_right, **fields):
    """Runs of ten questions about ten videos, with so many right answers."""
    questions = [asked(k, groups={"duration": ("long" if k % 2 else "short",)}) for k in range(10)]
    return [
        write_run(
            tmp_path / f"seed-{k}", "video-mme",
            [answered(question, "A" if question.place < right else "B") for question in questions], model=f"s{k}",
            **fields,
        )
        for k, right in enumerate(numbers_right)
    ]  # fmt: skip


def test_mean_and_interval_of_three_seeds(tmp_path):
    """By hand: 50, 60 and 70 percent; t(2) is 4.303, the standard error 5.774 points."""
    runs = runs_of(tmp_path, (5, 6, 7))
    ended = run_here("eval", "score", *runs, "--out", tmp_path / "out")
    assert ended.code == 0, ended.stderr
    assert ended.stdout.splitlines() == [str(tmp_path / "out" / name) for name in ("runs.json", "runs.md")]
    cell = json.loads((tmp_path / "out" / "runs.json").read_text())["cells"]["headline"]
    assert cell["mean"] == pytest.approx(0.6)
    assert cell["standard_deviation"] == pytest.approx(0.1)
    assert (cell["low"], cell["high"]) == (pytest.approx(0.6 - 0.24841, abs=1e-4), pytest.approx(0.84841, abs=1e-4))
    table = (tmp_path / "out" / "runs.md").read_text()
    assert "| headline | 60.0 | 10.0 | 35.2 to 84.8 |" in table
    assert "| duration: long |" in table
    for k in range(3):
        assert f"| s{k} | 000000000000 | 10 | {50 + 10 * k}.0 |" in table


def test_an_unknown_figure_has_no_mean():
    assert spread([0.5, None])["mean"] is None
    assert spread([0.5, 0.5]) == {"shares": [0.5, 0.5], "mean": 0.5, "standard_deviation": 0.0, "low": 0.5, "high": 0.5}


def test_what_cannot_be_scored_together(tmp_path):
    runs = runs_of(tmp_path, (5, 6))
    (other,) = runs_of(tmp_path / "other", (5,), protocol="official")
    ended = run_here("eval", "score", *runs, other, "--out", tmp_path / "out")
    assert (ended.code, "has protocol 'official', " in error_line(ended)) == (6, True)
    for more in ([], ["--out", tmp_path / "out", "--against", other]):
        ended = run_here("eval", "score", *runs, *more)
        assert (ended.code, "with --out and without --against" in error_line(ended)) == (2, True)
