"""Questions in the two forms that `hourllava world make` writes."""

from collections.abc import Iterable
from pathlib import Path

from hourllava.data.records.models import QuestionRow, record_line, training_record
from hourllava.data.records.options import find_options
from hourllava.data.records.writing import question_table, question_table_file, training_record_file


def write_training_records(rows: Iterable[QuestionRow], path: Path) -> None:
    with training_record_file(path) as add:
        for row in rows:
            add(record_line(training_record(row)))


def write_question_table(rows: Iterable[QuestionRow], path: Path) -> None:
    with question_table_file(path) as add:
        add(question_table(rows))


def split_options(text: str) -> tuple[str, tuple[str, ...]]:
    """Take the options out of a question, if they are surely options."""
    found = find_options(text)
    return (found.question, found.options) if found is not None and found.is_sure else (text, ())
