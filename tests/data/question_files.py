"""Questions in the two forms that `hourllava world make` writes."""

from collections.abc import Iterable
from pathlib import Path

from hourllava.data.records.models import (
    QuestionRow,
    question_table,
    question_table_file,
    record_line,
    training_record,
    training_record_file,
)


def write_training_records(rows: Iterable[QuestionRow], path: Path) -> None:
    with training_record_file(path) as add:
        for row in rows:
            add(record_line(training_record(row)))


def write_question_table(rows: Iterable[QuestionRow], path: Path) -> None:
    with question_table_file(path) as add:
        add(question_table(rows))
