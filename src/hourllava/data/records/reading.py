"""The one reader of files of records: JSON lists, JSON lines, parquet, one record at a time.

`data check`, `group`, `sources`, `shard` and `prepare` all use it, so they agree on a record's number, its bytes and
its damage.

`json` reads a list only as a whole (a 2 GB file takes 10 GB) and gives up at the first damaged byte. This reader cuts
the list into its elements with the scanner of `json` over a window of the file. A damaged record is one problem with
its line, and reading goes on at the next record.
"""

import codecs
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from hourllava.errors import ConfigError, DataError

WINDOW_CHARACTERS = 1 << 20
MAX_RECORD_CHARACTERS = 1 << 26
NEAR_END_CHARACTERS = 16  # a fault this close to the window's end may be a number or name that was cut
_ROWS_PER_BATCH = 4096
SUFFIXES = (".json", ".jsonl", ".parquet")
COMPRESSED = (".gz", ".bz2", ".xz", ".zst", ".zip", ".tar", ".tgz")

_SPACE = re.compile(r"[ \t\r\n]*")
_FIRST_KEY = re.compile(r'\{\s*"((?:[^"\\]|\\.)*)"\s*:')


class Entry(NamedTuple):
    """One record of a file, or one place where there should be one.

    Attributes:
        number: of the record, from 1.
        line: where it begins, from 1; None in parquet.
        value: the record; None if there is a fault.
        fault: why it cannot be read.
        text: its text in the file; empty in parquet.
        begin_byte, end_byte: place in the file of the record or the damage; 0 in parquet.
        is_of_file: the whole file is at fault: the list has no right end, or the damage reaches to the file's end.
    """

    number: int
    line: int | None
    value: Any
    fault: str | None = None
    text: str = ""
    begin_byte: int = 0
    end_byte: int = 0
    is_of_file: bool = False

    @property
    def place(self) -> str:
        """Line and number, for messages."""
        return f"record {self.number}" if self.line is None else f"line {self.line} (record {self.number})"


def iterate_entries(path: Path) -> Iterator[Entry]:
    """The records of a .json (a list), .jsonl or .parquet file, in order; a damaged record is an entry with a fault.

    Memory does not grow with the file. A record may have up to 64 Mi characters.

    Raises:
        DataError: the file cannot be opened, is not a list, or has another suffix.
    """
    readers = {".json": _json_list, ".jsonl": _json_lines, ".parquet": _parquet}
    suffix = records_suffix(path)
    try:
        yield from readers[suffix](path)
    except (OSError, ValueError) as error:  # pyarrow's errors are both
        raise DataError(f"{path} cannot be read: {str(error).splitlines()[0]}") from error


def records_suffix(path: Path, allowed: Sequence[str] = SUFFIXES) -> str:
    """`.json`, `.jsonl` or `.parquet`: the suffix of a file of records in lower case.

    Raises:
        DataError: the file has another suffix.
    """
    suffix = path.suffix.lower()
    if suffix not in allowed:
        kinds = " or ".join(name + " (a list)" * (name == ".json") for name in allowed)
        what = "compressed; unpack it first, then" if suffix in COMPRESSED else "not a file of records;"
        raise DataError(f"{path} is {what} use {kinds}")
    return suffix


def arrow() -> tuple[Any, Any]:
    """`pyarrow` and `pyarrow.parquet`.

    Raises:
        ConfigError: they are not installed.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise ConfigError("parquet files need pyarrow; run: pip install 'hourllava[world]'") from error
    return pyarrow, pyarrow.parquet


def _parquet(path: Path) -> Iterator[Entry]:
    number = 0
    for batch in arrow()[1].ParquetFile(path).iter_batches(_ROWS_PER_BATCH):
        for row in batch.to_pylist():
            number += 1
            yield Entry(number, None, row)


def _json_lines(path: Path) -> Iterator[Entry]:
    with path.open("rb") as file:
        line = number = end = 0
        while data := file.readline(MAX_RECORD_CHARACTERS):
            line += 1
            begin, end = end, end + len(data)
            if len(data) == MAX_RECORD_CHARACTERS and not data.endswith(b"\n"):
                while len(more := file.readline(MAX_RECORD_CHARACTERS)) == MAX_RECORD_CHARACTERS:
                    end += len(more)
                end += len(more)
                number += 1
                fault = "a line is longer than 64 MiB; .jsonl has one record a line"
                yield Entry(number, line, None, fault, "", begin, end)
                continue
            if data.startswith(codecs.BOM_UTF8):  # at any line: files with a mark may have been joined
                data, begin = data.removeprefix(codecs.BOM_UTF8), begin + len(codecs.BOM_UTF8)
            if data.strip():
                number += 1
                text = data.decode(errors="surrogateescape").strip()
                try:
                    yield _entry(number, line, json.loads(text), text, begin, end)
                except (ValueError, RecursionError) as error:
                    yield Entry(number, line, None, f"not JSON: {_reason(error)}", text, begin, end)


def _entry(number: int, line: int, value: Any, text: str, begin: int, end: int) -> Entry:
    """The entry of a record, with a fault if its bytes are not UTF-8: these are lone surrogates in `text`."""
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            return Entry(number, line, None, "bytes that are no UTF-8", text, begin, end)
    return Entry(number, line, value, None, text, begin, end)


def _reason(error: Exception) -> str:
    return error.msg if isinstance(error, json.JSONDecodeError) else "nested too deeply"


class _Window:
    """A part of a text file that moves forward."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("rb")
        self._decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
        self.text = ""
        self.at = 0  # reading goes on here
        self.line = 1
        has_mark = self._file.read(len(codecs.BOM_UTF8)) == codecs.BOM_UTF8
        self.byte = len(codecs.BOM_UTF8) if has_mark else 0  # the place of `at` in the file
        self._file.seek(self.byte)
        self.ended = False

    def close(self) -> None:
        self._file.close()

    def more(self) -> bool:
        """Read on; False at the end of the file. The window doubles, so that long records take linear time."""
        if self.ended:
            return False
        data = self._file.read(max(WINDOW_CHARACTERS, len(self.text) - self.at))
        self.ended = not data
        self.text = self.text[self.at :] + self._decoder.decode(data, final=self.ended)
        self.at = 0
        return True

    def advance(self, to: int) -> None:
        passed = self.text[self.at : to]
        self.line += passed.count("\n")
        self.byte += len(passed) if passed.isascii() else len(passed.encode(errors="surrogateescape"))
        self.at = to

    def skip_space(self) -> str:
        """The next character that is not a space, "" at the end of the file."""
        while True:
            match = _SPACE.match(self.text, self.at)
            assert match is not None
            self.advance(match.end())
            if self.at < len(self.text):
                return self.text[self.at]
            if not self.more():
                return ""


def _json_list(path: Path) -> Iterator[Entry]:
    window = _Window(path)
    try:
        yield from _elements(path, window)
    finally:
        window.close()


def _elements(path: Path, window: _Window) -> Iterator[Entry]:
    first = window.skip_space()
    if first != "[":
        kinds = {"{": "an object", "": "nothing", '"': "a text"}
        hint = "; with one record a line, its name must end in .jsonl" if first == "{" else ""
        raise DataError(f"{path} holds {kinds.get(first, 'something else')}; a list of records is needed{hint}")
    window.advance(window.at + 1)
    number, key, after_comma = 0, "id", False

    def fault_of_file(fault: str) -> Entry:
        return Entry(number + 1, window.line, None, fault, "", window.byte, window.byte, is_of_file=True)

    while True:
        character = window.skip_space()
        if character == "":
            yield fault_of_file("the file ends before its list does: it was cut short")
            return
        if character == "]":
            if after_comma:
                yield fault_of_file("a comma before the end of the list")
            window.advance(window.at + 1)
            if window.skip_space():
                yield fault_of_file("something follows the list")
            return
        number += 1
        line, begin = window.line, window.byte
        value, end, fault = _scan(window)
        if fault is None:
            text = window.text[window.at : end]
            if match := _FIRST_KEY.match(text):
                key = match[1]
            window.advance(end)
            entry = _entry(number, line, value, text, begin, window.byte)
            separator = window.skip_space()
            if separator not in (",", "]", ""):
                fault = "no comma behind it"
            else:
                yield entry
                after_comma = separator == ","
                window.advance(window.at + after_comma)
                continue
        start = window.at
        damaged = window.text[start : start + 200]
        found = _skip_to_next(window, key)
        is_cut = not found and not window.text.rstrip().endswith("]")
        cut_short = " (the file ends in it: it was cut short)" if is_cut else ""
        fault = f"not JSON: {fault}{cut_short}"
        # Without a next record, nobody knows how many were behind this one.
        yield Entry(number, line, None, fault, damaged, begin, window.byte, is_of_file=not found)
        if not found:
            return
        after_comma = True


def _scan(window: _Window) -> tuple[Any, int, str | None]:
    """(value, its end in the window, fault) of the element at the window's place."""
    decoder = json.JSONDecoder()
    while True:
        try:
            value, end = decoder.raw_decode(window.text, window.at)
        except RecursionError:
            return None, 0, "nested too deeply"
        except json.JSONDecodeError as error:
            may_be_cut = error.msg.startswith("Unterminated") or error.pos + NEAR_END_CHARACTERS > len(window.text)
            too_long = len(window.text) - window.at > MAX_RECORD_CHARACTERS
            if not may_be_cut or too_long or not window.more():
                return None, 0, "a record of more than 64 Mi characters" if too_long else error.msg
        else:
            # A number at the window's end may continue: "0" and then ".5".
            is_whole = end + NEAR_END_CHARACTERS <= len(window.text) or window.text[end : end + 1] in tuple(" \t\r\n,]")
            if is_whole or not window.more():
                return value, end, None


def _skip_to_next(window: _Window, key: str) -> bool:
    """Go to the next place that looks like the beginning of a record: `, {"<first key of the records>":`."""
    beginning = re.compile(r',\s*(?=\{\s*"' + re.escape(key) + r'"\s*:)')
    window.advance(min(window.at + 1, len(window.text)))
    while True:
        if match := beginning.search(window.text, window.at):
            window.advance(match.end())
            return True
        # Keep what may be the first half of a beginning.
        window.advance(max(window.at, len(window.text) - 1000))
        if not window.more():
            window.advance(len(window.text))
            return False
