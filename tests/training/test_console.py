"""The line of figures that training prints."""

import pytest

from hourllava.training.console import describe

FIGURES = {
    "loss": 1.5,
    "loss_text": 1.5,
    "grad_norm": 2.0,
    "learning_rate_share": 0.5,
    "samples_per_second": 1.0,
    "tokens_per_second": 1.0,
    "frames_per_second": 1.0,
    "data_wait_share": 0.0,
    "skipped_samples": 0.0,
}


@pytest.mark.parametrize(
    ("seconds", "told"),
    [(0, "00:00:00"), (-5, "00:00:00"), (59.6, "00:01:00"), (3_599, "00:59:59"), (86_399, "23:59:59"),
     (86_400, "24:00:00"), (74 * 3600, "74:00:00"), (1_000 * 3600 + 61, "1000:01:01")],
)  # fmt: skip
def test_the_time_left_has_as_many_hours_as_there_are(seconds, told):
    assert describe(FIGURES, 1, 2, seconds).endswith(f"| {told} left")


def test_what_was_skipped_is_told_if_anything_was():
    assert "skipped" not in describe(FIGURES, 1, 2, 0)
    assert "| 3 samples skipped |" in describe(FIGURES | {"skipped_samples": 3.0}, 1, 2, 0)
