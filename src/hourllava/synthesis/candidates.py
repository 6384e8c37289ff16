"""Questions on their way to the data set: as the writer wrote them, before and while they are checked."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from hourllava.data.records.models import QuestionRow
from hourllava.data.records.taxonomy import TASKS
from hourllava.synthesis.questions import SUMMARY_TASK, Asked, Told, evidence_spans, task_sheet
from hourllava.synthesis.rows import RowFile
from hourllava.synthesis.settings import Format
from hourllava.synthesis.stage import Item
from hourllava.synthesis.times import Span
from hourllava.synthesis.videos import Video
from hourllava.world.rng import Draws


@dataclass(frozen=True)
class Candidate:
    """A question with its right answer and, for multiple choice, three wrong options, all by text.

    Attributes:
        id: unique in the data set.
        video: that it is about.
        duration_seconds: of the video.
        task, format, question, answer, wrong: of the question.
        evidence: spans that one must see; empty if they are not known.
        named_evidence: as the writer named it.
        source_key: key of the row with the writer's answer.
    """

    id: str
    video: Video
    duration_seconds: float
    task: str
    format: Format
    question: str
    answer: str
    wrong: tuple[str, ...]
    evidence: tuple[Span, ...]
    named_evidence: tuple[str, ...]
    source_key: str

    def options(self, *key: int | str) -> list[str]:
        """The options in an order that the key decides."""
        return Draws("options", self.id, *key).shuffled([self.answer, *self.wrong])

    def rotated_options(self, purpose: str, k: int) -> list[str]:
        """The options in order k for a purpose: four orders in a row give every option four letters."""
        turns, k = divmod(k, 1 + len(self.wrong))
        options = self.options(purpose, turns)
        return options[k:] + options[:k]

    def row(self, seed: int) -> QuestionRow:
        """The question as a row of the data set: options in a random order, which id and seed decide."""
        task = TASKS[self.task]
        options = tuple(self.options(seed)) if self.format == "choice" else ()
        return QuestionRow(
            question_id=self.id,
            video=self.video.name,
            data_source=self.video.data_source,
            format=self.format,
            question=self.question,
            answer=self.answer,
            options=options,
            answer_index=options.index(self.answer) if options else None,
            task=self.task,
            topic=task.topic,
            form=task.form,
            evidence=self.evidence,
            duration_seconds=self.duration_seconds,
        )


def candidates_of(
    told: Told, items: Sequence[Item], rows: RowFile, *, seed: int, wants_summary: bool
) -> Iterator[Candidate]:
    """All questions about one video, in order.

    Args:
        told: of the video.
        items: of the stage of questions, for this video.
        rows: of that stage.
        seed: for the wording of the question for a summary.
        wants_summary: whether the summary becomes a question.
    """
    video, duration = told.planned.video, told.planned.duration_seconds
    for item in items:
        row = rows.get(item.key)
        if row is None or row.value is None:
            continue
        asked: Asked = item.input
        for number, written in enumerate(row.value["questions"]):
            yield Candidate(
                id=f"{item.id.replace(' ', '-')}-{number:02}",
                video=video,
                duration_seconds=duration,
                task=written["task"],
                format=asked.format,
                question=written["question"],
                answer=written["answer"],
                wrong=tuple(written.get("wrong_options", ())),
                evidence=evidence_spans(written["evidence"], told) or (),
                named_evidence=tuple(written["evidence"]),
                source_key=row.key,
            )
    if told.summary and wants_summary:
        sentences = task_sheet()[TASKS[SUMMARY_TASK].topic]["tasks"][SUMMARY_TASK]["questions"]
        yield Candidate(
            id=f"{video.id}-summary".replace(" ", "-"),
            video=video,
            duration_seconds=duration,
            task=SUMMARY_TASK,
            format="open",
            question=Draws("summary", seed, video.id).pick(sentences),
            answer=told.summary,
            wrong=(),
            evidence=(),
            named_evidence=("the whole video",),
            source_key="",
        )
