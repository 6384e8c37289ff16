"""From answers to scores: what counts as right, accuracies with intervals, and whether the evidence shows the moment.

The intervals account for the correlation of questions about one video, see `hourllava.evaluation.intervals`.
"""

import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from hourllava.errors import DataError
from hourllava.evaluation.intervals import Interval, accuracy_of, difference_of

Condition = Literal["video", "frames_only", "blind"]
CONDITIONS: tuple[Condition, ...] = ("video", "frames_only", "blind")
"""What the model is given: the whole memory; only the kept tokens; only the question."""

FORMATS = ("choice", "open")
LENGTH_EDGES_MINUTES = (0, 1, 3, 10, 20, 40, 60)
DEPTH_BINS = 10
NEEDLE_TEMPLATES = frozenset({"letter_colour", "scene_of_letter", "event_of_letter"})
"""Templates of questions about one card; the card is their first evidence span."""


class AnsweredQuestion(BaseModel):
    """A line of `answers.jsonl`. `answers` and `right` have one value per condition under which it was asked."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    id: str
    video: str
    duration_seconds: float = Field(gt=0, allow_inf_nan=False)
    task: str
    topic: str
    form: str  # of the taxonomy: short or long stretch of video
    format: Literal["choice", "open"]
    template: str
    question: str
    options: tuple[str, ...]
    truth: str
    answers: dict[Condition, str]
    right: dict[Condition, bool]
    moments: tuple[Interval, ...]  # true evidence, (start_seconds, end_seconds)
    evidence: tuple[Interval, ...]  # the spans that the model looked at, strongest first

    @property
    def is_needle(self) -> bool:
        """Whether one card answers the question."""
        return self.template in NEEDLE_TEMPLATES and bool(self.moments)

    @property
    def depth(self) -> float:
        """The share of the video before the moment, 0 to 1."""
        return self.moments[0][0] / self.duration_seconds


def normalised(text: str) -> str:
    """The text without differences of case, spaces and a full stop at the end; open-ended answers are compared so."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split()).rstrip(".").rstrip()


def is_right(answer: str, truth: str) -> bool:
    """Whether both texts are equal once normalised."""
    return normalised(answer) == normalised(truth)


def length_bin(duration_seconds: float) -> str:
    """The bin of a video's length, such as "10-20 min". Upper edges belong to a bin: an hour is in "40-60 min"."""
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
"""How questions are grouped. An axis leaves out the questions for which it gives None."""


def score(answered: Sequence[AnsweredQuestion]) -> dict[str, Any]:
    """All scores as plain data: `scores["task"]["Temporal Order"]["choice"]["video"]["accuracy"]`.

    `scores["differences"]` has the same axes; its cells are `difference_of` the condition video and another one.
    `scores["evidence"]` is grouped by length: the share of needle questions whose card lies in one of the three spans,
    and `by_chance`, the share expected if spans of the same length lay anywhere.
    """
    scores: dict[str, Any] = {axis: _by_group(answered, of, _accuracies) for axis, of in AXES.items()}
    scores["differences"] = {axis: _by_group(answered, of, _differences) for axis, of in AXES.items()}
    scores["evidence"] = _evidence(answered)
    return scores


def compare(ours: Sequence[AnsweredQuestion], theirs: Sequence[AnsweredQuestion]) -> tuple[dict[str, Any], int]:
    """Compare two models' answers to the same questions, with the video.

    Returns:
        `difference_of` our and their answers by axis, group and format; and how many questions only one side answered,
        which are left out.

    Raises:
        DataError: no question is answered by both, or the two sides have different questions of one id.
    """
    others = {one.id: one for one in theirs}
    pairs = [(one, others[one.id]) for one in ours if one.id in others]
    if not pairs:
        raise DataError("the two sets of answers have no question in common; compare answers about the same videos")
    if changed := [one.id for one, other in pairs if (one.question, one.truth) != (other.question, other.truth)]:
        raise DataError(
            f"{len(changed)} questions have the same id but different words in the two sets, such as {changed[0]}; "
            "compare answers about the same videos"
        )
    right = {one.id: other.right["video"] for one, other in pairs}

    def differences(some: Sequence[AnsweredQuestion]) -> dict[str, Any]:
        mine, other = [one.right["video"] for one in some], [right[one.id] for one in some]
        return difference_of(mine, other, [one.video for one in some])

    both = [one for one, _ in pairs]
    found = {axis: _by_group(both, of, differences) for axis, of in AXES.items()}
    return found, len(ours) + len(theirs) - 2 * len(pairs)


def _accuracies(some: Sequence[AnsweredQuestion]) -> dict[str, Any]:
    return {condition: accuracy_of([one.right[condition] for one in asked], [one.video for one in asked])
            for condition, asked in _asked(some).items()}  # fmt: skip


def _differences(some: Sequence[AnsweredQuestion]) -> dict[str, Any]:
    return {condition: difference_of([one.right["video"] for one in asked], [one.right[condition] for one in asked],
                                     [one.video for one in asked])
            for condition, asked in _asked(some).items() if condition != "video"}  # fmt: skip


def _asked(some: Sequence[AnsweredQuestion]) -> dict[Condition, list[AnsweredQuestion]]:
    """The questions that were asked under each condition."""
    asked = {condition: [one for one in some if condition in one.right] for condition in CONDITIONS}
    return {condition: questions for condition, questions in asked.items() if questions}


def _by_group(
    answered: Iterable[AnsweredQuestion], axis: Axis, cells: Callable[[Sequence[AnsweredQuestion]], dict[str, Any]]
) -> dict[str, Any]:
    """`{group: {format: cells of its questions}}`; the groups are sorted."""
    groups: dict[str, dict[str, list[AnsweredQuestion]]] = defaultdict(lambda: defaultdict(list))
    for one in answered:
        group = axis(one)
        if group is not None:
            groups[group][one.format].append(one)
    return {
        group: {format_: cells(some) for format_, some in formats.items()}
        for group, formats in sorted(groups.items(), key=lambda item: _order(item[0]))
    }


def _order(group: str) -> tuple[float, str]:
    """Sort key: bins by number, names alphabetically."""
    first = group.removeprefix("over ").partition("-")[0].partition(" ")[0]
    return (float(first), group) if first.isdecimal() else (0.0, group)


def _evidence(answered: Iterable[AnsweredQuestion]) -> dict[str, Any]:
    groups: dict[str, list[AnsweredQuestion]] = defaultdict(list)
    for one in answered:
        if one.is_needle and one.evidence:
            groups["all"].append(one)
            groups[length_bin(one.duration_seconds)].append(one)
    return {
        group: accuracy_of([shows_moment(one) for one in some], [one.video for one in some])
        | {"by_chance": sum(_marked_share(one) for one in some) / len(some)}
        for group, some in groups.items()
    }


def shows_moment(one: AnsweredQuestion) -> bool:
    """Whether the middle of the card lies in one of the evidence spans."""
    start, end = one.moments[0]
    middle = (start + end) / 2
    return any(first <= middle < last for first, last in one.evidence)


def _marked_share(one: AnsweredQuestion) -> float:
    return min(1.0, sum(last - first for first, last in one.evidence) / one.duration_seconds)
