"""Records of video question data: the training record, the per-question table, and a loader that takes both.

The training record is the published one, `{"id", "data_source", "video", "conversations"}`; the sentence with the
video's length that the model is prompted with is not in it, since the number of frames is known only in training.
The table has one row per question with everything that is known about it.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from pydantic import AliasChoices, BaseModel, ConfigDict, Field

from hourllava.choices import LETTERS, choice_prompt
from hourllava.data.records.canonical import is_text
from hourllava.data.records.columns import question_fields
from hourllava.data.records.options import find_options
from hourllava.data.records.reading import arrow, iterate_entries
from hourllava.errors import DataError
from hourllava.files import replacing

PLACEHOLDER = "<image>\n"
_ROWS_PER_GROUP = 20_000  # what is held in memory at a time


class Turn(BaseModel):
    """One message of a conversation; an answer may tell the moments of the video that show it.

    `evidence`, (start_seconds, end_seconds) spans, is not in published records; loaders that do not know it pass it by.
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
    """One question; None or empty where a file does not say. `options[answer_index]` is the answer's text."""

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
        """The video's path with its source before it, which tells videos of one name apart."""
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


@contextmanager
def training_record_file(path: Path) -> Iterator[Callable[[str], None]]:
    """Yield what adds a record's line to a new JSON list; the file is there when the block ends."""
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        separator = "[\n"

        def add(line: str) -> None:
            nonlocal separator
            file.write(separator + line)
            separator = ",\n"

        yield add
        file.write("\n]\n")


def question_schema() -> Any:
    """The columns of the table, as Arrow wants them."""
    pa, _ = arrow()
    spans = pa.list_(pa.struct([("start_seconds", pa.float64()), ("end_seconds", pa.float64())]))
    kinds = {"options": pa.list_(pa.string()), "answer_index": pa.int64(), "duration_seconds": pa.float64()}
    schema = pa.schema(
        [(name, kinds.get(name, pa.string())) for name in QuestionRow.model_fields if name != "evidence"]
    )
    return schema.append(pa.field("evidence", spans))


def question_table(rows: Iterable[QuestionRow]) -> Any:
    """Rows as an Arrow table, `evidence` a list of {start_seconds, end_seconds}: quick to send between processes."""
    pa, _ = arrow()
    table = [
        row.model_dump() | {"evidence": [{"start_seconds": a, "end_seconds": b} for a, b in row.evidence]}
        for row in rows
    ]
    return pa.Table.from_pylist(table, schema=question_schema())


@contextmanager
def question_table_file(path: Path) -> Iterator[Callable[[Any], None]]:
    """Yield what adds tables of rows to a new parquet file; how the rows are cut into tables changes no byte of it."""
    pa, pq = arrow()
    schema = question_schema()
    with replacing(path) as temporary, pq.ParquetWriter(temporary, schema) as writer:
        waiting: list[Any] = []
        num_waiting = 0

        def add(table: Any) -> None:
            nonlocal waiting, num_waiting
            waiting.append(table)
            num_waiting += table.num_rows
            while num_waiting >= _ROWS_PER_GROUP:
                whole = pa.concat_tables(waiting)
                writer.write_table(whole.slice(0, _ROWS_PER_GROUP).combine_chunks())
                waiting, num_waiting = [whole.slice(_ROWS_PER_GROUP)], num_waiting - _ROWS_PER_GROUP

        yield add
        if num_waiting:
            writer.write_table(pa.concat_tables(waiting).combine_chunks())


@dataclass
class LoadReport:
    """What a loader could not use: columns without a meaning to us, and records without a question or a video."""

    num_questions: int = 0
    unmapped_columns: Counter[str] = field(default_factory=Counter)
    problems: Counter[str] = field(default_factory=Counter)
    first_lines: dict[str, int] = field(default_factory=dict)  # problem -> number of the first record that has it

    def lines(self) -> list[str]:
        """The report in words, one line per kind."""
        columns = [
            f"column {name!r} is not used ({count} records)" for name, count in sorted(self.unmapped_columns.items())
        ]
        return columns + [
            f"{problem}: {count} records, the first is number {self.first_lines[problem]}"
            for problem, count in sorted(self.problems.items())
        ]


def iterate_questions(path: Path, report: LoadReport) -> Iterator[QuestionRow]:
    """Read questions from .json (a list), .jsonl or .parquet, ours or the published data set's.

    Columns are found by any of their usual names; conversations become one question per exchange; options may be a
    list, a dict by letter, columns of their own, or stand in the question. What cannot be mapped is counted in
    `report`, never guessed.

    Raises:
        DataError: the file cannot be read or is not a list of records.
    """
    for rows in iterate_records(path, report):
        yield from rows


def iterate_records(path: Path, report: LoadReport) -> Iterator[list[QuestionRow]]:
    """As `iterate_questions`, with the questions of one record together, in the order of its conversation."""
    for entry in iterate_entries(path):
        number = entry.number
        if entry.fault is not None:
            raise DataError(
                f"{path} cannot be read: {entry.place}: {entry.fault}; hourllava data check lists all faults"
            )
        if not isinstance(entry.value, dict):
            _problem(report, f"a record is {type(entry.value).__name__}, not an object", number)
            continue
        try:
            rows, unused = question_rows(entry.value, f"{path.stem}-{number}")
        except (ValueError, DataError) as error:
            _problem(report, str(error).splitlines()[0], number)
            continue
        report.unmapped_columns.update(unused)
        report.num_questions += len(rows)
        yield rows


def question_rows(record: dict[str, Any], default_id: str) -> tuple[list[QuestionRow], list[str]]:
    """The questions of one record of any of the kinds above, and the columns that have no meaning here.

    Raises:
        ValueError, DataError: it cannot be mapped; the first line of the message says why.
    """
    rows, unused = question_fields(record, default_id)
    questions = [QuestionRow(**row) for row in rows]
    for row in questions:
        texts = (row.question_id, row.video, row.data_source, row.question, row.answer, *row.options)
        if not is_text("".join((*texts, row.template or "", row.split or ""))):
            raise ValueError("half a surrogate pair in a text")
    return questions, unused


def split_options(text: str) -> tuple[str, tuple[str, ...]]:
    """Take the options ("A. ...", "(B) ...") out of a question; no options unless they are clearly that."""
    found = find_options(text)
    return (found.question, found.options) if found is not None and found.is_sure else (text, ())


def _problem(report: LoadReport, text: str, number: int) -> None:
    report.problems[text] += 1
    report.first_lines.setdefault(text, number)
