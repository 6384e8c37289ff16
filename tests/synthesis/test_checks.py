"""Checks: each drops what it is for, and leaves good questions."""

from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest

from hourllava.synthesis.candidates import Candidate
from hourllava.synthesis.checks.across import MIN_QUESTIONS, blind, guessing, longest, yes_no
from hourllava.synthesis.checks.run import CHECKS
from hourllava.synthesis.checks.verifying import agrees, is_decided, verified
from hourllava.synthesis.checks.within import contradictions, duplicates
from hourllava.synthesis.checks.words import WORD_CHECKS
from hourllava.synthesis.settings import CheckSettings
from hourllava.synthesis.videos import Terms, Video
from hourllava.world.rng import Draws

VIDEO = Video(Path("v.mp4"), "v.mp4", "lectures", Terms(video="v.mp4"))
GOOD = Candidate(
    id="q1", video=VIDEO, duration_seconds=600, task="Object Attribute", format="choice",
    question="What colour is the kite over the harbour?", answer="orange", wrong=("red", "blue", "green"),
    evidence=((10.0, 20.0),), named_evidence=("part 1",), source_key="",
)  # fmt: skip
OPEN = replace(GOOD, format="open", wrong=())


def video(k):
    return replace(VIDEO, name=f"v{k}.mp4")


GOOD_ONES = [
    GOOD,
    OPEN,
    replace(OPEN, question="Which comes first, the old mill or the harbour bridge?", answer="the old mill"),
    replace(OPEN, question="When does she whistle?", answer="At 0:08:20"),
    replace(OPEN, question="What holds the sheets together?", answer="A paper clip"),
    replace(OPEN, question="What does the sign say, in Polish?", answer="Zażółć gęślą jaźń"),
    replace(GOOD, answer="left", wrong=("above left", "below left", "right")),
    replace(GOOD, answer="2, 1, 3", wrong=("1, 2, 3", "3, 2, 1", "3, 1, 2")),
]


@pytest.mark.parametrize("candidate", GOOD_ONES, ids=lambda c: c.answer)
def test_good_questions_pass(candidate):
    assert {name: check(candidate, "latin") for name, check in WORD_CHECKS.items()} == dict.fromkeys(WORD_CHECKS)


@pytest.mark.parametrize(
    ("check", "candidate"),
    [
        ("times", replace(OPEN, answer="At 0:12:00")),
        ("evidence", replace(OPEN, evidence=())),
        ("talk", replace(OPEN, question="What colour is the kite in this clip?")),
        ("talk", replace(OPEN, question="According to the caption, what is shown?")),
        ("talk", replace(GOOD, wrong=("red", "blue", "as described above"))),
        ("text", replace(OPEN, answer="It is not mentioned.")),
        ("text", replace(OPEN, answer=" ... ")),
        ("text", replace(OPEN, answer="word " * 400)),
        ("text", replace(OPEN, question="The man in red walks away, does he?", answer="The man in red walks")),
        ("text", replace(OPEN, question="Какого цвета змей?")),
        ("text", replace(OPEN, question="Какого цвета змей?", answer="the colour of an orange that is very ripe")),
        ("personal", replace(OPEN, answer="Write to jo.doe@example.org")),
        ("personal", replace(OPEN, answer="Call +49 170 1234567")),
        ("options", replace(GOOD, wrong=("Orange!", "red", "blue"))),
        ("options", replace(GOOD, wrong=("red", "blue", "all of the above"))),
        ("options", replace(GOOD, answer="a dog", wrong=("a dog and a cat", "a cow", "a hen"))),
    ],
)
def test_bad_questions_are_dropped_by_the_check_that_is_for_them(check, candidate):
    assert WORD_CHECKS[check](candidate, "latin")


def test_every_check_is_a_setting():
    assert all(getattr(CheckSettings(), name) is True for name in CHECKS)


def test_duplicates_have_the_same_answer_and_words_alike():
    other = replace(OPEN, id="q2")
    assert duplicates([OPEN, other], 0.9).keys() == {"q2"}
    assert not duplicates([OPEN, replace(other, answer="red")], 0.9)
    assert not duplicates([OPEN, replace(other, question="What colour is the boat over the harbour?")], 0.9)
    assert not duplicates([OPEN, replace(GOOD, id="q2")], 0.9)  # both formats may ask it


def test_contradictions_drop_all_sides():
    other = replace(GOOD, id="q2", answer="red", wrong=("orange", "blue", "green"))
    assert contradictions([OPEN, other]).keys() == {"q1", "q2"}
    assert not contradictions([OPEN, replace(GOOD, id="q2")])
    these = replace(GOOD, question="Which of these is seen?")
    assert not contradictions([these, replace(these, id="q2", answer="cat", wrong=("dog", "cow", "hen"))])


def many(count, change=lambda k, candidate: candidate):
    """Questions about several videos with options that say nothing."""
    colours = ("red", "blue", "green", "orange", "white", "black")
    found = []
    for k in range(count):
        options = Draws("many", k).sample(colours, 4)
        candidate = replace(GOOD, id=f"q{k}", video=video(k % 12), answer=options[0], wrong=tuple(options[1:]))
        found.append(change(k, candidate))
    return found


def test_guessing_that_does_not_pay_drops_nothing():
    candidates = many(3 * MIN_QUESTIONS)
    assert not blind(candidates, seed=0)
    chosen = {c.id: [c.options()[0]] for c in candidates}
    assert not guessing(candidates, chosen)


def test_a_telltale_word_is_thinned_out():
    def tell(k, candidate):
        return replace(candidate, answer=f"{candidate.answer} indeed") if k % 2 else candidate

    candidates = many(4 * MIN_QUESTIONS, tell)
    dropped = blind(candidates, seed=0)
    assert 0.3 < len(dropped) / len(candidates) < 0.6
    assert sum(int(name[1:]) % 2 for name in dropped) / len(dropped) > 0.9


def test_questions_that_are_always_guessed_are_thinned_out_to_chance():
    candidates = many(100)
    known = {c.id for k, c in enumerate(candidates) if k // 12 % 2}  # half of the questions of each video
    dropped = guessing(candidates, {c.id: [c.answer if c.id in known else c.wrong[0]] * 3 for c in candidates})
    assert len(dropped) == round((len(known) - 25) / 0.75)
    assert dropped.keys() <= known


def test_a_right_option_that_stands_out_is_dropped():
    assert longest([replace(GOOD, answer="orange with a long white tail behind it")], seed=0).keys() == {"q1"}
    assert not longest([replace(GOOD, answer="oranges")], seed=0)


def test_yes_and_no_are_balanced():
    def answer(k, candidate):
        return replace(candidate, format="open", wrong=(), answer="yes" if k % 4 else "no")

    candidates = many(200, answer)
    left = [c.answer for c in candidates if c.id not in yes_no(candidates, seed=0)]
    assert left.count("no") == 50
    assert 0.45 <= left.count("yes") / len(left) <= 0.55


# ---------------------------------------------------------------------------------------------------- the verifier


def verdict_of(candidate, opinions):
    """What a verifier said that agreed or not, in this order."""
    if candidate.format == "open":
        return {"open": [{"answer": "a", "verdict": "same" if agreed else "different"} for agreed in opinions]}
    return {"verified": [candidate.answer if agreed else candidate.wrong[0] for agreed in opinions]}


def asked(candidate, opinions, checks):
    """The opinions that a verifier was asked for until the question was decided."""
    for k in range(len(opinions)):
        if is_decided(candidate, verdict_of(candidate, opinions[:k]), checks):
            return opinions[:k]
    return opinions


@pytest.mark.parametrize("candidate", [GOOD, OPEN], ids=["choice", "open"])
@pytest.mark.parametrize("agreements", [1, 2, 3])
@pytest.mark.parametrize("objections", [1, 2, 3])
def test_a_question_is_decided_by_whichever_comes_first(candidate, agreements, objections):
    checks = CheckSettings(agreements=agreements, objections=objections)
    for opinions in product([True, False], repeat=agreements + objections - 1):
        used = asked(candidate, opinions, checks)
        assert is_decided(candidate, verdict_of(candidate, used), checks)
        assert (used.count(True) == agreements) != (used.count(False) == objections)
        kept = agrees(candidate, verdict_of(candidate, used))
        assert kept == (used.count(True) == agreements)
        assert kept == (not verified([candidate], {candidate.id: verdict_of(candidate, used)}))


def lost_and_answers(error, **checks):
    """(share of right questions that are dropped, answers about one) with a verifier that errs by chance."""
    settings = CheckSettings(**checks)
    lost = answers = 0.0
    for opinions in product([True, False], repeat=settings.agreements + settings.objections - 1):
        share = error ** opinions.count(False) * (1 - error) ** opinions.count(True)
        used = asked(OPEN, opinions, settings)
        lost += share * (not agrees(OPEN, verdict_of(OPEN, used)))
        answers += share * len(used)
    return lost, answers


def test_a_verifier_that_errs_loses_few_right_questions():
    """The figures that `verdicts` states."""
    assert lost_and_answers(0.1) == pytest.approx((0.028, 2.18))
    assert lost_and_answers(0.1, objections=1) == pytest.approx((0.19, 1.9))
    assert lost_and_answers(0.1, agreements=1, objections=1) == pytest.approx((0.1, 1.0))


def test_a_question_without_a_verdict_is_dropped():
    assert verified([GOOD], {GOOD.id: None}).keys() == {"q1"}
    assert verified([GOOD], {}).keys() == {"q1"}


def test_five_orders_give_every_option_every_letter():
    orders = [GOOD.rotated_options("verify", k) for k in range(5)]
    assert all(sorted(order) == sorted(orders[0]) for order in orders)
    assert all(len({order[place] for order in orders[:4]}) == 4 for place in range(4))
    assert orders[4] not in orders[:4]
