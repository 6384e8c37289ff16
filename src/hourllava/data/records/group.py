"""`hourllava data group`: up to N questions of one video become one training record of several turns.

Training then reads a video once for N questions. Questions of one video may lie anywhere in a file of millions. The
first pass deals them into files by a hash of the video, each small enough for memory; the second pass groups file by
file. Both read and write sequentially, where an external sort would compare and merge. The output is in the order of
the hashes, whatever the number of files, so sources come out mixed.
"""

import hashlib
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import groupby
from pathlib import Path
from typing import BinaryIO

from pydantic import TypeAdapter

from hourllava.data.records.loading import LoadReport, iterate_records
from hourllava.data.records.models import QuestionRow, TrainingRecord, joined_record, record_line
from hourllava.data.records.reading import records_suffix
from hourllava.errors import ConfigError, DataError, PartlyDoneError
from hourllava.files import replacing

BUCKET_BYTES = 64 << 20  # of the input per dealt file, which takes about 10 times that in memory
MAX_BUCKETS = 256  # files open at a time
_ROWS = TypeAdapter(list[QuestionRow])  # the questions of one record


def group_records(
    path: Path, out: Path, *, num_questions: int = 5, seed: int = 0, report: LoadReport | None = None
) -> list[str]:
    """Write training records of several questions about one video.

    The seed and the questions' ids alone decide which questions of a video come together, and in which order, not the
    order of the file. A conversation of several questions is never cut and keeps its order, because later questions
    may refer to earlier ones. Multiple choice is asked with lettered options and answered by the letter. The id of a
    group is the video's path with its source, and the group's number.

    Args:
        path: training records or questions, .json, .jsonl or .parquet.
        out: .json or .jsonl; replaced whole.
        num_questions: maximum questions of a record; a conversation with more stays unchanged.
        seed: another seed gives other groups.
        report: gets the unused columns and records.

    Returns:
        lines for the user: the number of records, and what could not be used.

    Raises:
        ConfigError: `num_questions` is below 1.
        DataError: a file cannot be read or written, or holds no usable question.
    """
    if num_questions < 1:
        raise ConfigError(f"--questions is {num_questions}; use 1 or more")
    suffix = records_suffix(out, (".json", ".jsonl"))
    report = LoadReport() if report is None else report
    # All runs use the same name, so that the next run removes what a killed one left.
    folder = out.with_name(f".{out.name}.buckets")
    try:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        try:
            num_bytes = path.stat().st_size * (8 if records_suffix(path) == ".parquet" else 1)  # parquet is compressed
            buckets = _deal(path, folder, min(MAX_BUCKETS, 1 + num_bytes // BUCKET_BYTES), report)
            num_records = num_longer = 0
            with replacing(out) as temporary, temporary.open("w", encoding="utf-8") as file:
                separator = "[\n" if suffix == ".json" else ""
                for bucket in buckets:
                    for record in _grouped(bucket, num_questions, seed):
                        file.write(separator + record_line(record))
                        separator = ",\n" if suffix == ".json" else "\n"
                        num_records += 1
                        num_longer += len(record.conversations) > 2 * num_questions
                file.write("\n]\n" if suffix == ".json" else "\n")
                if not num_records:
                    raise DataError(
                        f"{path} holds no question that can be used; {'; '.join(report.lines()) or 'it is empty'}"
                    )
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    except OSError as error:
        raise DataError(f"{error.filename or out}: {error.strerror}; check the path and the space there") from error
    lines = [f"{report.num_questions} questions became {num_records} records"]
    if num_longer:
        lines.append(f"{num_longer} records have more than {num_questions} questions: conversations are never cut")
    return [*lines, *report.lines(), str(out)]


def run_group(path: Path, out: Path, num_questions: int, seed: int) -> Iterator[str]:
    """`hourllava data group`: lines for the user.

    Raises:
        PartlyDoneError: after the last line, if some records could not be used; or as `group_records`.
    """
    report = LoadReport()
    yield from group_records(path, out, num_questions=num_questions, seed=seed, report=report)
    if report.problems:
        raise PartlyDoneError(f"{report.problems.total()} records of {path} could not be used; the others are in {out}")


def _key(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(errors="surrogatepass"), digest_size=8).digest())


def _deal(path: Path, folder: Path, num_buckets: int, report: LoadReport) -> list[Path]:
    """Write the records' questions into files by ranges of their videos' hashes, one record per line."""
    paths = [folder / f"{k:03d}.jsonl" for k in range(num_buckets)]
    with ExitStack() as stack:
        files: list[BinaryIO] = [stack.enter_context(path.open("wb")) for path in paths]
        for rows in iterate_records(path, report):
            bucket = _key(rows[0].media_id) * num_buckets >> 64
            files[bucket].write(_ROWS.dump_json(rows, exclude_defaults=True) + b"\n")
    return paths


def _grouped(bucket: Path, num_questions: int, seed: int) -> Iterator[TrainingRecord]:
    with bucket.open("rb") as file:
        records = [_ROWS.validate_json(line) for line in file]

    # Records with one id are ordered by their content, so that the file's order never counts.
    def order(rows: list[QuestionRow]) -> tuple[int, str, int, bytes]:
        video = rows[0].media_id
        return _key(video), video, _key(f"{seed}\n{rows[0].question_id}"), _ROWS.dump_json(rows)

    records.sort(key=order)
    for video, of_video in groupby(records, key=lambda rows: rows[0].media_id):
        groups: list[list[QuestionRow]] = []
        for rows in of_video:
            if groups and len(groups[-1]) + len(rows) <= num_questions:
                groups[-1] += rows
            else:
                groups.append(list(rows))
        for number, group in enumerate(groups):
            yield joined_record(f"{video}-{number}", group)
