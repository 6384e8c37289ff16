"""TempCompass: what matches without a judge, what a judge is asked, and how its reply is read."""

import pytest

from hourllava.evaluation.benchmarks.catalogue import find_benchmark
from hourllava.evaluation.benchmarks.questions import Question
from hourllava.evaluation.benchmarks.tempcompass_rules import (
    harness_judge_request,
    judge_request,
    judge_says,
    match,
    match_stripped,
)


def question(kind, text, gold, **fields):
    return Question(id="q", video="v", kind=kind, text=text, question=text, gold=gold, **fields)


CHOICE = question("choice", "What is it doing?\nA. filling\nB. emptying", "B. emptying")
YES = question("yes_no", "Is it filling?", "no")
CAPTION = question("caption_matching", "Which?\nCaption A: It fills.\nCaption B: It empties.", "Caption B: It empties.")
OPTION = question("caption_matching", "Which?\nOption 1: It empties.\nOption 2: It fills.", "Option 1: It empties.")
SENTENCE = question("caption_matching", "Which?\nSentence A: Slow.\nSentence B: Fast.", "Sentence A: Slow.")
FREE = question(
    "captioning",
    "Describe it.",
    "B. emptying",
    judge_question="What?\nA. filling\nB. emptying",
    judge_answer="B. emptying",
)


@pytest.mark.parametrize(
    ("asked", "output", "right"),
    [
        (CHOICE, "B. emptying", True), (CHOICE, "B", True), (CHOICE, "B.", True), (CHOICE, "B) it is", True),
        (CHOICE, "A", False), (CHOICE, "A. emptying", False), (CHOICE, "D)", False),
        (CHOICE, "emptying", None), (CHOICE, "b", None), (CHOICE, "(B)", None), (CHOICE, "Because", None),
        (CHOICE, "E", None), (CHOICE, "", None), (CHOICE, "B is right", None),
        (YES, "No, it is not.", True), (YES, "nothing", True), (YES, "Yes", False), (YES, "It is not", None),
        (CAPTION, "Caption B: It empties.", True), (CAPTION, "It empties.", True), (CAPTION, "Caption B", True),
        (CAPTION, "B", True), (CAPTION, "B.", True), (CAPTION, "(B) It empties.", True), (CAPTION, "A", False),
        (CAPTION, "Caption A", False), (CAPTION, "It fills.", False), (CAPTION, "It empties", None),
        (OPTION, "Option 1", True), (OPTION, "1", True), (OPTION, "1.", True), (OPTION, "2", False),
        (OPTION, "Option 2: It fills.", False), (SENTENCE, "Sentence A", True), (SENTENCE, "A", True),
        (SENTENCE, "Fast.", False), (SENTENCE, "the first", None),
        (FREE, "B. emptying", None),
    ],
    ids=lambda value: value.text[:8] if isinstance(value, Question) else None,
)  # fmt: skip
def test_what_matches(asked, output, right):
    verdict = match(asked, output)
    assert verdict.right is right
    assert (verdict.answer == "") == (right is None)
    assert match_stripped(asked, f" {output}</s>\n").right is right


def test_blanks_count_for_lmms_eval_before_it_strips_them():
    rules = find_benchmark("tempcompass").rules
    assert rules["lmms-eval-0.3"].read(CHOICE, "B\n").right is None
    assert rules["lmms-eval-0.7.2"].read(CHOICE, "B\n").right is True  # it strips when it removes reasoning
    assert rules["lmms-eval-0.7.2"].read(CHOICE, "<think>A or B?</think>B").right is True
    assert rules["official"].read(CHOICE, "B</s> ").right is True


@pytest.mark.parametrize(
    ("asked", "what", "heading"),
    [
        (CHOICE, "multi-choice question", "Multi-Choice Question"),
        (YES, "Yes/No question", "Yes/No Question"),
        (CAPTION, "caption matching question", "Caption Matching Question"),
    ],
)
def test_what_a_judge_is_asked_about_an_answer(asked, what, heading):
    request = judge_request(asked, "it is so")
    assert request.startswith(
        f"\nYou will receive a {what}, the ground-truth answer and the prediction from a question "
    )
    assert (
        'If the prediction is correct, respond "Correct". If the prediction is incorrect, respond "Incorrect".\n'
        in request
    )
    end = f"\n{heading}:\n{asked.text}\nGround-Truth Answer: {asked.gold}\nModel Prediction: it is so"
    assert request.endswith(end)
    harness = harness_judge_request(asked, "it is so")  # compared with lmms-eval's own in test_harness.py
    assert harness.split() == request.split()
    assert harness.startswith(f"\n        You will receive a {what}, ")
    assert "model.         Your task is" in harness


def test_what_a_judge_is_asked_about_a_caption():
    request = judge_request(FREE, "A cup is emptied.")
    assert request.endswith(f"\nVideo Description:A cup is emptied.\nMulti-Choice Question:\n{FREE.judge_question}\n")
    assert "A person is palying football." in request  # its spelling is part of the benchmark
    harness = harness_judge_request(FREE, "A cup is emptied.")
    assert harness.endswith(f"{FREE.judge_question}\nAnswer:")
    assert "\n    You will receive a video description" in harness


@pytest.mark.parametrize(
    ("asked", "reply", "right"),
    [
        (CHOICE, "Correct", True), (CHOICE, "Incorrect", False), (CHOICE, "It is Correct.", True),
        (CHOICE, "It is Incorrect, not Correct", False), (CHOICE, "Correct, not Incorrect", True),
        (CHOICE, "I cannot say", None), (CHOICE, "", None),
        (FREE, "Reasoning: it empties\nAnswer: B. emptying", True), (FREE, "Answer: A. filling", False),
        (FREE, "B. emptying", True), (FREE, "Answer: B. emptying or A. filling", False),
        (FREE, "Answer: None of the choices are correct", False), (FREE, "Answer: B", False), (FREE, " ", None),
    ],
    ids=str,
)  # fmt: skip
def test_what_a_judge_says(asked, reply, right):
    assert judge_says(asked, reply) is right
