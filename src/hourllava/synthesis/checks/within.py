"""Checks among the questions of one video: the same question twice, and questions that contradict each other."""

from collections import defaultdict
from collections.abc import Sequence

from hourllava.synthesis.candidates import Candidate
from hourllava.synthesis.checks.words import words
from hourllava.synthesis.questions import SUMMARY_TASK

_OF_OPTIONS = {"these", "those", "following", "four", "three"}

Dropped = dict[str, str]
"""Question id -> reason."""


def duplicates(candidates: Sequence[Candidate], near: float) -> Dropped:
    """Questions that ask the same as an earlier one of their video and format: same answer, and words that are alike.

    Args:
        candidates: of one video, in order.
        near: share of common words above which two questions are alike.
    """
    dropped: Dropped = {}
    kept: dict[tuple[str, tuple[str, ...]], list[tuple[Candidate, frozenset[str]]]] = defaultdict(list)
    for candidate in candidates:
        own = frozenset(_asked(candidate))
        alike = kept[candidate.format, tuple(words(candidate.answer))]
        twin = next((other for other, theirs in alike if len(own & theirs) > near * len(own | theirs)), None)
        if twin is not None:
            dropped[candidate.id] = f"asks the same as {twin.id}"
        else:
            alike.append((candidate, own))
    return dropped


def contradictions(candidates: Sequence[Candidate]) -> Dropped:
    """Questions of a video with the same words and different answers: nobody knows which is wrong.

    An open question and a multiple-choice one are compared, too.
    """
    asked: dict[tuple[str, ...], list[Candidate]] = defaultdict(list)
    for candidate in candidates:
        if candidate.task != SUMMARY_TASK:
            asked[tuple(_asked(candidate))].append(candidate)
    dropped: Dropped = {}
    for group in asked.values():
        for candidate in group:
            other = next((each for each in group if words(each.answer) != words(candidate.answer)), None)
            if other is not None:
                dropped[candidate.id] = f"{other.id} asks the same and is answered {other.answer[:60]!r}"
    return dropped


def _asked(candidate: Candidate) -> list[str]:
    """The words that are asked; "which of these" is another question with other options."""
    found = words(candidate.question)
    if candidate.format == "choice" and _OF_OPTIONS & set(found):
        return found + sorted(f"option {word}" for text in (candidate.answer, *candidate.wrong) for word in words(text))
    return found
