"""Multiple choice as text: one form for data, training and asking."""

from collections.abc import Iterable

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
CHOICE_INSTRUCTION = "Answer with the option's letter from the given choices directly."
"""LLaVA's wording, which published checkpoints have seen in training."""


def choice_prompt(question: str, options: Iterable[str]) -> str:
    """A multiple-choice question as one text: the question, one line per option, and how to answer."""
    lines = [f"{letter}. {option}" for letter, option in zip(LETTERS, options)]
    return "\n".join([question, *lines, CHOICE_INSTRUCTION])
