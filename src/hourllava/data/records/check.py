"""`hourllava data check`: every problem of a file of records, with 24 bytes of memory per record.

These are a hash of its id, a hash of its content, and its line: 72 MB for three million records. Sorting the hashes at
the end finds duplicates. `problems_of` finds the problems of a single record; `hourllava.data.records.mend` calls it
again to write a copy.
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

from hourllava.data.records.canonical import (
    IMAGE,
    READ_FIELDS,
    RecordFault,
    canonical_record,
    is_conversation,
    is_missing,
    media_names,
)
from hourllava.data.records.columns import id_field, media_named, told_format
from hourllava.data.records.loading import question_rows
from hourllava.data.records.media import find_media, is_file_name, leads_out
from hourllava.data.records.options import Format, find_options, resolve
from hourllava.data.records.reading import Entry, iterate_entries
from hourllava.errors import DataError

_MEDIA_WORD = re.compile(r"image|img|video|picture|photo|frame|media|audio|clip", re.IGNORECASE)


@dataclass(frozen=True)
class Problem:
    """A problem of a record: a `kind` for counts, and a `detail` of this record."""

    number: int
    line: int | None
    kind: str
    detail: str = ""

    def __str__(self) -> str:
        place = f"record {self.number}" if self.line is None else f"line {self.line} (record {self.number})"
        detail = self.detail if self.detail.isprintable() else repr(self.detail)
        return f"{place}: {self.kind}{f': {detail}' if detail else ''}"


@dataclass
class CheckReport:
    """Counts of a file, and its duplicates once `check_records` has ended."""

    num_records: int = 0  # readable ones
    num_question_rows: int = 0  # of the records, those with one question in columns
    num_entries: int = 0  # including unreadable ones
    num_sound: int = 0  # without a problem, except that they may be duplicates
    kinds: Counter[str] = field(default_factory=Counter)
    unused_columns: Counter[str] = field(default_factory=Counter)
    again: dict[int, str] = field(default_factory=dict)  # record's number -> kind of duplicate

    @property
    def num_problems(self) -> int:
        """Of all kinds together."""
        return self.kinds.total()

    def lines(self) -> list[str]:
        """A table by kind, and the unused columns of question tables."""
        lines = [f"{self.num_records} records, {self.num_problems} problems"]
        lines += [f"{count:>10}  {kind}" for kind, count in self.kinds.most_common()]
        if self.num_question_rows:
            lines.append(
                f"{self.num_question_rows} records are questions in columns; training records are made of them by "
                "hourllava data group"
            )
        return lines + [f"column {name!r} is not used ({count})" for name, count in sorted(self.unused_columns.items())]


SAME_RECORD = "the same record again"
SAME_ID = "the id of another record"
SYSTEM_TURN = "a system turn"
LAST_QUESTION = "a last question without an answer"
NO_MATCH = "placeholders do not match media"
MediaFault = Callable[[str, str], str | None]  # path, source or "" -> the kind of problem


def media_fault_in(root: Path) -> MediaFault:
    """A function that finds the problem of a media path of a source, and remembers its latest results."""

    @lru_cache(1 << 16)
    def fault(name: str, data_source: str) -> str | None:
        try:
            found = find_media(name, root, data_source)
            if found is None:
                return "media missing"
            path = root / found
            if path.is_dir():  # a folder of frames
                return None if any(path.iterdir()) else "media missing"
            return None if path.stat().st_size else "media empty (0 bytes)"
        except (DataError, OSError):
            return "media cannot be looked up"

    return fault


def check_records(path: Path, report: CheckReport, media: Path | None = None) -> Iterator[Problem]:
    """Every problem of a file in order, duplicates last; fills `report`.

    Args:
        path: .json (a list), .jsonl or .parquet with training records or questions.
        report: is filled.
        media: folder that `video` and `image`, or their sources' folders, are relative to; None skips this check.

    Raises:
        DataError: the file cannot be opened, or is not a list of records.
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
        report.num_question_rows += bool(record) and not is_conversation(record)
        # Records without an id have that problem already; they are not duplicates of each other.
        id_name = id_field(record)
        identity = f"\0{len(ids)}" if id_name is None else record[id_name]
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
    """Index of every repeated element -> index of the first element equal to it."""
    order = np.argsort(hashes, kind="stable")
    ordered = hashes[order]
    is_first = np.concatenate([[True], ordered[1:] != ordered[:-1]])
    firsts = order[np.maximum.accumulate(np.where(is_first, np.arange(len(order)), 0))]
    return {int(index): int(first) for index, first in zip(order[~is_first], firsts[~is_first])}


def problems_of(entry: Entry, media_fault: MediaFault | None, unused: Counter[str]) -> list[tuple[str, str]]:
    """(kind, detail) of every problem of a single entry; `unused` counts its unused columns."""
    record = entry.value
    if entry.fault is not None:
        return [("unreadable", entry.fault)]
    if not isinstance(record, dict):
        return [("no object", type(record).__name__)]
    problems: list[tuple[str, str]] = []
    if is_conversation(record):
        names, source = _read_training_record(record, problems), record.get("data_source")
    else:
        try:
            unused.update(question_rows(record, str(entry.number))[1])
        except (ValueError, DataError) as error:
            problems.append(("question cannot be used", str(error).splitlines()[0]))
        names, source = media_named(record)
    for name in names:
        detail = name[:200]
        if leads_out(name) or "\\" in name:
            problems.append(("media path leaves its folder", detail))
        elif not is_file_name(name):
            problems.append(("media is no file name", detail))
        elif media_fault is not None and (fault := media_fault(name, str(source or ""))) is not None:
            problems.append((fault, detail))
    return problems


def _read_training_record(record: dict[str, Any], problems: list[tuple[str, str]]) -> list[str]:
    """Add the problems of a training record to `problems`; returns the paths of its media."""
    try:
        whole = canonical_record(record)
    except RecordFault as fault:
        problems += _of_fields(record, names_media=True)  # it may name some
        problems.append((fault.kind, fault.detail))
        return []
    names = media_names(whole)
    problems += _of_fields(record, names_media=bool(names))
    problems += _of_turns(record, whole["conversations"], len(names))
    return names


def _of_fields(record: dict[str, Any], *, names_media: bool) -> Iterator[tuple[str, str]]:
    for name in record:
        if name not in READ_FIELDS and not is_missing(record[name]):
            # Removing the field could leave a question about a picture without the picture.
            is_media = not names_media and _MEDIA_WORD.search(name) is not None
            yield "unknown field that may name media" if is_media else "unknown field", name
    if is_missing(record.get("id")):
        yield "no id", ""
    elif not isinstance(record["id"], str):
        yield "id is no text", repr(record["id"])[:80]
    elif not record["id"]:
        yield "no id", "empty"
    source = record.get("data_source")
    if not is_missing(source) and not isinstance(source, str):
        yield "data_source is no text", repr(source)[:80]


def _of_turns(record: dict[str, Any], whole: list[dict[str, Any]], num_media: int) -> Iterator[tuple[str, str]]:
    if not whole:
        yield "empty conversation", ""
        return
    turns, left_out = usable_turns(whole)
    if not turns:
        yield "wrong turn order", " ".join(turn["from"] for turn in whole)[:80]
        return
    yield from ((kind, "") for kind in left_out)
    for k, turn in enumerate(turns):
        if not turn["value"].replace(IMAGE, "").strip():
            yield "empty turn", f"turn {k + 1}"
    asked, answers = turns[::2], turns[1::2]
    found = sum(turn["value"].count(IMAGE) for turn in asked)
    if found != num_media:
        yield NO_MATCH, f"{found} {IMAGE} for {num_media} media"
    if any(IMAGE in turn["value"] for turn in answers):
        yield "placeholder in an answer", ""
    try:
        form = None if record.keys() <= READ_FIELDS else told_format(record)
    except ValueError as error:
        yield "open-ended or multiple choice", str(error)
        return
    for question, answer in zip(asked, answers):
        yield from _of_options(question["value"].replace(IMAGE, "").strip(), answer["value"], form)


def _of_options(question: str, answer: str, form: Format | None) -> Iterator[tuple[str, str]]:
    found = find_options(question)
    if (
        found is not None
        and form != "open"
        and (found.is_sure or form)
        and len(set(found.options)) < len(found.options)
    ):
        yield "an option is given twice", ", ".join(found.options)[:80]
    try:
        resolve(question, answer, form=form)
    except ValueError as error:
        yield "the answer is no option", f"{error}: {answer!r:.40}"


def usable_turns(turns: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], list[str]]:
    """The alternating questions and answers of a conversation, and the kinds of turns left out before and after them.

    As in LLaVA's trainers, a system turn and a last question without an answer are left out. Any other order cannot be
    mended: then there are no turns.
    """
    left_out = []
    if turns and turns[0]["from"] == "system":
        turns = turns[1:]
        left_out.append(SYSTEM_TURN)
    if len(turns) > 1 and turns[-1]["from"] == "human":
        turns = turns[:-1]
        left_out.append(LAST_QUESTION)
    if [turn["from"] for turn in turns] != ["human", "gpt"] * (len(turns) // 2):
        return [], []
    return turns, left_out
