"""Records of video question data: the training record, the per-question table, and a loader that takes both.

The training record is the published one, `{"id", "data_source", "video", "conversations"}`; the sentence with the
video's length that the model is prompted with is not in it, since the number of frames is known only in training.
The table has one row per question with everything that is known about it.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

from pydantic import AliasChoices, BaseModel, ConfigDict, Field

from hourllava.choices import LETTERS, choice_prompt
from hourllava.data.atomic import replacing
from hourllava.data.stream import arrow, iterate_entries
from hourllava.data.taxonomy import find_task, find_topic
from hourllava.errors import DataError

PLACEHOLDER = "<image>\n"
_ROWS_PER_GROUP = 20_000  # what is held in memory at a time
_OPTION_LINE = re.compile(r"^\s*\(?([A-H])[).:]\s*(.+?)\s*$", re.MULTILINE)


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


# Names under which published files of this kind keep the same thing.
_COLUMNS = {
    "question_id": ("question_id", "qid", "id", "uid", "key"),
    "video": ("video", "video_path", "video_name", "video_id", "videoid", "vid", "video_file"),
    "data_source": ("data_source", "source", "dataset", "video_source"),
    "question": ("question", "query", "q", "prompt", "problem"),
    "answer": ("answer", "a", "response", "ground_truth", "gt", "answer_text", "correct_answer"),
    "answer_index": ("answer_index", "answer_id", "answer_idx", "correct_index", "label"),
    "options": ("options", "choices", "candidates", "answer_choices"),
    "task": ("task", "task_type", "question_type", "question_category", "sub_task", "category", "type"),
    "topic": ("topic", "dimension", "aspect", "main_task"),
    "form": ("form",),
    "format": ("format", "question_format", "qa_type", "answer_type"),
    "template": ("template",),
    "evidence": ("evidence", "time_reference", "evidence_spans"),
    "duration_seconds": ("duration_seconds", "duration", "video_duration", "length", "video_length"),
    "split": ("split",),
    "conversations": ("conversations", "messages", "conversation"),
}
_ALIASES = {alias for aliases in _COLUMNS.values() for alias in aliases}
_OPTION_COLUMN = re.compile(r"^(?:option|choice|answer_choice|a)_?([a-h]|[0-7])$", re.IGNORECASE)


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
    list, a dict by letter, columns of their own, or lines in the question. What cannot be mapped is counted in
    `report`, never guessed.

    Raises:
        DataError: the file cannot be read or is not a list of records.
    """
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
        except (ValueError, TypeError) as error:
            _problem(report, str(error).splitlines()[0], number)
            continue
        report.unmapped_columns.update(unused)
        report.num_questions += len(rows)
        yield from rows


def question_rows(record: dict[str, Any], default_id: str) -> tuple[list[QuestionRow], list[str]]:
    """The questions of one record of any of the kinds above, and the columns that have no meaning here.

    Raises:
        ValueError, TypeError: it cannot be mapped; the first line of the message says why.
    """
    found: dict[str, Any] = {}
    names = {name.lower(): name for name in record}
    own_options = sorted(name for name in names if _OPTION_COLUMN.match(name))
    for target, aliases in _COLUMNS.items():
        present = [names[alias] for alias in aliases if alias in names]
        if present:
            found[target] = record[present[0]]
    if len(own_options) > 1 and "options" not in found:
        found["options"] = [record[names[name]] for name in own_options]
    unused = [name for name in record if name.lower() not in _ALIASES and name.lower() not in own_options]
    return list(_rows(found, str(found.get("question_id", default_id)))), unused


def _problem(report: LoadReport, text: str, number: int) -> None:
    report.problems[text] += 1
    report.first_lines.setdefault(text, number)


def _rows(found: dict[str, Any], question_id: str) -> Iterator[QuestionRow]:
    video = found.get("video")
    if isinstance(video, list):
        video = video[0] if video else None
    if not video:
        raise ValueError("a record names no video")
    common: dict[str, Any] = {"video": str(video)}
    common["data_source"] = str(found.get("data_source") or Path(str(video)).parts[0])
    task, topic = (
        find_task(str(found.get("task") or "")),
        find_topic(str(found.get("topic") or found.get("task") or "")),
    )
    common["task"] = task.name if task else None
    common["topic"] = task.topic if task else topic
    common["form"] = task.form if task else None
    common |= {name: found[name] for name in ("template", "split") if found.get(name) is not None}
    if found.get("duration_seconds") is not None:
        common["duration_seconds"] = float(found["duration_seconds"])
    common["evidence"] = _spans(found.get("evidence"))
    if "conversations" in found:
        turns = [
            (str(turn.get("from", turn.get("role"))), str(turn.get("value", turn.get("content"))), turn.get("evidence"))
            for turn in found["conversations"]
        ]
        exchanges = [
            (asked, answer, evidence)
            for (speaker, asked, _), (_, answer, evidence) in pairwise(turns)
            if speaker in ("human", "user")
        ]
        if not exchanges:
            raise ValueError("a conversation holds no exchange of a question and an answer")
        for k, (asked, answer, evidence) in enumerate(exchanges):
            name = question_id if len(exchanges) == 1 else f"{question_id}-{k}"
            text, options = split_options(asked.replace("<image>", "").strip())
            yield _row(common | ({"evidence": _spans(evidence)} if evidence else {}), name, text, options, answer, None)
    elif found.get("question"):
        options = _option_list(found.get("options"))
        text = str(found["question"])
        if not options:
            text, options = split_options(text)
        yield _row(common, question_id, text, options, found.get("answer"), found.get("answer_index"))
    else:
        raise ValueError("a record has neither a question nor a conversation")


def _row(
    common: dict[str, Any], question_id: str, question: str, options: tuple[str, ...], answer: Any, index: Any
) -> QuestionRow:
    if not options:
        if answer is None:
            raise ValueError("a question has no answer")
        return QuestionRow(question_id=question_id, question=question, answer=str(answer), format="open", **common)
    position = int(index) if index is not None else _position(str(answer), options)
    if position is None or not 0 <= position < len(options):
        raise ValueError("a multiple-choice answer is none of its options")
    return QuestionRow(
        question_id=question_id, question=question, options=options, answer=options[position], answer_index=position,
        format="choice", **common,
    )  # fmt: skip


def _position(answer: str, options: tuple[str, ...]) -> int | None:
    """Which option an answer means, by its text or its letter; an answer that can mean two is refused."""
    letter = re.match(r"^\s*\(?([A-H])(?:[).:\s]|$)", answer)
    by_letter = LETTERS.index(letter[1]) if letter and LETTERS.index(letter[1]) < len(options) else None
    by_text = options.index(answer) if answer in options else None
    if by_letter is not None and by_text is not None and by_letter != by_text:
        raise ValueError("a multiple-choice answer is both the letter of one option and the text of another")
    return by_letter if by_letter is not None else by_text


def _option_list(value: Any) -> tuple[str, ...]:
    if isinstance(value, dict):
        value = [value[name] for name in sorted(value) if value[name] is not None]
    if isinstance(value, str):
        value = [match[1] for match in _OPTION_LINE.findall(value)] or value.split("\n")
    return tuple(re.sub(r"^\(?[A-H][).:]\s+", "", str(option)) for option in value or ())


def split_options(text: str) -> tuple[str, tuple[str, ...]]:
    """Take the option lines ("A. ...", "(B) ...") out of a question; no options unless there are two or more."""
    found = _OPTION_LINE.findall(text)
    if len(found) < 2 or [letter for letter, _ in found] != list(LETTERS[: len(found)]):
        return text, ()
    return text[: _OPTION_LINE.search(text).start()].strip(), tuple(option for _, option in found)  # type: ignore[union-attr]


def _spans(items: Any) -> tuple[tuple[float, float], ...]:
    return tuple(_span(item) for item in items or ())


def _span(item: Any) -> tuple[float, float]:
    if isinstance(item, dict):
        return float(item["start_seconds"]), float(item["end_seconds"])
    start, end = item
    return float(start), float(end)
