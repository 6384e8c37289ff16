"""Training records of a huge file by number, in bounded memory.

One pass finds where every record begins and ends (17 bytes per record are kept, and at most one record with 1 MiB of
text around it); then any worker reads just its own records. A JSON list of any layout, or JSON lines.
"""

import codecs
import json
from array import array
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import IO, Any

import numpy as np

from hourllava.errors import DataError

_PIECE_BYTES = 1 << 20
_MAX_RECORD_CHARACTERS = 1 << 26
_BLANK = " \t\r\n"
_MAX_BLANKS = 256  # looked at behind a record


class RecordFile:
    """The records of a .json (a list) or .jsonl file; `len()` and access by number.

    A line of a .jsonl file that is no JSON is a record too: reading it raises a `DataError` of its own.

    Raises:
        DataError: the file cannot be read or is not a list of records.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        begins, ends, images = array("q"), array("q"), array("b")
        spans = _line_spans if path.suffix == ".jsonl" else _list_spans
        if path.suffix not in (".json", ".jsonl"):
            raise DataError(f"{path} is not a file of records; use .json (a list) or .jsonl")
        try:
            for begin, end, record in spans(path):
                begins.append(begin)
                ends.append(end)
                images.append(isinstance(record, dict) and bool(record.get("image")))
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"{path} cannot be read: {error}") from error
        self._spans = np.stack([np.frombuffer(begins, np.int64), np.frombuffer(ends, np.int64)], axis=1)
        self.has_image = np.frombuffer(images, np.int8).astype(bool)  # [records]

    def __len__(self) -> int:
        return len(self._spans)

    def spans(self, numbers: np.ndarray) -> np.ndarray:
        """int64 [len(numbers), 2]: where these records begin and end in the file, in bytes."""
        return self._spans[numbers]


def read_records(path: Path, spans: np.ndarray) -> Iterator[Any]:
    """The records between these bytes, int64 [n, 2]; a line that is no JSON comes as a `DataError` in its place.

    Raises:
        DataError: the file cannot be read.
    """
    try:
        with path.open("rb") as file:
            for begin, end in spans.tolist():
                file.seek(begin)
                try:
                    yield json.loads(file.read(end - begin))
                except (ValueError, RecursionError) as error:
                    yield DataError(f"not JSON: {error}")
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error}") from error


def _line_spans(path: Path) -> Iterator[tuple[int, int, Any]]:
    begin = 0
    with path.open("rb") as file:
        for line in file:
            end = begin + len(line)
            if line.strip():
                try:
                    record = json.loads(line)
                except (ValueError, RecursionError):
                    record = None
                yield begin, end, record
            begin = end


def _list_spans(path: Path) -> Iterator[tuple[int, int, Any]]:
    """(begin_byte, end_byte, record) of a JSON list; text is decoded piece by piece as records need it."""
    scan = json.JSONDecoder().raw_decode
    with path.open("rb") as file:
        text = _Text(file)
        if text.next_character() != "[":
            raise DataError(f"{path} is not a JSON list of records; use a list, or .jsonl")
        text.advance(text.position + 1)
        if text.next_character() == "]":
            return
        for number in count():
            text.next_character()
            while True:
                try:
                    record, end = scan(text.held, text.position)
                    problem = "the file ends after it"
                except (ValueError, RecursionError) as error:
                    record, end, problem = None, len(text.held), str(error)
                # Only what follows tells that a record is whole: "12" may go on with "3".
                if text.held[end : end + _MAX_BLANKS].strip(_BLANK):
                    break
                if text.ended or len(text.held) - text.position > _MAX_RECORD_CHARACTERS:
                    raise DataError(f"{path}: record {number} is no JSON: {problem}; mend the file")
                text.extend()
            begin_byte = text.byte
            text.advance(end)
            yield begin_byte, text.byte, record
            follower = text.next_character()
            if follower == "]":
                return
            if follower != ",":
                raise DataError(f"{path}: record {number} is followed by {follower!r}; a comma or ] is allowed")
            text.advance(text.position + 1)


class _Text:
    """A piece of a UTF-8 file that moves forward and grows as wanted; `byte` is where `position` is in the file."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self.held, self.position, self.byte, self.ended = "", 0, 0, False
        if file.read(len(codecs.BOM_UTF8)) == codecs.BOM_UTF8:
            self.byte = len(codecs.BOM_UTF8)
        file.seek(self.byte)

    def extend(self) -> None:
        """Forget the text before `position` and read on: at least as much as is held, so that retries stay few."""
        data = self._file.read(max(_PIECE_BYTES, len(self.held) - self.position))
        self.ended = not data
        self.held = self.held[self.position :] + self._decoder.decode(data, final=self.ended)
        self.position = 0

    def advance(self, position: int) -> None:
        """Move on to a later position of the text held."""
        self.byte += len(self.held[self.position : position].encode())
        self.position = position

    def next_character(self) -> str:
        """Pass over blanks to the next character; empty at the end of the file."""
        while True:
            while self.position < len(self.held):
                character = self.held[self.position]
                if character not in _BLANK:
                    return character
                self.position += 1
                self.byte += 1
            if self.ended:
                return ""
            self.extend()
