"""Rules that read the letter of an option out of a model's answer. They disagree on everything but a bare letter.

    highest_mark    lmms-eval from 0.7.2 on: of all letters the one with the strongest mark
    first_letter    lmms-eval up to 0.7.1, Video-MME's script, VLMEvalKit, LongVideoBench: the first letter
    before_bracket  MLVU's authors, and lmms-eval up to 0.7.1: the character before the first ")"
    first_character LVBench's authors: the first character of what stands in the first brackets, or of the first word
    marked_option   EgoSchema in lmms-eval: a marked letter, else an option's text

Before lmms-eval 0.7.2 and later read an answer, `without_reasoning` removes `<think>...</think>` from it.

All give "" for an answer without a letter; the text of a letter is upper case as it stands, "b" is none.
Sources and a table of examples: docs/public-benchmarks.md#reading-a-letter.
"""

import re
from collections.abc import Iterator, Sequence

_STRIPPED = ",.!?;:'\""
_AFTER_PHRASE = 7
_MARKS = (("({})", 6), ("{}.", 5), ("{}:", 4), ("{})", 3), ("{} ", 2))  # how a letter is marked, how strong that is
_STARTS, _ENDS, _ANYWHERE = 10, 9, 0
_PHRASES = (
    *(f"{the}{kind}answer is" for the in ("", "the ") for kind in ("", "correct ", "best ")),
    *(f"{the}{kind}option is" for the in ("", "the ") for kind in ("correct ", "best ")),
    *(f"{the}{kind}choice is" for the in ("", "the ") for kind in ("", "correct ")),
    *(f"i {verb}" for verb in ("choose", "select", "pick")),
    *(f"my {noun} is" for noun in ("answer", "choice")),
    *("옵션", "정답은", "답은", "답:", "答案是", "答案为", "选", "答えは"),
)  # fmt: skip

_BEST_OF_TWO = ("The best answer is", "The correct answer is", "The answer is", "The answer")
# Two commas are missing in the released lists, so these two texts are searched for as one each.
_FUSED = ("The best option isThe correct option is", "Best answer:Best option:")
HARNESS_WORDS = (*_BEST_OF_TWO, *_FUSED)
"""What lmms-eval up to 0.7.1 and Video-MME's script delete."""
VLMEVALKIT_WORDS = (*HARNESS_WORDS, "Answer:", "Option:")
LONGVIDEOBENCH_WORDS = (
    *_BEST_OF_TWO, "The best option is", "The correct option is", "Best answer:", "Best option:",
)  # fmt: skip


_REASONING = ("think", "analysis")


def without_reasoning(text: str) -> str:
    """The text without blocks of reasoning, and without blanks at its ends.

    If only the end of a block is there, because the prompt began it, what stands behind the last end counts. A block
    without an end stays.
    """
    for tag in _REASONING:
        begin, end = f"<{tag}>", f"</{tag}>"
        while (start := text.find(begin)) >= 0 and (stop := text.find(end, start)) >= 0:
            text = text[:start] + text[stop + len(end) :]
        if begin not in text:
            text = text.rpartition(end)[2]
    return text.strip()


def highest_mark(text: str, letters: str) -> str:
    """The letter with the strongest mark; of equally strong ones, the last.

    From strong to weak: alone at the start, alone at the end, behind a phrase such as "the answer is", `(A)`, `A.`,
    `A:`, `A)`, `A `; a letter anywhere counts only if there is no mark at all.
    """
    bare = text.strip()
    for sign in _STRIPPED:  # one after the other, in this order
        bare = bare.strip(sign)
    padded = f" {bare} "
    found = list(_marks(padded, letters))
    if not found:
        found = [(_ANYWHERE, padded.rfind(letter), letter) for letter in letters if letter in padded]
    return max(found, key=lambda mark: mark[:2])[2] if found else ""


def _marks(padded: str, letters: str) -> Iterator[tuple[int, int, str]]:
    """(strength, position, letter) of all marked letters."""
    bare = padded.strip()
    lower = padded.lower()
    phrase_ends = [place + len(phrase) for phrase in _PHRASES if (place := lower.find(phrase)) >= 0]
    for letter in letters:
        for form, strength in _MARKS:
            if (place := padded.rfind(form.format(letter))) >= 0:
                yield strength, place, letter
        for end in phrase_ends:
            if (place := padded.find(letter, end)) >= 0:
                yield _AFTER_PHRASE, place, letter
        if bare.startswith(letter) and not bare[1:2].isalpha():
            yield _STARTS, 0, letter
        if bare.endswith(letter) and not bare[-2:-1].isalpha():
            yield _ENDS, 0, letter


def first_letter(text: str, letters: str, words: Sequence[str]) -> str:
    """The first of these letters anywhere, after the words are deleted: "Answer: B" gives A, if only they are not."""
    for word in words:
        text = text.replace(word, "")
    match = re.search(f"[{letters}]", text)
    return match[0] if match else ""


def before_bracket(text: str) -> str:
    """The character before the first ")"; without a bracket, the whole text."""
    bare = text.strip()
    before, bracket, _ = bare.partition(")")
    return before[-1:] if bracket else bare


def first_character(text: str) -> str:
    """The first character behind the first "(", or else of the text; only what stands before the first ")" counts."""
    before = text.strip().partition(")")[0].strip()
    if "(" in before:
        before = before.split("(")[1].strip()
    return before[:1]


def marked_option(text: str, options: Sequence[str], letters: str) -> str:
    """A letter marked as `(A)`, `A ` or `A.`; else, in an answer of more than five words, an option's text.

    Every mark counts at its last place; of several, the one at the earliest place is taken.

    Args:
        text: the answer.
        options: as published, with their letters.
        letters: of the options.
    """
    bare = text
    for sign in _STRIPPED[:-1]:
        bare = bare.strip(sign)
    padded = f" {bare} "
    marks = [form.format(letter) for form in ("({})", "{} ", "{}.") for letter in letters]
    found = [(padded.rfind(mark), letter) for mark, letter in zip(marks, letters * 3) if mark in padded]
    if not found and len(padded.split()) > 5:
        lower = padded.lower()
        found = [
            (lower.rfind(option.strip().lower()), letter)
            for option, letter in zip(options, letters)
            if option.strip().lower() in lower
        ]
    return min(found, key=lambda mark: mark[0])[1] if found else ""
