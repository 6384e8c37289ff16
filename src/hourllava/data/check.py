"""`hourllava data check`: every problem of a file of records, in memory that hardly grows with the file.

Kept for each record are 24 bytes: a hash of its id, a hash of its content, and its line; three million take 72 MB.
Duplicates are found by sorting the hashes at the end. What is wrong with a record by itself, `problems_of` decides;
`hourllava.data.mend` asks it again when it writes a copy.
"""

import hashlib
import json
import re
from array import array
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from hourllava.data.records import question_rows, split_options
from hourllava.data.stream import Entry, iterate_entries
from hourllava.errors import DataError

IMAGE = "<image>"
RECORD_FIELDS = ("id", "data_source", "video", "image", "conversations")
_LETTER_ANSWER = re.compile(r"^\s*\(?([A-Z])\s*(?:[).:]|$)")


@dataclass(frozen=True)
class Problem:
    """Something wrong with a record. `kind` counts, `detail` tells it apart."""

    number: int
    line: int | None
    kind: str
    detail: str = ""

    def __str__(self) -> str:
        place = f"record {self.number}" if self.line is None else f"line {self.line} (record {self.number})"
        return f"{place}: {self.kind}{f': {self.detail}' if self.detail else ''}"


@dataclass
class CheckReport:
    """Counts of a file, and after `check_records` the duplicates by the record's number."""

    num_records: int = 0  # that can be read
    num_entries: int = 0  # all
    num_sound: int = 0  # without a problem of their own; copies of others count
    kinds: Counter[str] = field(default_factory=Counter)
    unused_columns: Counter[str] = field(default_factory=Counter)
    again: dict[int, str] = field(default_factory=dict)  # number -> kind of duplicate

    @property
    def num_problems(self) -> int:
        """Of all kinds together."""
        return self.kinds.total()

    def lines(self) -> list[str]:
        """A table by kind, and the columns of question tables that have no meaning here."""
        lines = [f"{self.num_records} records, {self.num_problems} problems"]
        lines += [f"{count:>10}  {kind}" for kind, count in self.kinds.most_common()]
        return lines + [f"column {name!r} is not used ({count})" for name, count in sorted(self.unused_columns.items())]


SAME_RECORD = "the same record again"
SAME_ID = "the id of another record"
MediaFault = Callable[[str], str | None]


def media_fault_in(root: Path) -> MediaFault:
    """A function that says what is wrong with a media path below `root`; videos asked for again are remembered."""

    @lru_cache(1 << 16)
    def fault(name: str) -> str | None:
        path = root / name
        if path.is_dir():  # a folder of frames
            return None if any(path.iterdir()) else "media missing"
        if not path.is_file():
            return "media missing"
        return None if path.stat().st_size else "media empty (0 bytes)"

    return fault


def check_records(path: Path, report: CheckReport, media: Path | None = None) -> Iterator[Problem]:
    """Every problem of a file, as it is met; duplicates come last. Counts go to `report`.

    Args:
        path: .json (a list), .jsonl or .parquet with training records or questions.
        report: is filled.
        media: folder that `video` and `image` are relative to; None does not look for them.

    Raises:
        DataError: the file cannot be opened, or is no list of records.
    """
    if media is not None and not media.is_dir():
        raise DataError(f"--media is {media}, which is no folder; give the folder that media paths are relative to")
    media_fault = None if media is None else media_fault_in(media)
    ids, contents, lines = array("Q"), array("Q"), array("Q")
    for entry in iterate_entries(path):
        report.num_records += entry.fault is None
        report.num_entries += 1
        problems = problems_of(entry, media_fault, report.unused_columns)
        report.num_sound += not problems
        for kind, detail in problems:
            report.kinds[kind] += 1
            yield Problem(entry.number, entry.line, kind, detail)
        record = entry.value if isinstance(entry.value, dict) else {}
        # A record without an id is a problem already; it is no duplicate of others without one.
        identity = record.get("id", record.get("question_id", f"\0{len(ids)}"))
        ids.append(_hash(str(identity)))
        contents.append(_hash(json.dumps(record, sort_keys=True, default=str) if record else f"\0{len(ids)}"))
        lines.append(entry.line or 0)
    same_content = _later(np.frombuffer(contents, np.uint64)) if contents else {}
    same_id = _later(np.frombuffer(ids, np.uint64)) if ids else {}
    for index, first in sorted(same_id.items() | same_content.items()):
        kind = SAME_RECORD if index in same_content else SAME_ID
        if index + 1 in report.again:
            continue  # of both kinds
        report.again[index + 1] = kind
        report.kinds[kind] += 1
        yield Problem(index + 1, lines[index] or None, kind, f"as record {first + 1}")


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(errors="surrogatepass"), digest_size=8).digest())


def _later(hashes: np.ndarray) -> dict[int, int]:
    """Index of every element that was there before -> index of the first one like it."""
    order = np.argsort(hashes, kind="stable")
    ordered = hashes[order]
    is_first = np.concatenate([[True], ordered[1:] != ordered[:-1]])
    firsts = order[np.maximum.accumulate(np.where(is_first, np.arange(len(order)), 0))]
    return {int(index): int(first) for index, first in zip(order[~is_first], firsts[~is_first])}


def problems_of(entry: Entry, media_fault: MediaFault | None, unused: Counter[str]) -> list[tuple[str, str]]:
    """(kind, detail) of everything wrong with one entry by itself; `unused` counts columns without a meaning."""
    record = entry.value
    if entry.fault is not None:
        return [("unreadable", entry.fault)]
    if not isinstance(record, dict):
        return [("no object", type(record).__name__)]
    if "conversations" in record:
        problems = list(_of_training_record(record))
    else:
        try:
            problems = []
            unused.update(question_rows(record, str(entry.number))[1])
        except (ValueError, TypeError) as error:
            problems = [("question cannot be used", str(error).splitlines()[0])]
    names = media_names(record)
    if media_fault is not None and names is not None:
        problems += [(fault, name) for name in names if (fault := media_fault(name)) is not None]
    return problems


def media_names(record: dict[str, Any]) -> list[str] | None:
    """Paths of a record's media; None if they are not what they should be."""
    names = record.get("video", record.get("image"))
    if names is None:
        return []
    names = [names] if isinstance(names, str) else names
    if not isinstance(names, list) or not names or not all(isinstance(name, str) and name for name in names):
        return None
    return names


def _of_training_record(record: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for name in record:
        if name not in RECORD_FIELDS:
            yield "unknown field", name
    if not isinstance(record.get("id"), str):
        yield ("id is no text", repr(record["id"])) if "id" in record else ("no id", "")
    elif not record["id"]:
        yield "no id", "empty"
    if not isinstance(record.get("data_source", ""), str):
        yield "data_source is no text", repr(record["data_source"])
    names = media_names(record)
    if record.get("video") is not None and record.get("image") is not None:
        yield "both video and image", ""
    elif names is None:
        yield "media is no path", repr(record.get("video", record.get("image")))[:80]
    for name in names or ():
        if name.startswith("/") or ".." in name.split("/") or "\\" in name:
            yield "media path leaves its folder", name
    turns = record["conversations"]
    if not isinstance(turns, list) or not turns:
        yield "empty conversation", ""
        return
    if not all(isinstance(turn, dict) and isinstance(turn.get("value"), str) for turn in turns):
        yield "a turn is no {from, value}", ""
        return
    speakers = [turn.get("from") for turn in turns]
    if speakers != ["human", "gpt"] * (len(turns) // 2):
        yield "wrong turn order", " ".join(map(str, speakers))[:80]
        return
    for k, turn in enumerate(turns):
        if not turn["value"].replace(IMAGE, "").strip():
            yield "empty turn", f"turn {k + 1}"
    asked, answers = turns[::2], turns[1::2]
    found, wanted = sum(turn["value"].count(IMAGE) for turn in asked), len(names or ())
    if names is not None and found != wanted:
        yield "placeholders do not match media", f"{found} {IMAGE} for {wanted} media"
    if any(IMAGE in turn["value"] for turn in answers):
        yield "placeholder in an answer", ""
    for question, answer in zip(asked, answers):
        options = split_options(question["value"])[1]
        letter = _LETTER_ANSWER.match(answer["value"])
        if len(set(options)) < len(options):
            yield "an option is given twice", ", ".join(options)[:80]
        # Only what looks like a letter: an open-ended question may hold a list, too.
        if options and letter and ord(letter[1]) - ord("A") >= len(options):
            yield "the answer is no option", f"{letter[1]} of {len(options)}"
