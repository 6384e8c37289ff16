"""The table of a benchmark's questions, the same for all benchmarks, and what in its files could not be used."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from hourllava.choices import LETTERS
from hourllava.evaluation.intervals import Interval

Kind = Literal["choice", "yes_no", "caption_matching", "captioning", "open"]
"""How a question is answered. `captioning` is free text that only a judge can score."""


class Question(BaseModel):
    """One question about a video.

    Attributes:
        id: unique within the benchmark.
        place: in the table, from 0.
        video: the benchmark's name of the video.
        file: the video's path below the data folder; None if it is not there.
        subtitles: path of the subtitle file below the data folder; None if there is none.
        needs_subtitles: whether the benchmark says that this video has subtitles.
        start_seconds, end_seconds: the part of the file that is the video; None stands for the file's end.
        subtitles_start_seconds: the time in the subtitle file at which the video starts: a video may be cut out of a
            longer one whose subtitles are whole.
        kind: how it is answered.
        text: the question as published, with the options where the benchmark puts them into it.
        lines: the options as published, where they stand apart from the question.
        question, options: the question without options, and the options without letters.
        gold: the answer as published; None if it is not public.
        gold_index: of the right option; None if there are no options, or the published answer is none of them.
        groups: by axis ("duration", "domain", "task") the groups that the question belongs to.
        duration_seconds: as published; the file's own length counts.
        moments: (start_seconds, end_seconds) that show the answer; never part of a prompt.
        judge_question, judge_answer: what a judge asks about a caption, and the right answer.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    id: str
    place: int = 0
    video: str
    file: str | None = None
    subtitles: str | None = None
    needs_subtitles: bool = False
    start_seconds: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    end_seconds: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    subtitles_start_seconds: float = Field(default=0.0, allow_inf_nan=False)
    kind: Kind = "choice"
    text: str = Field(min_length=1)
    lines: tuple[str, ...] = ()
    question: str = Field(min_length=1)
    options: tuple[str, ...] = ()
    gold: str | None = None
    gold_index: int | None = None
    groups: dict[str, tuple[str, ...]] = {}
    duration_seconds: float | None = None
    moments: tuple[Interval, ...] = ()
    judge_question: str = ""
    judge_answer: str = ""

    @property
    def letters(self) -> str:
        """The letters of the options: "ABCD" for four."""
        return LETTERS[: len(self.options)]

    @property
    def gold_letter(self) -> str:
        """The letter of the right option; "" if there is none."""
        return "" if self.gold_index is None else LETTERS[self.gold_index]


@dataclass
class Problems:
    """What is odd in a benchmark's files: how often each thing was met, and the first example."""

    counts: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)

    def add(self, what: str, example: str) -> None:
        """Count one more."""
        self.counts[what] += 1
        self.examples.setdefault(what, example)

    def lines(self) -> list[str]:
        """One line per kind: "an id is there twice: 4, such as 17"."""
        return [f"{what}: {count:,}, such as {self.examples[what]}" for what, count in self.counts.items()]


@dataclass(frozen=True)
class QuestionTable:
    """All questions of one split of a benchmark.

    Attributes:
        benchmark, split: names.
        annotations: paths below the data folder of the files that were read.
        revision: digest of these files.
        questions: that can be asked if their videos are there.
        left_out: reason -> number of published questions that cannot be asked at all.
        problems: what is odd in the files.
    """

    benchmark: str
    split: str
    annotations: tuple[str, ...]
    revision: str
    questions: Sequence[Question]
    left_out: Mapping[str, int]
    problems: Problems

    @property
    def num_published(self) -> int:
        """Questions in the files, also those that are left out."""
        return len(self.questions) + sum(self.left_out.values())

    @property
    def videos(self) -> dict[str, str | None]:
        """The file of each video; None if it is missing."""
        return {question.video: question.file for question in self.questions}

    def totals(self) -> dict[str, dict[str, int]]:
        """Questions by axis and group, in the order of the files; `{"all": {"all": n}}` counts all."""
        totals: dict[str, Counter[str]] = {"all": Counter(all=len(self.questions))}
        for question in self.questions:
            for axis, groups in question.groups.items():
                totals.setdefault(axis, Counter()).update(groups)
        return {axis: dict(counts) for axis, counts in totals.items()}
