"""The two forms of a question about a video: a turn of a training record, and a question row.

The training record is the published one, `{"id", "data_source", "video", "conversations"}`. It lacks the sentence with
the video's length that the prompt has: only training knows the number of frames. A question row holds everything that
is known about one question.
"""

from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Literal

from pydantic import AliasChoices, BaseModel, ConfigDict, Field

from hourllava.choices import LETTERS, choice_prompt

PLACEHOLDER = "<image>\n"


class Turn(BaseModel):
    """One message of a conversation.

    An answer may have `evidence`: (start_seconds, end_seconds) spans of the video that show it. Published records have
    none; loaders that do not know the field ignore it.
    """

    model_config = ConfigDict(frozen=True)
    speaker: Literal["human", "gpt"] = Field(
        serialization_alias="from", validation_alias=AliasChoices("from", "speaker")
    )
    value: str
    evidence: tuple[tuple[float, float], ...] | None = None


class TrainingRecord(BaseModel):
    """A conversation about one video; `video` is relative to the folder `videos/`, with the source as first part."""

    model_config = ConfigDict(frozen=True)
    id: str
    data_source: str
    video: str
    conversations: tuple[Turn, ...]


class QuestionRow(BaseModel):
    """One question; None or empty if a file does not tell a field. `options[answer_index]` is the answer's text."""

    model_config = ConfigDict(frozen=True)
    question_id: str
    video: str
    data_source: str
    format: Literal["open", "choice"]
    question: str
    answer: str
    options: tuple[str, ...] = ()
    answer_index: int | None = None
    task: str | None = None
    topic: str | None = None
    form: str | None = None
    template: str | None = None
    evidence: tuple[tuple[float, float], ...] = ()  # (start_seconds, end_seconds)
    duration_seconds: float | None = None
    split: str | None = None

    @property
    def media_id(self) -> str:
        """The video's path with its source in front, which is unique."""
        starts_with_source = PurePosixPath(self.video).parts[0] == self.data_source
        return self.video if starts_with_source else f"{self.data_source}/{self.video}"


def training_record(row: QuestionRow) -> TrainingRecord:
    """A question as a training record of one exchange; multiple choice is answered by its letter."""
    asked, answer = row.question, row.answer
    if row.answer_index is not None:
        asked, answer = choice_prompt(row.question, row.options), LETTERS[row.answer_index]
    turns = (
        Turn(speaker="human", value=PLACEHOLDER + asked),
        Turn(speaker="gpt", value=answer, evidence=row.evidence or None),
    )
    return TrainingRecord(id=row.question_id, data_source=row.data_source, video=row.video, conversations=turns)


def joined_record(record_id: str, rows: Sequence[QuestionRow]) -> TrainingRecord:
    """Questions of one video as one training record of several exchanges; the video is shown before the first."""
    records = [training_record(row) for row in rows]
    turns = list(records[0].conversations)
    for record in records[1:]:
        asked, answer = record.conversations
        turns += [Turn(speaker="human", value=asked.value.removeprefix(PLACEHOLDER)), answer]
    return records[0].model_copy(update={"id": record_id, "conversations": tuple(turns)})


def record_line(record: BaseModel) -> str:
    """A record as one line of JSON, with the published names."""
    return record.model_dump_json(by_alias=True, exclude_none=True)
