"""Questions of files of any form, one record at a time, with a report of what could not be used."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hourllava.data.records.canonical import is_text
from hourllava.data.records.columns import question_fields
from hourllava.data.records.models import QuestionRow
from hourllava.data.records.reading import iterate_entries
from hourllava.errors import DataError


@dataclass
class LoadReport:
    """The columns without a known meaning, and the records that could not be used."""

    num_questions: int = 0
    unmapped_columns: Counter[str] = field(default_factory=Counter)
    problems: Counter[str] = field(default_factory=Counter)
    first_numbers: dict[str, int] = field(default_factory=dict)  # problem -> number of the first record that has it

    def lines(self) -> list[str]:
        """The report in words, one line per kind."""
        columns = [
            f"column {name!r} is not used ({count} records)" for name, count in sorted(self.unmapped_columns.items())
        ]
        return columns + [
            f"{problem}: {count} records, the first is number {self.first_numbers[problem]}"
            for problem, count in sorted(self.problems.items())
        ]


def iterate_questions(path: Path, report: LoadReport) -> Iterator[QuestionRow]:
    """Read questions from .json (a list), .jsonl or .parquet, ours or the published data set's.

    Columns are found by any of their usual names; conversations become one question per exchange; options may be a
    list, a dict by letter, columns of their own, or stand in the question. `report` counts damaged records and records
    that cannot be mapped; nothing is guessed.

    Raises:
        DataError: the file cannot be read, is not a list of records, or was cut short.
    """
    for rows in iterate_records(path, report):
        yield from rows


def iterate_records(path: Path, report: LoadReport) -> Iterator[list[QuestionRow]]:
    """As `iterate_questions`, with the questions of one record together, in the order of its conversation."""
    for entry in iterate_entries(path):
        number = entry.number
        if entry.is_of_file:
            raise DataError(
                f"{path} cannot be read: {entry.place}: {entry.fault}; hourllava data check lists all faults"
            )
        if entry.fault is not None:
            _problem(report, f"a record cannot be read ({entry.fault})", number)
            continue
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
    """The questions of one record of any of these forms, and its unused columns.

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


def _problem(report: LoadReport, text: str, number: int) -> None:
    report.problems[text] += 1
    report.first_numbers.setdefault(text, number)
