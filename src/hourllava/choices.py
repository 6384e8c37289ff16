"""Multiple-choice questions as text, in the same form for data, training and asking."""

from collections.abc import Iterable

from hourllava.errors import InputError

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
MAX_OPTIONS = len(LETTERS)
CHOICE_INSTRUCTION = "Answer with the option's letter from the given choices directly."
"""LLaVA's wording: published checkpoints were trained with it."""


def choice_prompt(question: str, options: Iterable[str]) -> str:
    """A multiple-choice question as one text: the question, one line per option, and how to answer.

    Raises:
        InputError: fewer than 2 or more than 26 options.
    """
    texts = list(options)
    if not 2 <= len(texts) <= MAX_OPTIONS:
        raise InputError(f"a choice needs 2 to {MAX_OPTIONS} options, got {len(texts)}")
    lines = [f"{letter}. {option}" for letter, option in zip(LETTERS, texts)]
    return "\n".join([question, *lines, CHOICE_INSTRUCTION])
