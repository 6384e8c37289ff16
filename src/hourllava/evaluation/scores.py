"""Answers to scores: what counts as right, accuracies with their intervals, and whether the evidence shows the moment.

Intervals are Wilson's, 95 %: they hold for few questions and near 0 and 1, where the usual ones do not.
"""

import math
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

Condition = Literal["video", "frames_only", "blind"]
CONDITIONS: tuple[Condition, ...] = ("video", "frames_only", "blind")
"""What the model is given: the video; only the kept tokens as memory; the question alone."""

FORMATS = ("choice", "open")
LENGTH_EDGES_MINUTES = (0, 1, 3, 10, 20, 40, 60)
DEPTH_BINS = 10
NEEDLE_TEMPLATES = frozenset({"letter_colour", "scene_of_letter", "event_of_letter"})
"""Questions about one card, which is their first evidence."""

_Z = 1.959963984540054  # 97.5 % of a normal distribution lies below

Interval = tuple[float, float]


class AnsweredQuestion(BaseModel):
    """A line of `answers.jsonl`. `right` and `answers` have a value for each condition that was asked."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    id: str
    video: str
    duration_seconds: float
    task: str
    topic: str
    form: str  # short or long, of the taxonomy
    format: Literal["choice", "open"]
    template: str
    question: str
    options: tuple[str, ...]
    truth: str
    answers: dict[Condition, str]
    right: dict[Condition, bool]
    moments: tuple[Interval, ...]  # (start_seconds, end_seconds) of what is asked about
    evidence: tuple[Interval, ...]  # the spans the model looked at, strongest first

    @property
    def is_needle(self) -> bool:
        """Whether one card answers the question."""
        return self.template in NEEDLE_TEMPLATES

    @property
    def depth(self) -> float:
        """Where the moment lies: share of the video before it."""
        return self.moments[0][0] / self.duration_seconds


def normalised(text: str) -> str:
    """Text as it is compared in open-ended answers: case, spaces and a full stop at the end do not count."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split()).rstrip(".").rstrip()


def is_right(answer: str, truth: str) -> bool:
    """Exact match after normalisation."""
    return normalised(answer) == normalised(truth)


def wilson_interval(num_right: int, num_questions: int) -> Interval:
    """95 % confidence interval of a share; (0, 1) if nothing was asked.

    Source: E. B. Wilson, Probable inference, the law of succession, and statistical inference, 1927.
    """
    if num_questions == 0:
        return 0.0, 1.0
    share = num_right / num_questions
    weight = _Z**2 / num_questions
    centre = (share + weight / 2) / (1 + weight)
    half = math.sqrt(share * (1 - share) * weight + weight**2 / 4) / (1 + weight)
    return max(0.0, centre - half), min(1.0, centre + half)


def accuracy_of(hits: Sequence[bool]) -> dict[str, Any]:
    """Number of questions, share of right ones and its interval."""
    low, high = wilson_interval(sum(hits), len(hits))
    share = sum(hits) / len(hits) if hits else None
    return {"n": len(hits), "right": sum(hits), "accuracy": share, "low": low, "high": high}


def length_bin(duration_seconds: float) -> str:
    """The bin of a video's length, such as "10-20 min"; an hour is in "40-60 min"."""
    minutes = duration_seconds / 60
    for low, high in pairwise(LENGTH_EDGES_MINUTES):
        if minutes <= high:
            return f"{low}-{high} min"
    return f"over {LENGTH_EDGES_MINUTES[-1]} min"


def depth_bin(depth: float) -> str:
    """The tenth of the video in which a moment lies, such as "30-40 %"."""
    k = min(int(depth * DEPTH_BINS), DEPTH_BINS - 1)
    return f"{100 * k // DEPTH_BINS}-{100 * (k + 1) // DEPTH_BINS} %"


Axis = Callable[[AnsweredQuestion], str | None]
AXES: dict[str, Axis] = {
    "all": lambda answered: "all",
    "task": lambda answered: answered.task,
    "topic": lambda answered: answered.topic,
    "form": lambda answered: answered.form,
    "length": lambda answered: length_bin(answered.duration_seconds),
    "depth": lambda answered: depth_bin(answered.depth) if answered.is_needle else None,
}
"""What accuracies are told by; questions without a value do not count."""


def score(answered: Sequence[AnsweredQuestion]) -> dict[str, Any]:
    """All scores as plain data: `scores["task"]["Temporal Order"]["choice"]["video"]["accuracy"]`.

    `scores["evidence"]` has the same by length instead of format: of the needle questions, how many have their card in
    one of the three spans, and how many would if as much of the video were marked by chance.
    """
    scores: dict[str, Any] = {axis: _by_group(answered, of) for axis, of in AXES.items()}
    scores["evidence"] = _evidence(answered)
    return scores


def _by_group(answered: Iterable[AnsweredQuestion], axis: Axis) -> dict[str, Any]:
    hits: dict[str, dict[str, dict[Condition, list[bool]]]] = defaultdict(
        lambda: defaultdict(lambda: defaultdict(list))
    )
    for one in answered:
        group = axis(one)
        if group is not None:
            for condition, right in one.right.items():
                hits[group][one.format][condition].append(right)
    return {
        group: {
            format_: {condition: accuracy_of(some) for condition, some in conditions.items()}
            for format_, conditions in formats.items()
        }
        for group, formats in sorted(hits.items(), key=lambda item: _order(item[0]))
    }


def _order(group: str) -> tuple[float, str]:
    """Bins by their numbers, names by the alphabet."""
    first = group.removeprefix("over ").partition("-")[0].partition(" ")[0]
    return (float(first), group) if first.isdecimal() else (0.0, group)


def _evidence(answered: Iterable[AnsweredQuestion]) -> dict[str, Any]:
    groups: dict[str, list[AnsweredQuestion]] = defaultdict(list)
    for one in answered:
        if one.is_needle and one.evidence:
            groups["all"].append(one)
            groups[length_bin(one.duration_seconds)].append(one)
    return {
        group: accuracy_of([shows_moment(one) for one in some])
        | {"by_chance": sum(_marked_share(one) for one in some) / len(some)}
        for group, some in groups.items()
    }


def shows_moment(one: AnsweredQuestion) -> bool:
    """Whether the middle of the asked card lies in one of the spans."""
    start, end = one.moments[0]
    middle = (start + end) / 2
    return any(first <= middle < last for first, last in one.evidence)


def _marked_share(one: AnsweredQuestion) -> float:
    return min(1.0, sum(last - first for first, last in one.evidence) / one.duration_seconds)
