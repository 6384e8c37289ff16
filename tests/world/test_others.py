"""Captions, needles, blind attackers, contact sheets."""

import numpy as np
import pytest
from PIL import Image

from hourllava.errors import ConfigError
from hourllava.plotting import save_figure
from hourllava.world.captions import generate_captions
from hourllava.world.drawing.render import render_frames
from hourllava.world.drawing.sheet import contact_sheet
from hourllava.world.generate import generate_script
from hourllava.world.making.blind import blind_table, choice_questions, markdown_table, measure_blind
from hourllava.world.making.needles import NeedleResult, draw_needle_map, needle_accuracy, needle_cases
from hourllava.world.questions import BUILDERS
from hourllava.world.vocabulary import COLOURS
from hourllava.world.wording import bucket, spoken_duration


@pytest.mark.parametrize("duration", [1, 7, 45, 605])
def test_captions_cover_the_video_without_gaps(duration):
    script = generate_script(3, duration)
    captions = generate_captions(script)
    assert captions.clips[0].start_seconds == 0
    assert captions.clips[-1].end_seconds == duration
    for before, after in zip(captions.clips, captions.clips[1:]):
        assert before.end_seconds == after.start_seconds
    assert all(clip.end_seconds - clip.start_seconds <= 30 for clip in captions.clips)
    assert [(e.start_seconds, e.end_seconds) for e in captions.events] == [
        (e.start_seconds, e.end_seconds) for e in script.events
    ]


def test_captions_name_what_is_there_in_varied_words():
    script = generate_script(6, 600)
    captions = generate_captions(script)
    for clip in captions.clips:
        for name in ("temporality", "spatiality", "object", "action", "scene", "summary"):
            text = getattr(clip, name)
            assert text.endswith(".")
            assert text[0].isupper()
            assert "None" not in text
            assert " a orange" not in text
    for event, caption in zip(script.events, captions.events):
        assert event.scene in caption.caption
        assert all(action.actor in caption.caption for action in event.actions)
        assert all(name in caption.caption for name in event.places)
    for needle in script.needles:
        assert f"{needle.glyph} in {needle.colour}" in captions.overall
    assert len({caption.caption.split(" the ")[0] for caption in captions.events}) == 3
    assert generate_captions(script) == captions


def test_needle_cases_put_the_card_at_its_depth():
    cases = list(needle_cases((60, 3600, 86400), repeats=2))
    assert len(cases) == 60
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


def test_blind_attackers_find_a_planted_shortcut_and_nothing_else():
    train, test = choice_questions("train", range(40), 2), choice_questions("test", range(40), 2)
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
    assert "| all |" in markdown_table(honest)


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


def test_contact_sheet_holds_all_frames():
    frames = render_frames(generate_script(1, 10), range(5), 64)
    sheet = contact_sheet(frames, [f"0:0{k}\nframe" for k in range(5)], columns=3)
    assert sheet.size[0] > 3 * 64
    assert sheet.size[1] > 2 * 64
    np.testing.assert_array_equal(np.asarray(sheet)[8:72, 8:72], frames[0])


def test_times_are_spelled_in_one_way():
    assert bucket(75, 180) == "between 0:01:10 and 0:01:20"
    assert bucket(4000, 5000) == "between 1:06:00 and 1:07:00"
    assert [spoken_duration(s) for s in (1, 19, 21, 118, 125, 3600, 7300, 80000)] == [
        "1 second", "19 seconds", "20 seconds", "120 seconds", "2 minutes", "60 minutes", "2 hours", "22 hours",
    ]  # fmt: skip
