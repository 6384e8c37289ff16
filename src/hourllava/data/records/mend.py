"""`hourllava data check --fix`: a copy of a file of records without its problems, and a ledger of all changes.

It reads the file a second time, so that it needs no more memory than a check.
"""

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hourllava.data.records.canonical import (
    IMAGE,
    RECORD_FIELDS,
    canonical_record,
    is_conversation,
    is_missing,
    is_text,
    media_names,
)
from hourllava.data.records.check import (
    LAST_QUESTION,
    NO_MATCH,
    SAME_ID,
    SYSTEM_TURN,
    CheckReport,
    check_records,
    media_fault_in,
    problems_of,
    usable_turns,
)
from hourllava.data.records.columns import id_field
from hourllava.data.records.reading import Entry, arrow, iterate_entries, records_suffix
from hourllava.errors import DataError, PartlyDoneError
from hourllava.files import replacing

DROPPED, CHANGED = "dropped", "changed"
_MENDED = {
    "unknown field": "field removed",
    "id is no text": "id written as text",
    "no id": "the record's number as id",
    NO_MATCH: "one placeholder put first",
    SYSTEM_TURN: "the turn removed",
    LAST_QUESTION: "the turn removed",
    SAME_ID: "the record's number added to its id",
}
"""Kinds of problems that a change mends; all others cost the record."""


def fix_records(path: Path, out: Path, report: CheckReport, media: Path | None = None) -> tuple[int, int]:
    """Write a copy without the problems that `check_records` found, and a ledger of all changes.

    Sound records are copied unchanged. Other records are changed if that mends all their problems, or else dropped. Of
    equal records the first stays; of different records with one id the later ones get a new id. The ledger,
    `OUT.ledger.jsonl`, has a line for each changed or dropped record.

    Args:
        path: the file that was checked.
        out: .json or .jsonl, for parquet .parquet; replaced whole.
        report: of `check_records` for this file.
        media: as in that call.

    Returns:
        (records dropped, records changed)

    Raises:
        DataError: `out` cannot be written, or has another format than `path`.
    """
    is_table = records_suffix(path) == ".parquet"
    suffix = records_suffix(out, (".parquet",) if is_table else (".json", ".jsonl"))
    if out.absolute() == path.absolute():
        raise DataError(f"--fix is the file itself; give another name, {path} stays as it is")
    counts: Counter[str] = Counter()
    media_fault = None if media is None else media_fault_in(media)
    ledger = out.with_name(f"{out.name}.ledger.jsonl")
    try:
        with replacing(out) as new, replacing(ledger) as new_ledger, new_ledger.open("w", encoding="utf-8") as notes:

            def kept() -> Iterator[Entry]:
                for entry in iterate_entries(path):
                    problems = problems_of(entry, media_fault, Counter())
                    if entry.number in report.again:
                        problems.append((report.again[entry.number], ""))
                    record = _mend(entry, [kind for kind, _ in problems], is_table=is_table)
                    if problems:
                        what = DROPPED if record is None else CHANGED
                        counts[what] += 1
                        line = {"record": entry.number, "line": entry.line, "done": what, "problems": problems}
                        line["text"] = (entry.text or json.dumps(entry.value, default=str))[:2000]
                        notes.write(json.dumps(line) + "\n")
                    if record is not None:
                        text = _line(record) if problems else entry.text
                        yield Entry(entry.number, entry.line, record, None, text)

            _write(path, new, suffix, kept())
    except OSError as error:
        reason = error.strerror or str(error)
        raise DataError(
            f"{out} cannot be written ({reason}); free space, or choose a folder you may write to"
        ) from error
    return counts[DROPPED], counts[CHANGED]


def _mend(entry: Entry, kinds: list[str], *, is_table: bool) -> dict[str, Any] | None:
    """The record without these problems, in the published form; None if it cannot be mended."""
    if any(kind not in _MENDED for kind in kinds):
        return None
    if not kinds:
        return entry.value  # without a problem, so it is a record
    record = dict(entry.value)
    if is_conversation(record):
        record = canonical_record(record)
        if is_table and record != {name: cell for name, cell in entry.value.items() if not is_missing(cell)}:
            return None  # the table lacks columns of the published form
        record = {name: value for name, value in record.items() if name in RECORD_FIELDS}
        record["id"] = str(record.get("id") or f"#{entry.number}")
    if SAME_ID in kinds:
        name = id_field(record) or "id"
        if not isinstance(record[name], str):
            return None  # a column of numbers cannot hold a new name
        record[name] = f"{record[name]}#{entry.number}"
    if SYSTEM_TURN in kinds or LAST_QUESTION in kinds:
        record["conversations"] = usable_turns(record["conversations"])[0]
    if NO_MATCH in kinds:
        if len(media_names(record)) != 1:
            return None  # the places of the pictures are unknown, or the question's picture is not named
        turns = [dict(turn) for turn in record["conversations"]]
        for turn in turns[::2]:
            turn["value"] = turn["value"].replace(IMAGE, "").strip()
        turns[0]["value"] = f"{IMAGE}\n{turns[0]['value']}"
        record["conversations"] = turns
    return record


def _line(record: Any) -> str:
    text = json.dumps(record, ensure_ascii=False, default=str)
    return text if is_text(text) else json.dumps(record, default=str)


def _write(path: Path, out: Path, suffix: str, entries: Iterator[Entry]) -> None:
    if suffix == ".parquet":
        pa, pq = arrow()
        schema = pq.ParquetFile(path).schema_arrow
        with pq.ParquetWriter(out, schema) as writer:
            rows: list[Any] = []
            for entry in entries:
                rows.append(entry.value)
                if len(rows) == 20_000:
                    writer.write_table(pa.Table.from_pylist(rows, schema=schema))
                    rows = []
            writer.write_table(pa.Table.from_pylist(rows, schema=schema))
        return
    with out.open("w", encoding="utf-8") as file:
        separator = "[\n" if suffix == ".json" else ""
        for entry in entries:
            text = entry.text
            if suffix == ".jsonl" and "\n" in text:
                text = _line(entry.value)
            file.write(separator + text)
            separator = ",\n" if suffix == ".json" else "\n"
        file.write(("[\n]\n" if separator == "[\n" else "\n]\n") if suffix == ".json" else "\n" if separator else "")


def check_and_fix(path: Path, *, media: Path | None, fix: Path | None, shown_per_kind: int | None) -> Iterator[str]:
    """`hourllava data check`: lines for the user, each as soon as it is known.

    Raises:
        PartlyDoneError: after the last line, if some records have problems or, with `fix`, were dropped.
        DataError: after the last line, if all have problems or were dropped; or as `check_records`, `fix_records`.
    """
    report = CheckReport()
    shown: Counter[str] = Counter()
    for problem in check_records(path, report, media):
        shown[problem.kind] += 1
        if shown_per_kind is None or shown[problem.kind] <= shown_per_kind:
            yield str(problem)
    yield from report.lines()
    if fix is not None:
        num_dropped, num_changed = fix_records(path, fix, report, media)
        yield f"{fix}: {num_dropped} records dropped, {num_changed} changed; why: {fix.name}.ledger.jsonl beside it"
        if num_dropped:
            message = f"{num_dropped} of {report.num_entries} records of {path} were dropped"
            raise (PartlyDoneError if num_dropped < report.num_entries else DataError)(message)
    elif report.num_problems:
        message = f"{path} has {report.num_problems} problems; --fix OUT writes a copy without them"
        raise (PartlyDoneError if report.num_sound else DataError)(message)
