"""Training records of a huge file by number, in bounded memory.

One pass of the reader, `hourllava.data.records.reading`, finds the bytes of every record and keeps 17 bytes for each.
Then each worker reads only its own records.
"""

import json
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from hourllava.data.records.canonical import names_images
from hourllava.data.records.reading import MAX_RECORD_CHARACTERS, iterate_entries, records_suffix
from hourllava.errors import DataError


class RecordFile:
    """The records of a .json (a list) or .jsonl file; `len()` and access by number, from 0.

    A damaged record counts as a record: reading it gives a `DataError`, and reading goes on with the next.

    Raises:
        DataError: the file cannot be read, is not a list of records, or was cut short.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        records_suffix(path, (".json", ".jsonl"))
        begins, ends, images = array("q"), array("q"), array("b")
        for entry in iterate_entries(path):
            if entry.is_of_file:
                raise DataError(
                    f"{path}: {entry.place}: {entry.fault}; fetch the file again, or take what is whole of it with "
                    "hourllava data check --fix"
                )
            begins.append(entry.begin_byte)
            ends.append(entry.end_byte)
            images.append(names_images(entry.value))
        self._spans = np.stack([np.frombuffer(begins, np.int64), np.frombuffer(ends, np.int64)], axis=1)
        self.has_image = np.frombuffer(images, np.int8).astype(bool)  # [records]

    def __len__(self) -> int:
        return len(self._spans)

    def spans(self, numbers: np.ndarray) -> np.ndarray:
        """int64 [len(numbers), 2]: begin and end of these records in the file, in bytes."""
        return self._spans[numbers]


def read_records(path: Path, spans: np.ndarray) -> Iterator[Any]:
    """The records between these bytes, int64 [n, 2]; a `DataError` takes the place of a damaged one.

    Raises:
        DataError: the file cannot be read.
    """
    # The limit is in bytes for a line, and in characters of up to 4 bytes for a record of a list.
    most_bytes = MAX_RECORD_CHARACTERS * (1 if path.suffix.lower() == ".jsonl" else 4)
    try:
        with path.open("rb") as file:
            for begin, end in spans.tolist():
                file.seek(begin)
                try:
                    if end - begin >= most_bytes:
                        raise ValueError("it is longer than 64 MiB")
                    yield json.loads(file.read(end - begin).decode())
                except (ValueError, RecursionError) as error:
                    yield DataError(f"not JSON: {error}")
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error}") from error
