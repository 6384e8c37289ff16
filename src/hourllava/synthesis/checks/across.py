"""Checks over the whole data set: what can be guessed without the video, and what is out of balance.

A single question tells nothing: one in four is guessed right by chance. So a task is thinned out only if guessing pays
in it clearly, and then by as many questions as it takes to bring guessing back to chance, the surest ones first. A
right question in a task without shortcuts is never dropped.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from hourllava.evaluation.intervals import accuracy_of
from hourllava.synthesis.candidates import Candidate
from hourllava.synthesis.checks.within import Dropped
from hourllava.synthesis.checks.words import words
from hourllava.world.making.blind import CHANCE, attackers
from hourllava.world.rng import Draws

MIN_QUESTIONS = 40  # of a task, before anything is said about guessing
MIN_VIDEOS = 4
MAX_LEARNT = 20_000  # questions that attackers learn from
MARGIN = 0.05  # above chance, which the interval must exceed
LONGEST_FACTOR = 1.5  # the right option as long as this times the longest wrong one stands out
LONGEST_SHARE = 0.35  # of a task in which the right option is the longest; chance is 0.25
YES_LOW, YES_HIGH = 0.45, 0.55


@dataclass(frozen=True)
class AttackedCandidate:
    """A question as attackers take it; its task stands for a template."""

    template: str
    task: str
    question: str
    options: tuple[str, ...]
    answer: str
    answer_index: int


def blind(candidates: Sequence[Candidate], seed: int) -> Dropped:
    """Multiple choice that attackers answer from the words of other videos' questions (`world.making.blind`)."""
    choices = [candidate for candidate in candidates if candidate.format == "choice"]
    dropped: Dropped = {}
    for name, sure in attacked(choices, seed).items():
        dropped |= thinned([c for c in choices if c.id not in dropped], sure, f"guessed by the attacker {name!r}")
    return dropped


def blind_accuracy(candidates: Sequence[Candidate], seed: int) -> dict[str, float]:
    """Task, or "all" -> share of its multiple choice that the best attacker answers; tasks with few are left out."""
    choices = [candidate for candidate in candidates if candidate.format == "choice"]
    scores = attacked(choices, seed)
    found = {}
    for task in (*dict.fromkeys(candidate.task for candidate in choices), "all"):
        mine = [candidate.id for candidate in choices if task in (candidate.task, "all")]
        if scores and len(mine) >= MIN_QUESTIONS:
            found[task] = max(sum(sure[id_] >= 0 for id_ in mine) / len(mine) for sure in scores.values())
    return found


def attacked(choices: Sequence[Candidate], seed: int) -> dict[str, dict[str, float]]:
    """Attacker -> question -> how sure it is if it is right, else -1; nothing if there are too few videos.

    Attackers learn from one half of the videos and answer about the other, and the other way round.
    """
    halves = [[c for c in choices if _half(c, seed) == k] for k in range(2)]
    if min(len({c.video.id for c in half}) for half in halves) < MIN_VIDEOS:
        return {}
    scores: dict[str, dict[str, float]] = defaultdict(dict)
    for learnt, asked in (halves, halves[::-1]):
        lesson = Draws("lesson", seed).sample(learnt, min(len(learnt), MAX_LEARNT))
        for name, scorer in attackers([_attacked(candidate, seed) for candidate in lesson]).items():
            for candidate in asked:
                question = _attacked(candidate, seed)
                found = scorer(question)
                order = np.argsort(found)
                margin = float(found[order[-1]] - found[order[-2]])
                is_right = int(order[-1]) == question.answer_index and margin > 0
                scores[name][candidate.id] = margin if is_right else -1.0
    return dict(scores)


def guessing(candidates: Sequence[Candidate], guesses: Mapping[str, Sequence[str]]) -> Dropped:
    """Multiple choice that a model answers without any data, under every order of the options.

    Args:
        candidates: that remain.
        guesses: question id -> the options that the model chose.
    """
    choices = [candidate for candidate in candidates if guesses.get(candidate.id)]
    sure = {
        candidate.id: float(len(found)) if all(option == candidate.answer for option in found) else -1.0
        for candidate in choices
        if (found := guesses[candidate.id])
    }
    return thinned(choices, sure, "guessed by the verifier without any data")


def thinned(candidates: Sequence[Candidate], sure: Mapping[str, float], reason: str) -> Dropped:
    """In each task in which guessing pays: as many of the guessed questions as bring it back to chance.

    Args:
        candidates: multiple choice.
        sure: question id -> how sure the guess is; negative if it is wrong.
        reason: why they are dropped.
    """
    dropped: Dropped = {}
    for task in dict.fromkeys(candidate.task for candidate in candidates):
        mine = [candidate for candidate in candidates if candidate.task == task]
        hits = [sure[candidate.id] >= 0 for candidate in mine]
        if len(mine) < MIN_QUESTIONS:
            continue
        accuracy = accuracy_of(hits, [candidate.video.id for candidate in mine])
        if accuracy["low"] <= CHANCE + MARGIN:
            continue
        too_many = round((sum(hits) - CHANCE * len(mine)) / (1 - CHANCE))
        right = sorted((c for c, hit in zip(mine, hits) if hit), key=lambda c: (-sure[c.id], c.id))
        share = f"{100 * accuracy['accuracy']:.0f} % of {task} is"
        dropped |= {candidate.id: f"{reason} ({share})" for candidate in right[:too_many]}
    return dropped


def longest(candidates: Sequence[Candidate], seed: int) -> Dropped:
    """Multiple choice whose right option stands out by its length.

    In a task in which the right option is the longest too often, some of those questions are dropped, too.
    """
    dropped: Dropped = {}
    choices = [candidate for candidate in candidates if candidate.format == "choice"]
    for candidate in choices:
        if len(candidate.answer) > LONGEST_FACTOR * max(map(len, candidate.wrong)) + 4:
            dropped[candidate.id] = "the right option is much longer than the others"
    for task in dict.fromkeys(candidate.task for candidate in choices):
        mine = [c for c in choices if c.task == task and c.id not in dropped]
        long = [c for c in mine if len(c.answer) > max(map(len, c.wrong))]
        too_many = round((len(long) - LONGEST_SHARE * len(mine)) / (1 - LONGEST_SHARE))
        if len(mine) >= MIN_QUESTIONS and too_many > 0:
            picked = Draws("longest", seed, task).sample(sorted(c.id for c in long), too_many)
            dropped |= dict.fromkeys(picked, f"the right option is the longest too often in {task}")
    return dropped


def yes_no(candidates: Sequence[Candidate], seed: int) -> Dropped:
    """Questions answered by yes or no of which there are too many: per task, each has 45 to 55 %."""
    dropped: Dropped = {}
    for task in dict.fromkeys(candidate.task for candidate in candidates):
        sides = {
            side: sorted(c.id for c in candidates if c.task == task and yes_or_no(c) == side) for side in ("yes", "no")
        }
        few, many = sorted(sides, key=lambda side: len(sides[side]))
        most = int(len(sides[few]) * YES_HIGH / YES_LOW) if sides[few] else len(sides[many])
        if len(sides[many]) > most:
            picked = Draws("yes-no", seed, task).sample(sides[many], len(sides[many]) - most)
            dropped |= dict.fromkeys(picked, f"{many} is the answer too often in {task}")
    return dropped


def yes_or_no(candidate: Candidate) -> str | None:
    """ "yes" or "no" if an open question is answered so."""
    first = words(candidate.answer)[:1]
    return first[0] if candidate.format == "open" and first and first[0] in ("yes", "no") else None


def _half(candidate: Candidate, seed: int) -> int:
    return Draws("half", seed, candidate.video.id).below(2)


def _attacked(candidate: Candidate, seed: int) -> AttackedCandidate:
    row = candidate.row(seed)
    assert row.answer_index is not None
    return AttackedCandidate(candidate.task, candidate.task, row.question, row.options, row.answer, row.answer_index)
