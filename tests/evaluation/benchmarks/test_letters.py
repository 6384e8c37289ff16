"""Rules that read a letter: the published tables of examples, and what holds for every text."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conftest import examples
from hourllava.evaluation.benchmarks.catalogue import BENCHMARKS
from hourllava.evaluation.benchmarks.letters import (
    HARNESS_WORDS,
    LONGVIDEOBENCH_WORDS,
    VLMEVALKIT_WORDS,
    before_bracket,
    first_character,
    first_letter,
    highest_mark,
    marked_option,
    without_reasoning,
)

RULES = {
    "new": lambda text: highest_mark(text, "ABCD"),
    "old": lambda text: first_letter(text, "ABCD", HARNESS_WORDS),
    "vlmevalkit": lambda text: first_letter(text, "ABCD", VLMEVALKIT_WORDS),
    "longvideobench": lambda text: first_letter(text, "ABCDE", LONGVIDEOBENCH_WORDS),
    "lvbench": first_character,
}
# The text; lmms-eval from 0.7.2 on, up to 0.7.1, VLMEvalKit, LongVideoBench ("" is drawn), LVBench's authors.
TABLE = [
    *((text, "B", "B", "B", "B", "B") for text in ("B", "B.", "B. Dog", "(B) Dog", "B)")),
    ("b", "", "", "", "", "b"),
    ("(b)", "", "", "", "", "b"),
    ("Answer: B", "B", "A", "B", "A", "A"),
    ("Best option: C", "C", "B", "B", "C", "B"),
    ("**B**", "B", "B", "B", "B", "*"),
    ("Both are wrong, so C", "C", "B", "B", "B", "B"),
    ("The answer is (C) because D is wrong", "D", "C", "C", "C", "C"),
    ("The best answer is B. A dog runs.", "A", "B", "B", "B", "T"),
    ("A man walks", "A", "A", "A", "A", "A"),
    ("E", "", "", "", "E", "E"),
]


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row[0])
def test_one_text_by_five_rules(row):
    text, *expected = row
    assert [read(text) for read in RULES.values()] == expected


@pytest.mark.parametrize(
    ("text", "letter"),
    [  # from strong marks to weak ones, and the last of equal ones
        ("C, not A.", "C"),  # alone at the start, before all others
        ("not (A) but D!", "D"),  # alone at the end
        ("I choose B, (A) is wrong", "A"),  # behind a phrase the last letter counts, marked or not
        ("maybe (A) or A. or B: no", "A"),
        ("first B. then C. then", "C"),
        ("first B: then C) then", "B"),
        ("first C) then B then", "C"),
        ("The choice is 정답은 D of them", "D"),
        ("xDx and xAx", "A"),  # no mark at all: the last letter anywhere
        ("", ""),
        (" . ", ""),
    ],
)
def test_the_strongest_mark_wins(text, letter):
    assert highest_mark(text, "ABCD") == letter


@pytest.mark.parametrize(
    ("text", "letter"),
    [("B) x", "B"), ("B", "B"), ("B. x", "B. x"), ("(B) x", "B"), (") x", ""), (" B \n", "B"), ("x (C) (D)", "C")],
)
def test_mlvu_reads_the_character_before_the_first_bracket(text, letter):
    assert before_bracket(text) == letter


OPTIONS = ["A. C washes a cup.", "B. C washes a cup and a pan.", "C. C cooks.", "D. C reads.", "E. C sleeps."]


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("(B)", "B"),
        ("B.", "B"),
        ("It is B", "B"),
        ("it is (D) or B.", "D"),  # the earliest of the marks
        ("I think that a. c washes a cup. is right", "A"),  # the text of an option, in five words or more
        ("a. c washes a cup.", ""),  # too few words
        ("nothing of all this is ever seen here", ""),
    ],
)
def test_egoschema_takes_a_marked_letter_or_a_text(text, letter):
    assert marked_option(text, OPTIONS, "ABCDE") == letter


@pytest.mark.parametrize(
    ("text", "rest"),
    [
        ("<think>A or B?</think>C", "C"),
        ("A <think>x</think> B <analysis>y</analysis> C", "A  B  C"),
        ("x</think> B", "B"),  # the prompt began the block
        ("<think>never ends: B", "<think>never ends: B"),
        ("</think> <think> B", "</think> <think> B"),
        (" B\n", "B"),
    ],
)
def test_reasoning_is_removed(text, rest):
    assert without_reasoning(text) == rest


pieces = st.sampled_from([*"ABCDEab .:)(\n*", "the answer is ", "Answer:", "</think>", "é"])
texts = st.lists(pieces, max_size=15).map("".join)


@examples(50)
@given(texts)
def test_a_rule_reads_a_letter_or_nothing(text):
    for name in ("new", "old", "vlmevalkit", "longvideobench"):
        assert RULES[name](text) in ("", *"ABCDE")
    assert marked_option(text, OPTIONS, "ABCDE") in ("", *"ABCDE")
    assert len(first_character(text)) <= 1


@examples(50)
@given(st.sampled_from("ABCD"), st.sampled_from(["", " ", "\n"]), st.sampled_from(["", " ", "\n", "."]))
def test_all_rules_agree_on_a_bare_letter(letter, before, after):
    assert {read(f"{before}{letter}{after}") for read in RULES.values()} == {letter}
    assert marked_option(letter + after.strip(), OPTIONS, "ABCDE") == letter
    assert before_bracket(f"{before}{letter}") == letter


@examples(50)
@given(texts.filter(lambda text: not set("ABCD") & set(text)))
def test_no_rule_invents_a_letter(text):
    for name in ("new", "old", "vlmevalkit"):
        assert RULES[name](text) == ""


def test_every_protocol_has_its_rule():
    for benchmark in BENCHMARKS.values():
        assert {protocol.rule for protocol in benchmark.protocols.values()} <= benchmark.rules.keys()
        assert benchmark.default_protocol in benchmark.protocols
        assert "likelihood" in benchmark.protocols
