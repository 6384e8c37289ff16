"""New files of training records (JSON lists) and of question rows (parquet tables), whole or not there."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hourllava.data.records.models import QuestionRow
from hourllava.data.records.reading import arrow
from hourllava.files import replacing

_ROWS_PER_GROUP = 20_000  # held in memory at a time


@contextmanager
def training_record_file(path: Path) -> Iterator[Callable[[str], None]]:
    """Yield a function that adds a record's line to a new JSON list; the file exists when the block ends."""
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        separator = "[\n"

        def add(line: str) -> None:
            nonlocal separator
            file.write(separator + line)
            separator = ",\n"

        yield add
        file.write("\n]\n")


def question_schema() -> Any:
    """The columns of a question table, as an Arrow schema."""
    pa, _ = arrow()
    spans = pa.list_(pa.struct([("start_seconds", pa.float64()), ("end_seconds", pa.float64())]))
    kinds = {"options": pa.list_(pa.string()), "answer_index": pa.int64(), "duration_seconds": pa.float64()}
    schema = pa.schema(
        [(name, kinds.get(name, pa.string())) for name in QuestionRow.model_fields if name != "evidence"]
    )
    return schema.append(pa.field("evidence", spans))


def question_table(rows: Iterable[QuestionRow]) -> Any:
    """Question rows as an Arrow table, which is fast to send between processes."""
    pa, _ = arrow()
    table = [
        row.model_dump() | {"evidence": [{"start_seconds": a, "end_seconds": b} for a, b in row.evidence]}
        for row in rows
    ]
    return pa.Table.from_pylist(table, schema=question_schema())


@contextmanager
def question_table_file(path: Path) -> Iterator[Callable[[Any], None]]:
    """Yield a function that adds tables to a new parquet file; the file's bytes do not depend on the tables' sizes."""
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
