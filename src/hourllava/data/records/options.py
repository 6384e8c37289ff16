"""Multiple choice in files: finds the options in a question, and the option that an answer means.

An answer means an option by its text, by a letter that stands alone or is marked (`B`, `B.`, `(B)`, `B)`, `B:`), or by
both if they agree. An article is not a letter: "A man" does not mean option A. Texts with two readings are refused.
Cutting a question loses no word: each goes into the question or into an option.
"""

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Literal, NamedTuple

from hourllava.choices import CHOICE_INSTRUCTION, LETTERS, MAX_OPTIONS

Format = Literal["open", "choice"]

_MARK = re.compile(r"(?<![^\s,;])(?:[(（]([A-Za-z])[)）]|([A-Za-z])([)）.．:：]))[^\S\n]*")  # "(A)", "A)", "A.", "A:"
_MAYBE = re.compile(r"(?<![^\W_])[Aa][)）.．:：]")  # a fast first test: most questions have no options
_DOUBLE_LETTER = re.compile(r"^[^\S\n]*\(?(?:AA|aa)[).:]", re.MULTILINE)  # what follows Z
_NOTE = re.compile(
    r"\W*(?:notes?|hints?|please|answer|select|choose|pick|respond|reply|give only|write only"
    r"|only (?:the|one|answer|give|write|reply)|(?:the )?(?:best|correct|right) (?:answer|option|choice)"
    r"|your (?:answer|choice))\b",
    re.IGNORECASE,
)
_ENDING = " \t\n.!?…,;:。！？"


class _Mark(NamedTuple):
    """Where an option may begin. Marks of one style have the same sign and case."""

    letter: str  # upper case
    style: tuple[str, bool]  # the sign, "(" before the letter or ")", ".", ":" behind it; whether lower case
    start: int
    end: int
    is_at_line: bool  # nothing stands before it on its line


@dataclass(frozen=True)
class OptionList:
    """Options found in a question. Unless `is_sure`, they count only for a row known to be multiple choice."""

    question: str
    options: tuple[str, ...]
    is_sure: bool


@lru_cache(256)  # a question is parsed more than once
def find_options(text: str) -> OptionList | None:
    """Cut a text into the question and its 2 to 26 options; None without options, or if they are not clear.

    Options are lines `A. x`, `A) x`, `A: x`, `(A) x` from A on, upper or lower case, of one style; or `(A) x (B) y` and
    the like on one line. An option may have several lines. The question may stand before or after the options. A note
    after the options becomes the last line of the question; our own instruction is left out.
    """
    if not _MAYBE.search(text) or (found := _marked(text)) is None:
        return None
    marks, is_sure = found
    head = text[: marks[0].start].strip()
    bodies = []
    for mark, after in pairwise(marks):
        body = text[mark.end : after.start].strip()
        # On one line, commas stand between options: "(A) red, (B) blue".
        bodies.append(body if after.is_at_line else body.rstrip(",;"))
    last, more, notes = _ending(text[marks[-1].end :])
    is_long = any("\n" in body for body in bodies)
    is_note = bool(_NOTE.match(notes))
    if not head:  # the question stands behind its options
        if is_long and more:
            return None  # or is this the last option's second line?
        notes = _joined(more, notes)
    elif more and not is_long and more.endswith(("?", "？")):
        notes, is_sure = _joined(more, notes), False
    else:
        last = _joined(last, more)
        is_sure = is_sure and (is_long or not more) and (is_note or not notes)
    question, options = _joined(head, notes), (*bodies, last)
    if not question or not all(options) or _DOUBLE_LETTER.search(last):
        return None
    return OptionList(question, options, is_sure)


def _joined(*parts: str) -> str:
    return "\n".join(part for part in parts if part)


def _ending(text: str) -> tuple[str, str, str]:
    """The text behind the last mark: (the option's first line, lines that may continue it, notes)."""
    first, _, rest = text.partition("\n")
    if not first.strip():  # a mark on a line of its own
        first, _, rest = rest.partition("\n")
        if _NOTE.match(first):
            return "", "", first
    lines = [line for line in rest.split("\n") if line.strip() != CHOICE_INSTRUCTION]
    end = next((k for k, line in enumerate(lines) if not line.strip() or _NOTE.match(line)), len(lines))
    return first.strip(), "\n".join(lines[:end]).strip(), "\n".join(lines[end:]).strip()


def _marked(text: str) -> tuple[list[_Mark], bool] | None:
    """The marks of the options in order, and whether they are surely options; None without a clear list."""
    styles: dict[tuple[str, bool], list[_Mark]] = {}
    for match in _MARK.finditer(text):
        mark = _mark(match)
        # Within a line, "3 A.5" holds no option.
        if mark.is_at_line or mark.style[0] == "(" or text[match.end() - 1].isspace():
            styles.setdefault(mark.style, []).append(mark)
    lists = []  # (marks, is of a usual layout and the only one)
    for (sign, _), marks in styles.items():
        at_line, in_line = _runs([mark for mark in marks if mark.is_at_line]), _runs(marks)
        anywhere = in_line[0] if len(in_line) == 1 and _is_list(in_line[0]) else []
        num_lists = sum(map(_is_list, at_line))
        if num_lists:
            # A possible option after a list, or "(B) y (C) z" in a list of lines, has two readings.
            if not _is_list(at_line[-1]) or (sign == "(" and len(anywhere) > len(at_line[-1])):
                return None
            lists.append((at_line[-1], num_lists == 1))
        elif anywhere:
            lists.append((anywhere, sign == "("))
    if not lists:
        return None
    found, is_sure = max(lists, key=lambda item: item[0][0].start)
    return found, is_sure and len(lists) == 1


def _mark(match: re.Match[str]) -> _Mark:
    letter, sign = (match[1], "(") if match[1] else (match[2], unicodedata.normalize("NFKC", match[3]))
    line_start = match.string.rfind("\n", 0, match.start()) + 1
    is_at_line = not match.string[line_start : match.start()].strip()
    return _Mark(letter.upper(), (sign, letter.islower()), match.start(), match.end(), is_at_line)


def _runs(marks: list[_Mark]) -> list[list[_Mark]]:
    """Marks of one style, cut before each A; marks before the first A belong to no list."""
    runs: list[list[_Mark]] = []
    for mark in marks:
        if mark.letter == "A":
            runs.append([mark])
        elif runs:
            runs[-1].append(mark)
    return runs


def _is_list(run: list[_Mark]) -> bool:
    return 2 <= len(run) <= MAX_OPTIONS and all(mark.letter == letter for mark, letter in zip(run, LETTERS))


def plain(text: str) -> str:
    """A text for the comparison of answers: without case, double blanks and punctuation at its end."""
    return " ".join(text.split()).casefold().rstrip(_ENDING)


def option_index(answer: str, options: Sequence[str], labels: Sequence[str] = LETTERS) -> int | None:
    """The index of the option that an answer means; None if it means none.

    Args:
        answer: an option's text, its label alone or marked, or the marked label with the text.
        options: 2 to 26 texts.
        labels: of the options, in their order.

    Raises:
        ValueError: it can mean two options, or its letter and its text contradict each other.
    """
    by_text, by_label = _readings(answer, options, labels)
    if len(by_text) > 1:
        raise ValueError("a multiple-choice answer is the text of several options")
    if len(by_text | by_label) > 1:
        raise ValueError("a multiple-choice answer is both the letter of one option and the text of another")
    return next(iter(by_text | by_label), None)


def can_mean(answer: str, index: int, options: Sequence[str], labels: Sequence[str] = LETTERS) -> bool:
    """Whether an answer can mean this option, perhaps among others; arguments as for `option_index`.

    Raises:
        ValueError: its letter and its text contradict each other.
    """
    by_text, by_label = _readings(answer, options, labels)
    return index in by_text | by_label


def _readings(answer: str, options: Sequence[str], labels: Sequence[str]) -> tuple[set[int], set[int]]:
    """The options that an answer means by its text, and by its label."""
    by_text = _same_text(answer, options)
    label, text = _label(answer)
    names = {name.casefold(): index for index, name in enumerate(labels[: len(options)])}
    by_label = names.get(label.casefold()) if label is not None else None
    if by_label is None:
        return by_text, set()
    if text:  # "B. a cat": a letter only if the text agrees
        named = _same_text(text, options)
        if by_label not in named:
            if named and not by_text:
                raise ValueError("a multiple-choice answer is the letter of one option with the text of another")
            return by_text, set()
    return by_text, {by_label}


def _same_text(text: str, options: Sequence[str]) -> set[int]:
    """Options with exactly this text, or else those with the same `plain` text."""
    exact = {index for index, option in enumerate(options) if option == text}
    wanted = plain(text)
    return exact or {index for index, option in enumerate(options) if wanted and plain(option) == wanted}


_ALONE = re.compile(r"\s*(?:[(（]\s*(\w{1,2})\s*[)）]|(\w{1,2})\s*[).:）．：]?)\s*[.:]?\s*$")
_WITH_TEXT = re.compile(r"\s*(?:[(（]\s*(\w{1,2})\s*[)）][.:]?|(\w{1,2})\s*[).:）．：])\s*(\S.*)", re.DOTALL)


def _label(answer: str) -> tuple[str | None, str]:
    """(label, text behind it) of "B", "(B)", "B.", "B. a cat"; (None, "") without a label."""
    if match := _ALONE.match(answer):
        return match[1] or match[2], ""
    if match := _WITH_TEXT.match(answer):
        return match[1] or match[2], match[3]
    return None, ""


def is_letter(answer: str) -> bool:
    """Whether an answer is only an option's letter, alone or marked."""
    label, text = _label(answer)
    return label is not None and len(label) == 1 and label.upper() in LETTERS and not text


def without_letters(options: Sequence[str]) -> tuple[str, ...]:
    """Options without their letters: "A. x", "B. y" -> "x", "y"; unchanged unless all have letters.

    Raises:
        ValueError: all have letters, but not A, B, C, ... in order.
    """
    texts = [option.strip() for option in options]
    matches = [match for text in texts if (match := _MARK.match(text)) is not None and match.end() < len(text)]
    marks = [_mark(match) for match in matches]
    if len(marks) == len(texts) and len({mark.style for mark in marks}) == 1:
        letters = [mark.letter for mark in marks]
        if letters == list(LETTERS[: len(texts)]):
            return tuple(text[mark.end :] for text, mark in zip(texts, marks))
        if sorted(letters) == list(LETTERS[: len(texts)]):
            raise ValueError("the options' own letters are not in order")
    return tuple(options)


@dataclass(frozen=True)
class Resolved:
    """A question and its answer. `index` is None, and `options` empty, if it is open-ended."""

    question: str
    options: tuple[str, ...]
    index: int | None


def resolve(
    question: str,
    answer: str | None,
    *,
    form: Format | None,
    options: Sequence[str] = (),
    labels: Sequence[str] = LETTERS,
    index: int | None = None,
) -> Resolved:
    """Decide between open-ended and multiple choice, and find the option that is the answer.

    The row's own `form` counts. Without it, a list in the question holds options only if the answer is one of them;
    otherwise the question stays unchanged.

    Args:
        question: may hold the options.
        answer: the answer's text or letter; None only with `index`.
        form: "open" or "choice", if the row names it.
        options: of the row's own columns.
        labels: of these options, in their order.
        index: of the right option, from the row's own column; the answer must agree.

    Raises:
        ValueError: options are missing, empty or too many, or the answer means none or several of them.
    """
    if form == "open":
        if options:
            raise ValueError("the row says open-ended, but has options")
        return Resolved(question, (), None)
    found = find_options(question)
    is_apart = bool(options)
    if is_apart:
        if found is not None and found.options == tuple(options):  # the question repeats them
            question = found.question
    elif found is None or (form is None and not found.is_sure):
        if form == "choice":
            raise ValueError("the row says multiple choice, but no options are found in it")
        return Resolved(question, (), None)
    else:
        options = found.options
    if not 2 <= len(options) <= MAX_OPTIONS:
        raise ValueError(f"a multiple-choice question has {len(options)} options; 2 to {MAX_OPTIONS} are allowed")
    if not all(option.strip() for option in options):
        raise ValueError("an option of a multiple-choice question is empty")
    if index is not None:
        if not 0 <= index < len(options):
            raise ValueError("the answer's number is none of its options")
        if answer is not None and not can_mean(answer, index, options, labels):
            raise ValueError("the answer and the answer's number are not the same option")
    elif answer is not None:
        index = option_index(answer, options, labels)
    if index is not None:
        return Resolved(question if found is None or is_apart else found.question, tuple(options), index)
    if form is None and not is_apart and answer is not None and not is_letter(answer):
        return Resolved(question, (), None)
    raise ValueError("a multiple-choice answer is none of its options")
