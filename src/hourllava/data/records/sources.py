"""`hourllava data sources`: origin and folder of all data, and whether the media that records name can be read.

Verifying opens every video once (`hourllava.video.probe`, one process each, several at a time), which takes hours for a
whole data set. Each result becomes a line of the report at once. Started again, it opens only files that are new or
have changed.
"""

import json
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.resources import files
from itertools import islice
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, TypeAdapter
from tqdm import tqdm

from hourllava.data.records.canonical import is_text
from hourllava.data.records.columns import media_named, told_seconds
from hourllava.data.records.media import find_media
from hourllava.data.records.reading import iterate_entries
from hourllava.errors import DataError, PartlyDoneError, VideoError
from hourllava.files import replacing
from hourllava.processes import usable_cores
from hourllava.video import probe
from hourllava.video.picture_file import PICTURE_ERRORS, open_picture, upright_rgb
from hourllava.video.source import IMAGE_SUFFIXES, frame_files

Status = Literal["found", "missing", "unreadable", "duration mismatch"]
TOLERANCE_SECONDS = 2.0
TOLERANCE_SHARE = 0.02
_AHEAD_PER_PROCESS = 4


class DataSource(BaseModel):
    """A source: its name, address, licence in a word, and folder below the data root."""

    model_config = ConfigDict(frozen=True)
    name: str
    where: str
    licence: str
    folder: str


class MediaState(BaseModel):
    """The state of a media file, valid as long as its size and time of change stay."""

    model_config = ConfigDict(frozen=True)
    media: str
    status: Status
    detail: str = ""
    duration_seconds: float | None = None
    num_bytes: int = 0
    changed_ns: int = 0


def data_sources() -> list[DataSource]:
    """All sources of the three training stages."""
    text = files("hourllava.data.records").joinpath("sources.json").read_text(encoding="utf-8")
    return TypeAdapter(list[DataSource]).validate_json(text)


def source_lines(root: Path) -> list[str]:
    """A table of the sources with the number of files in their folders."""
    rows = [("source", "files", "folder", "from", "licence")]
    for source in data_sources():
        folder = root / source.folder
        count = sum(path.is_file() for path in folder.rglob("*")) if folder.is_dir() else 0
        rows.append((source.name, str(count or "-"), str(folder), source.where, source.licence))
    widths = [max(len(row[k]) for row in rows) for k in range(4)]
    return ["  ".join([*(cell.ljust(width) for cell, width in zip(row, widths)), row[4]]) for row in rows]


def verify_media(
    records: Path,
    media: Path,
    report: Path,
    *,
    processes: int | None = None,
    progress: bool = True,
    unusable: Counter[str] | None = None,
) -> Counter[Status]:
    """Find and open every media file that records name.

    Memory grows with the number of different files, not of records.

    Args:
        records: training records or questions, .json, .jsonl or .parquet. If they have a video's length, a file that
            differs by more than 2 s and 2 % is a mismatch.
        media: folder that paths in the records, or their sources' folders, are relative to.
        report: .jsonl, one `MediaState` per line, sorted when complete; an existing report is continued.
        processes: files opened at a time; one per core by default.
        progress: show a progress bar on stderr.
        unusable: gets the number of records whose media cannot be read.

    Returns:
        files by status.

    Raises:
        DataError: the records cannot be read, name no media, or the report cannot be written.
    """
    if not media.is_dir():
        raise DataError(f"{media} is no folder; give the one that paths in the records are relative to (--media)")
    expected = _expected(records, media, Counter() if unusable is None else unusable)
    if not expected:
        raise DataError(f"{records} names no video and no image")
    known = _known(report, expected)
    num_threads = processes or usable_cores()
    states: dict[str, MediaState] = {}
    try:
        with (
            report.open("a", encoding="utf-8") as file,
            ThreadPoolExecutor(num_threads) as pool,
            tqdm(total=len(expected), unit="file", desc="verifying", disable=not progress) as bar,
        ):
            names = iter(sorted(expected))
            # A bounded number at a time: millions of waiting tasks would take gigabytes.
            while batch := list(islice(names, num_threads * _AHEAD_PER_PROCESS)):
                for state in pool.map(lambda name: media_state(media, name, known.get(name)), batch):
                    if known.get(state.media) != state:
                        file.write(state.model_dump_json() + "\n")
                    states[state.media] = state
                    bar.update()
                file.flush()
        states = {name: _compared(state, expected[name]) for name, state in states.items()}
        with replacing(report) as temporary, temporary.open("w", encoding="utf-8") as file:
            file.writelines(state.model_dump_json() + "\n" for state in states.values())
    except OSError as error:
        raise DataError(f"{report} cannot be written ({error.strerror}); choose another with --report") from error
    return Counter(state.status for state in states.values())


def media_state(media: Path, name: str, known: MediaState | None) -> MediaState:
    """Open a media file, unless `known` is still valid."""
    try:
        if find_media(name, media) is None:
            return MediaState(media=name, status="missing")
        path = media / name
        status = path.stat()
    except (DataError, OSError) as error:
        return MediaState(media=name, status="missing", detail=str(error))
    stamp: dict[str, Any] = {"media": name, "num_bytes": status.st_size, "changed_ns": status.st_mtime_ns}
    if known is not None and (known.num_bytes, known.changed_ns) == (status.st_size, status.st_mtime_ns):
        return known
    try:
        if path.suffix.lower() in IMAGE_SUFFIXES:
            with open_picture(path) as image:
                upright_rgb(image)  # decoded as a whole, as in `data shard`: `verify` misses truncated JPEGs
            return MediaState(status="found", **stamp)
        if path.is_dir() and not frame_files(path):
            return MediaState(status="unreadable", detail="a folder without pictures", **stamp)
        return MediaState(status="found", duration_seconds=probe(path).duration_seconds, **stamp)
    except (*PICTURE_ERRORS, VideoError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        return MediaState(status="unreadable", detail=reason, **stamp)


def _compared(state: MediaState, expected_seconds: float | None) -> MediaState:
    """Compare the length with the records', which may differ from those of an earlier run."""
    if state.status not in ("found", "duration mismatch") or state.duration_seconds is None:
        return state
    is_off = expected_seconds is not None and abs(state.duration_seconds - expected_seconds) > max(
        TOLERANCE_SECONDS, TOLERANCE_SHARE * expected_seconds
    )
    detail = f"{state.duration_seconds:.1f} s, the records say {expected_seconds:.1f} s" if is_off else ""
    return state.model_copy(update={"status": "duration mismatch" if is_off else "found", "detail": detail})


def _expected(records: Path, media: Path, unusable: Counter[str]) -> dict[str, float | None]:
    """Media path below the folder -> its length in seconds, if the records have it."""
    expected: dict[str, float | None] = {}
    places: dict[tuple[str, str | None], str] = {}
    for entry in iterate_entries(records):
        names, source = media_named(entry.value)
        if not names and (entry.fault is not None or not isinstance(entry.value, dict)):
            unusable["cannot be read"] += 1
        elif not names:
            unusable["name no media"] += 1
        for name in names:
            if (name, source) not in places:
                places[name, source] = _place(name, media, source)
            place = places[name, source]
            expected[place] = expected.get(place) or told_seconds(entry.value)
    return expected


def _place(name: str, media: Path, data_source: str | None) -> str:
    """The path of a file below the folder; if it does not exist, the path where it should lie."""
    try:
        found = find_media(name, media, data_source)
    except DataError:
        return name if is_text(name) else repr(name)  # opening it gives the reason
    return found or (name if not data_source or name.startswith(f"{data_source}/") else f"{data_source}/{name}")


def _known(report: Path, expected: dict[str, float | None]) -> dict[str, MediaState]:
    known: dict[str, MediaState] = {}
    if report.is_file():
        with report.open(encoding="utf-8", errors="replace") as file:
            for line in file:
                try:
                    state = MediaState.model_validate_json(line)
                except ValueError:
                    continue  # a kill cut the line off; the file is opened again
                if state.media in expected and state.status != "missing":
                    known[state.media] = state
    return known


def report_lines(counts: Counter[Status], report: Path, num_shown: int = 10) -> list[str]:
    """Counts by status, and the first files that are not as they should be."""
    lines = [", ".join(f"{counts[status]} {status}" for status in get_args(Status))]
    with report.open(encoding="utf-8", errors="replace") as file:
        bad = (state for state in map(json.loads, file) if state["status"] != "found")
        lines += [f"{state['status']}: {state['media']} {state['detail']}".rstrip() for state in islice(bad, num_shown)]
    return [*lines, f"all files: {report}"]


def describe_sources(
    root: Path, records: Path | None, media: Path | None, report: Path | None, processes: int | None
) -> Iterator[str]:
    """`hourllava data sources`: the table, or the state of the records' media.

    Raises:
        PartlyDoneError: after the last line, if some files are missing, unreadable or of another length.
        DataError: after the last line, if all of them are; or as `verify_media`.
    """
    if records is None:
        yield from source_lines(root)
        return
    report = report or records.with_name(f"{records.name}.media.jsonl")
    unusable: Counter[str] = Counter()
    folder = media or root / "VideoMarathon" / "videos"
    counts = verify_media(records, folder, report, processes=processes, unusable=unusable)
    yield from report_lines(counts, report)
    yield from (f"{count} records {what}; hourllava data check tells more" for what, count in unusable.items())
    if counts["found"] < counts.total():
        message = f"{counts.total() - counts['found']} of {counts.total()} files are not as they should be"
        raise (PartlyDoneError if counts["found"] else DataError)(message)
