"""Attackers that read only questions and options: they find a planted hint, and nothing else."""

import numpy as np
import pytest

from hourllava.errors import ConfigError
from hourllava.world.making.blind import accuracy_table, blind_table, choice_questions, measure_blind
from hourllava.world.questions import BUILDERS


def test_blind_attackers_find_a_planted_shortcut_and_nothing_else():
    train, test = choice_questions("train", range(5), 2), choice_questions("test", range(5), 2)
    honest = measure_blind(train, test)
    assert {result.task for result in honest} == set(BUILDERS)
    for name in ("frequent", "words", "pairs", "likeness"):
        mean = np.mean([result.accuracy[name] for result in honest])
        assert abs(mean - 0.25) < 0.04

    def marked(question):
        options = [f"{o} indeed" if k == question.answer_index else o for k, o in enumerate(question.options)]
        return question.model_copy(update={"options": tuple(options), "answer": options[question.answer_index]})

    leaky = measure_blind([marked(q) for q in train], [marked(q) for q in test])
    assert np.mean([result.accuracy["words"] for result in leaky]) > 0.9
    assert np.mean([result.accuracy["likeness"] for result in leaky]) > 0.5
    assert "| all |" in accuracy_table(honest)


@pytest.mark.slow
def test_blind_guessing_stays_within_three_points_of_chance():
    train, test = choice_questions("train", range(500), 4), choice_questions("test", range(500, 1000), 4)
    for result in measure_blind(train, test):
        sampling = 3 * (0.25 * 0.75 / result.num_questions) ** 0.5
        assert result.largest_gap <= max(0.03, sampling), result


def test_blind_settings_are_checked():
    with pytest.raises(ConfigError, match="at least 2"):
        blind_table(0, 1)
    with pytest.raises(ConfigError, match="train, test"):
        blind_table(2, 1, "dev")
