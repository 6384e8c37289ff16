"""Drafts of questions, and how wrong options are drawn.

A builder looks for a fact with exactly one answer and returns None if the video has none. Wrong options come from the
same distribution as the right one: where possible, four facts of the video are drawn and then one of them is asked for.
So neither an option's text nor its likeness to the others reveals the answer.
"""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Literal, TypeVar

from hourllava.world.questions.view import Span, View
from hourllava.world.rng import Draws

Format = Literal["open", "choice"]
T = TypeVar("T")
NUM_OPTIONS = 4
PHRASINGS: dict[str, dict[str, list[str]]] = json.loads(
    files("hourllava.world.questions").joinpath("phrasings.json").read_text(encoding="utf-8")
)


@dataclass(frozen=True)
class Draft:
    """A question without its words: the template, its slots, the answer, three wrong options, the evidence spans."""

    template: str
    slots: dict[str, str]
    answer: str
    wrong: tuple[str, ...]
    evidence: tuple[Span, ...]


Builder = Callable[[View, Draws, Format], Draft | None]


def three_wrong(draws: Draws, answer: str, preferred: Iterable[str], vocabulary: Iterable[str] = ()) -> tuple[str, ...]:
    """Three distinct wrong options: from `preferred` (things in this video) first, then from `vocabulary`."""
    chosen: list[str] = []
    for pool in (preferred, vocabulary):
        fresh = sorted(set(pool) - {answer, *chosen})
        chosen += draws.sample(fresh, min(len(fresh), NUM_OPTIONS - 1 - len(chosen)))
    return tuple(chosen)


def four_then_one(draws: Draws, facts: Sequence[tuple[str, T]], distinct: Callable[[str, str], bool] = str.__ne__) -> (
    tuple[str, T, list[str]] | None
):  # fmt: skip
    """Draw up to four facts with pairwise distinct values, then one of them to ask for.

    Args:
        draws: the source of randomness.
        facts: (value, data) pairs.
        distinct: whether two values differ enough to be options of one question.

    Returns:
        The value to ask for, its data, and the other values (three, or fewer if the video has no more); None without
        facts.
    """
    chosen: list[tuple[str, T]] = []
    for value, fact in draws.shuffled(facts):
        if all(distinct(value, other) for other, _ in chosen):
            chosen.append((value, fact))
        if len(chosen) == NUM_OPTIONS:
            break
    if not chosen:
        return None
    value, fact = draws.pick(chosen)
    return value, fact, [other for other, _ in chosen if other != value]
