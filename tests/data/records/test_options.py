"""Options: every option is found again by its text and its letter, in every layout, and no word is lost."""

import re
from collections import Counter

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from conftest import examples
from hourllava.choices import CHOICE_INSTRUCTION, LETTERS, choice_prompt
from hourllava.data.records.options import find_options, option_index, plain, resolve, without_letters
from hourllava.errors import InputError

NOUNS = ["red car", "man walks in", "dog runs out", "plan B", "vitamin C", "b", "cat.", "House!", "2.5 m", "no one"]
ODD = ["I", "II", "III", "IV", "i", "ii", "A", "b", "H", "a", "Z", "Yes", "No", "7", "12", "None", "C++", "C#", "(c)"]
ODD += ["I only", "A and B", "Both (A) and (B)", "A: the first", "A. Lincoln", "日本 駅"]
ARTICLES = st.sampled_from(["A", "a", "An", "The", "I", "B", "C"])
TEXTS = st.one_of(
    st.builds(lambda article, noun: f"{article} {noun}", ARTICLES, st.sampled_from(NOUNS)),
    st.sampled_from(ODD),
    st.text("abcI .-", min_size=1, max_size=12).map(str.strip).filter(lambda text: text and plain(text) != ""),
)
OPTIONS = st.lists(TEXTS, min_size=2, max_size=26, unique_by=plain)
QUESTION = st.sampled_from(
    ["Which?", "What does A carry?", "Who enters\nafter Dr. B. Smith?", "In scene I, which is it:"]
)


def words(*texts):
    return Counter(word for text in texts for word in re.findall(r"\w+", text))


def letter_forms(letter):
    return [letter, letter.lower(), f"{letter}.", f"({letter})", f"{letter})", f"{letter}:", f" ({letter.lower()}). "]


@given(OPTIONS, st.data())
def test_text_letter_and_both_give_the_option_back_or_are_refused(options, data):
    index = data.draw(st.integers(0, len(options) - 1))
    letter, text = LETTERS[index], options[index]
    # What a reader could take for two options: a text that is a letter's name, or a letter's name with a text.
    names = {plain(form): k for k in range(len(options)) for form in letter_forms(LETTERS[k])}
    names |= {plain(f"{form} {options[k]}"): k for k in range(len(options)) for form in letter_forms(LETTERS[k])}
    texts = {plain(option): k for k, option in enumerate(options)}
    marked = [
        f"{letter}. {text}",
        f"({letter}) {text}",
        f"{letter}) {text}",
        f"{letter}: {text}",
        f"{letter}.  {text}.",
    ]
    for answer in [text, f"{text}.", text.upper(), f" {text} ", *letter_forms(letter), *marked]:
        can_mean = {reading[plain(answer)] for reading in (names, texts) if plain(answer) in reading}
        can_mean |= {k for k, option in enumerate(options) if option == answer}
        if can_mean <= {index}:
            assert option_index(answer, options) == index, answer
        else:
            try:
                found = option_index(answer, options)
            except ValueError:
                continue
            assert found in can_mean


@pytest.mark.parametrize(
    ("options", "answer", "index"),
    [
        (["A red car", "A blue car"], "A blue car", 1),
        (["A red car", "A blue car"], "A blue car.", 1),
        (["The red car", "A blue car"], "A blue  car", 1),
        (["The red car", "A blue car"], "a BLUE car", 1),
        (["A dog runs out", "A man walks in", "A cat sleeps", "Nobody"], "A man walks in.", 1),
        (["I", "II", "III", "IV"], "I", 0),
        (["He", "She", "I"], "I", 2),
        (["Yes", "No"], "yes", 0),
        (["Yes", "No"], "b", 1),
        (["x", "y"], "A man", None),  # an article, and no option
        (["x", "y"], "C", None),
        (["x", "y"], "B. z", None),  # is it the letter, or the text?
        (["x", "y"], "B y", None),  # the letter is not marked
        (["x", "y"], "", None),
        (["A. Lincoln", "B. Obama"], "A. Lincoln", 0),
    ],
)
def test_answers_that_were_taken_for_letters(options, answer, index):
    assert option_index(answer, options) == index


@pytest.mark.parametrize(
    ("options", "answer"),
    [(["B", "y"], "B"), (["x", "x"], "x"), (["x", "y"], "A. y"), (["y", "A. y"], "A. y"), (["Yes.", "yes"], "YES")],
)
def test_answers_that_can_mean_two_options_are_refused(options, answer):
    with pytest.raises(ValueError, match="multiple-choice answer"):
        option_index(answer, options)


MARKS = ["{}. ", "{}) ", "{}: ", "({}) ", "  {}. ", "{}.", "({})"]
LINE_TEXTS = st.lists(
    st.sampled_from([*NOUNS, "I", "A house", "roses\nare red", "7", "II only"]), min_size=2, max_size=26
)
BEHIND = st.sampled_from(
    ["", f"\n{CHOICE_INSTRUCTION}", "\nNote: count only the left ones.", "\n\nPlease answer with the letter."]
)


@given(LINE_TEXTS, QUESTION, st.sampled_from(MARKS), st.booleans(), BEHIND)
def test_options_on_lines_are_found(options, question, mark, is_lower, behind):
    letters = LETTERS.lower() if is_lower else LETTERS
    text = question + "".join(f"\n{mark.format(letter)}{option}" for letter, option in zip(letters, options)) + behind
    found = find_options(text)
    assert found is not None
    assert found.options == tuple(options)
    # Lines behind the last option alone could be a note: then only a row that is multiple choice has these options.
    assert found.is_sure == ("\n" not in options[-1] or any("\n" in option for option in options[:-1]))
    note = "" if CHOICE_INSTRUCTION in behind else behind.strip()
    assert found.question == "\n".join([question, note] if note else [question])


@given(LINE_TEXTS, st.booleans(), st.sampled_from(["", ",", ";"]), st.booleans())
def test_options_on_one_line_are_found(options, is_lower, comma, is_first):
    options = [option.replace("\n", " ") for option in options]
    letters = LETTERS.lower() if is_lower else LETTERS
    listed = f"{comma} ".join(f"({letter}) {option}" for letter, option in zip(letters, options))
    found = find_options(f"{listed}\nWhich is it?" if is_first else f"Which is it? {listed}")
    assert found is not None
    assert found.options == tuple(options)
    assert found.question == "Which is it?"


PIECES = [
    "A",
    "B",
    "C",
    "I",
    "a",
    "b",
    "A.",
    "B.",
    "C.",
    "D.",
    "(A)",
    "(B)",
    "(a)",
    "(b)",
    "A)",
    "B)",
    "AA.",
    "red",
    "blue,",
]
PIECES += ["Which?", "\n", "\n", "\n\n", "Note: all.", CHOICE_INSTRUCTION]
FORMS = st.sampled_from([None, "open", "choice"])


@given(st.lists(st.sampled_from(PIECES)), FORMS, st.sampled_from(["A", "b", "B. red", "red", "A man", "C"]))
@example(["A.", "red", "\n", "B.", "blue", "\n", "Which?"], "choice", "A")
@example(["A", "(A)", CHOICE_INSTRUCTION, "(B)", "A", "A"], None, "A")
@example(["Steps:", "\n", "A.", "red", "\n", "B.", "blue", "\n", "Which?"], None, "A red one")
@examples(300)
def test_no_word_of_a_question_is_lost(pieces, form, answer):
    question = " ".join(pieces)
    try:
        told = resolve(question, answer, form=form)
    except ValueError:
        return  # reported
    if told.index is None:
        assert told.question == question
        return
    assert form != "open"
    marks = Counter(LETTERS[: len(told.options)])
    before = words(question.replace(CHOICE_INSTRUCTION, ""))
    after = words(*(text.replace(CHOICE_INSTRUCTION, "") for text in (told.question, *told.options)))
    lost, new = before - after, after - before
    assert not new
    assert Counter(word.upper() for word in lost.elements()) == marks  # only the letters, which are written anew


@pytest.mark.parametrize(
    ("question", "asked", "options"),
    [
        ("Which?\n" + "\n".join(f"{c}. thing{c}" for c in "ABCDEFGHIJ"), "Which?", [f"thing{c}" for c in "ABCDEFGHIJ"]),
        ("Which poem?\nA. roses\nred\nB. tyger\nbright", "Which poem?", ["roses\nred", "tyger\nbright"]),
        ("A. red\nB. blue\nWhich colour is the car?", "Which colour is the car?", ["red", "blue"]),
        ("Which? (A) red (B) blue (C) green", "Which?", ["red", "blue", "green"]),
        ("Which?\n(A) red (B) blue\n(C) green (D) grey", "Which?", ["red", "blue", "green", "grey"]),
        ("Which? A. red B. blue C. green", "Which?", ["red", "blue", "green"]),
        ("Which?\nOptions:\nA.\nred\nB.\nblue", "Which?\nOptions:", ["red", "blue"]),
        ("Which?\nI. walks\nII. runs\nA. I only\nB. both", "Which?\nI. walks\nII. runs", ["I only", "both"]),
        ("Which?\n(A) red\n(B) blue\n(C) both (A) and (B)", "Which?", ["red", "blue", "both (A) and (B)"]),
    ],
)
def test_layouts_of_rows_that_say_multiple_choice(question, asked, options):
    told = resolve(question, "B", form="choice")
    assert (told.question, told.options, told.index) == (asked, tuple(options), 1)


@pytest.mark.parametrize(
    "question",
    [
        "Which?", "Which?\nA. red", "Which?\nB. red\nC. blue", "Which?\nA. red\nC. blue", "A. red\nB. blue",
        "Which?\nA. red\nB.", "Which?\nA. red\nB. blue\nB. green", "Which? (A) red (B) both (A) and more",
        "Which?\n" + "\n".join(f"{c}. x{c}" for c in [*LETTERS, "AA"]), "A. roses\nred\nB. tyger\nWhich?",
        "Which?\nA. red\nB. blue\nThe end.\nI. think so",
    ],
)  # fmt: skip
def test_a_row_that_says_multiple_choice_without_clear_options_is_reported(question):
    with pytest.raises(ValueError, match="no options are found"):
        resolve(question, "A", form="choice")
    assert resolve(question, "A", form=None).question == question


@pytest.mark.parametrize("form", [None, "open"])
@pytest.mark.parametrize("answer", ["A plate is brought in.", "As a whole, both.", "I think he cooks."])
def test_an_open_question_that_holds_a_list_stays_as_it_is(form, answer):
    question = "Steps so far:\nA. cut\nB. cook\nWhat is next?"
    told = resolve(question, answer, form=form)
    assert (told.question, told.options, told.index) == (question, (), None)


def test_a_row_that_says_open_ended_is_taken_at_its_word():
    assert resolve("Which?\nA. red\nB. blue", "B", form="open").index is None
    assert resolve("Which?\nA. red\nB. blue", "B", form=None).index == 1
    assert resolve("Between (a) the dog and (b) the cat?", "The dog.", form=None).index is None
    with pytest.raises(ValueError, match="says open-ended"):
        resolve("Which?", "x", form="open", options=["x", "y"])


def test_the_number_of_options_is_2_to_26():
    for count in (1, 27):
        options = [f"x{k}" for k in range(count)]
        with pytest.raises(InputError, match=f"2 to 26 options, got {count}"):
            choice_prompt("Which?", options)
        with pytest.raises(ValueError, match="2 to 26"):
            resolve("Which?", "x0", form=None, options=options)
    options = [f"x{k}" for k in range(26)]
    assert resolve("Which?", "Z", form=None, options=options).index == 25
    assert find_options(choice_prompt("Which?", options)).options == tuple(options)


def test_letters_of_options_are_taken_off_only_if_all_have_them_in_order():
    assert without_letters(["A. x", "B. y"]) == ("x", "y")
    assert without_letters(["(a) x", "(b) y"]) == ("x", "y")
    assert without_letters(["A. Lincoln", "Obama"]) == ("A. Lincoln", "Obama")
    assert without_letters(["A dog", "B movie"]) == ("A dog", "B movie")
    with pytest.raises(ValueError, match="not in order"):
        without_letters(["B. x", "A. y"])
