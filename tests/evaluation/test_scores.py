"""What counts as right, and how answers are grouped and compared."""

import pytest

from hourllava.data.records.taxonomy import TASKS
from hourllava.errors import DataError
from hourllava.evaluation.report import percent, table_of
from hourllava.evaluation.scores import (
    AnsweredQuestion,
    compare,
    depth_bin,
    is_right,
    length_bin,
    normalised,
    score,
    shows_moment,
)


def answered(number=0, *, right=True, **changes):
    fields = {
        "id": f"q{number}", "video": "v", "duration_seconds": 3600.0, "task": "Object Attribute", "topic": "object",
        "form": "short", "format": "choice", "template": "letter_colour", "question": "Which colour?",
        "options": ("red", "blue"), "truth": "red", "answers": {"video": "red" if right else "blue", "blind": "blue"},
        "right": {"video": right, "blind": False}, "moments": ((1800.0, 1802.0),),
        "evidence": ((0.0, 30.0), (1790.0, 1801.5), (50.0, 60.0)),
    }  # fmt: skip
    return AnsweredQuestion(**fields | changes)


@pytest.mark.parametrize("answer", ["red star", " Red  Star. ", "RED STAR", "red\nstar"])
def test_case_spaces_and_a_full_stop_do_not_count(answer):
    assert is_right(answer, "red star")


@pytest.mark.parametrize("answer", ["star", "a red star", "red stars", "", "red star, blue star"])
def test_anything_else_counts(answer):
    assert not is_right(answer, "red star")


def test_numbers_and_clocks_keep_their_marks():
    assert normalised("between 0:12:00 and 0:13:00.") == "between 0:12:00 and 0:13:00"
    assert not is_right("2 1 3", "2, 1, 3")


def test_bins():
    assert [length_bin(60 * minutes) for minutes in (0.5, 1, 3.1, 60, 61)] == [
        "0-1 min", "0-1 min", "3-10 min", "40-60 min", "over 60 min",
    ]  # fmt: skip
    assert [depth_bin(depth) for depth in (0, 0.0999, 0.1, 0.999)] == ["0-10 %", "0-10 %", "10-20 %", "90-100 %"]


def test_scores_by_everything():
    some = [
        answered(0),
        answered(1, right=False, duration_seconds=120.0, moments=((6.0, 8.0),)),
        answered(2, format="open", template="event_order", task="Event Sequence", topic="event", form="long"),
    ]
    scores = score(some)
    assert scores["all"]["all"]["choice"]["video"] | {"low": 0, "high": 0} == {
        "n": 2, "right": 1, "accuracy": 0.5, "low": 0, "high": 0, "videos": 1, "effective_n": 1, "correlation": None,
    }  # fmt: skip
    assert scores["all"]["all"]["choice"]["blind"]["right"] == 0
    assert scores["task"]["Event Sequence"]["open"]["video"]["n"] == 1
    assert set(scores["topic"]) == {"object", "event"}
    assert set(scores["form"]) == {"short", "long"}
    assert list(scores["length"]) == ["1-3 min", "40-60 min"]
    assert list(scores["depth"]) == ["0-10 %", "50-60 %"]  # the question without a card has no depth
    assert scores["evidence"]["all"]["n"] == 2
    assert scores["evidence"]["all"]["right"] == 2  # the second one's card is in the span from 0 to 30
    assert scores["evidence"]["40-60 min"]["by_chance"] == pytest.approx((30 + 11.5 + 10) / 3600)
    table = table_of(scores)
    # Two questions about one video count as one.
    assert f"| all | 2 | {percent(scores['all']['all']['choice']['video'])} | 0.0 (0.0-79.3; one video) | 1 |" in table
    assert "| Object Attribute | 2 | +50.0 (" in table
    assert "kept frames only |" not in table  # a condition that was not asked has no column


def test_a_cell_of_one_video_says_so():
    one_video = score([answered(k, right=k % 2 == 0) for k in range(10)])["all"]["all"]["choice"]["video"]
    assert percent(one_video).endswith("; one video)")
    assert one_video["high"] - one_video["low"] > 0.7
    many = score([answered(k, right=k % 2 == 0, video=f"v{k}") for k in range(10)])["all"]["all"]["choice"]["video"]
    assert percent(many) == "50.0 (23.7-76.3)"
    assert percent(score([answered()])["all"]["all"]["choice"]["video"]) == "100.0 (20.7-100.0)"


def test_the_difference_is_that_of_the_same_questions():
    some = [answered(k, right=k < 9, video=f"v{k // 2}") for k in range(10)]
    cell = score(some)["differences"]["all"]["all"]["choice"]["blind"]
    assert (cell["n"], cell["won"], cell["lost"], cell["difference"]) == (10, 9, 0, 0.9)
    assert 0 < cell["low"] < 0.9 < cell["high"] <= 1
    assert "frames_only" not in score(some)["differences"]["all"]["all"]["choice"]


def test_two_models_are_compared_question_by_question():
    ours = [answered(k, right=k < 8, video=f"v{k}") for k in range(10)]
    theirs = [answered(k, right=k % 2 == 0, video=f"v{k}") for k in range(12)]
    found, num_alone = compare(ours, theirs)
    cell = found["all"]["all"]["choice"]
    assert (cell["n"], cell["won"], cell["lost"], num_alone) == (10, 4, 1, 2)
    assert cell["difference"] == pytest.approx(0.3)
    with pytest.raises(DataError, match="no question in common"):
        compare(ours, [answered(99)])
    with pytest.raises(DataError, match="same id but different words in the two sets, such as q0"):
        compare(ours, [answered(0, truth="blue")])


def test_the_middle_of_the_card_must_be_marked():
    assert shows_moment(answered())
    assert not shows_moment(answered(evidence=((1790.0, 1801.0),)))
    assert not shows_moment(answered(evidence=((1801.5, 1830.0),)))


def test_the_needle_templates_are_in_the_world():
    from hourllava.evaluation.scores import NEEDLE_TEMPLATES
    from hourllava.world.questions.draft import PHRASINGS

    assert set(PHRASINGS) >= NEEDLE_TEMPLATES
    assert {"Object Attribute", "Scene Recognition", "Key Event Extraction"} <= set(TASKS)
