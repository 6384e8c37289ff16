"""The rows of a stage: a file of lines, appended whole, that says what is done.

A row is the result for one item: a value, or the fault for which the item was given up. Its key is a digest of
everything it depends on (prompt, model, settings, input), so a row is current as long as its key is asked for, whatever
else has changed. Rows that nobody asks for stay in the file: they may have cost money, and a setting may be changed
back.
"""

import hashlib
import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from hourllava.errors import one_line
from hourllava.files import flush_to_disk, replacing

_KEY_DIGITS = 32
_COPIED_BYTES = 1 << 20


def digest(*parts: Any) -> str:
    """32 hexadecimal digits that stand for plain data (numbers, texts, lists, dicts with text keys)."""
    text = json.dumps(parts, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.blake2b(text.encode(errors="surrogatepass"), digest_size=_KEY_DIGITS // 2).hexdigest()


class ItemFault(Exception):
    """Why an item was given up.

    Args:
        kind: for counts, such as "not JSON" or "refusal".
        reason: of this item.
        is_transport: whether the server failed, and not the item.
    """

    def __init__(self, kind: str, reason: str, *, is_transport: bool = False) -> None:
        super().__init__(f"{kind}: {one_line(reason)}")
        self.kind, self.reason, self.is_transport = kind, one_line(reason), is_transport


@dataclass(frozen=True)
class Row:
    """The result for one item; `value` or `fault` is there.

    Attributes:
        id: of the item, such as "lectures/a.mp4 clip 12"; unique in the stage.
        key: of all that the row depends on.
        made_by: the maker's digest, see `folder.Makers`.
        value: plain data.
        fault: why there is none.
    """

    id: str
    key: str
    made_by: str
    value: dict[str, Any] | None = None
    fault: ItemFault | None = None

    def line(self) -> bytes:
        """The row as a line of JSON."""
        fields: dict[str, Any] = {"id": self.id, "key": self.key, "made_by": self.made_by}
        if self.fault is None:
            fields |= {"status": "ok", "value": self.value}
        else:
            fields |= {"status": "error", "kind": self.fault.kind, "reason": self.fault.reason}
        return json.dumps(fields, ensure_ascii=False).encode(errors="surrogatepass") + b"\n"

    @classmethod
    def of_line(cls, line: bytes) -> Self | None:
        """The row of a line; None if it is damaged."""
        try:
            fields = json.loads(line)
            names = {name: fields[name] for name in ("id", "key", "made_by")}
            if fields["status"] == "ok":
                return cls(**names, value=fields["value"])
            return cls(**names, fault=ItemFault(fields["kind"], fields["reason"]))
        except (ValueError, LookupError, TypeError):
            return None


class RowFile:
    """A stage's rows: found by key, appended, and put in order at the end.

    In memory it keeps 16 bytes of key and the place in the file for each row. One process at a time may open it.

    Args:
        path: of the file; made if need be.

    Attributes:
        num_damaged: lines that could not be read; their items are made again.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.num_damaged = 0
        self._places: dict[bytes, tuple[int, int]] = {}  # key -> offset, length
        self._errors: set[bytes] = set()
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        self._end = self._index()

    def _index(self) -> int:
        end = 0
        with os.fdopen(os.dup(self._file), "rb") as file:
            for line in file:
                if not line.endswith(b"\n"):  # a killed run's
                    break
                row = Row.of_line(line)
                if row is None:
                    self.num_damaged += 1
                else:
                    self._note(row, end, len(line))
                end += len(line)
        os.ftruncate(self._file, end)
        return end

    def _note(self, row: Row, offset: int, length: int) -> None:
        key = bytes.fromhex(row.key)
        self._places[key] = (offset, length)
        (self._errors.discard if row.fault is None else self._errors.add)(key)

    def __len__(self) -> int:
        return len(self._places)

    def has(self, key: str) -> bool:
        """Whether there is a row, be it an error, with this key."""
        return bytes.fromhex(key) in self._places

    def is_error(self, key: str) -> bool:
        """Whether the row with this key is an error."""
        return bytes.fromhex(key) in self._errors

    def get(self, key: str) -> Row | None:
        """The row with this key."""
        place = self._places.get(bytes.fromhex(key))
        return None if place is None else Row.of_line(os.pread(self._file, place[1], place[0]))

    def append(self, row: Row) -> None:
        """Add a row with one write, in place of an earlier one with its key."""
        line = row.line()
        written = os.pwrite(self._file, line, self._end)
        if written < len(line):  # a full disk; the next run cuts it off
            raise OSError(28, os.strerror(28), str(self.path))
        self._note(row, self._end, len(line))
        self._end += len(line)

    def settle(self, keys: Iterable[str]) -> None:
        """Put the rows of these keys into their order, and all others behind them.

        So a run that was killed and went on leaves the bytes of one that was not.
        """
        wanted = dict.fromkeys(map(bytes.fromhex, keys))
        order = [key for key in wanted if key in self._places]
        order += sorted((key for key in self._places if key not in wanted), key=lambda key: self._places[key])
        offset, is_settled = 0, True
        for key in order:
            is_settled = is_settled and self._places[key][0] == offset
            offset += self._places[key][1]
        if is_settled and offset == self._end:
            flush_to_disk(self.path)
            return
        with replacing(self.path) as temporary, temporary.open("wb", buffering=_COPIED_BYTES) as file:
            for key in order:
                place, length = self._places[key]
                file.write(os.pread(self._file, length, place))
        self.close()
        self._places, self._errors = {}, set()
        self._file = os.open(self.path, os.O_RDWR)
        self._end = self._index()

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)
