"""`hourllava eval check`: what of a benchmark is there, in seconds. No video is opened."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from hourllava.errors import DataError, PartlyDoneError
from hourllava.evaluation.benchmarks.benchmark import Benchmark
from hourllava.evaluation.benchmarks.building import UNREADABLE
from hourllava.evaluation.benchmarks.catalogue import find_benchmark
from hourllava.evaluation.benchmarks.folder import DataFolder
from hourllava.evaluation.benchmarks.questions import QuestionTable

_NUM_NAMED = 5
_MAX_GROUPS_SHOWN = 20


def check_data(name: str, data: Path, split: str | None) -> Iterator[str]:
    """Say what of a benchmark is there, and what is missing.

    Args:
        name: of the benchmark.
        data: its data folder.
        split: None for the usual one.

    Yields:
        lines for the user.

    Raises:
        ConfigError: there is no such benchmark or split, or `data` is no folder.
        DataError: there are no questions, or none of their videos.
        PartlyDoneError: some questions cannot be asked, or subtitles are missing; raised after the last line.
    """
    benchmark = find_benchmark(name)
    split = benchmark.split(split)
    folder = DataFolder(data)
    table = benchmark.read(folder, split)
    yield from _questions(benchmark, table)
    yield from _videos(benchmark, table, folder)
    yield from _subtitles(benchmark, table)
    yield from packed_lines(folder, is_complete=all(table.videos.values()) and not _unsubtitled(table))
    for line in table.problems.lines():
        yield f"note        {line}"
    askable = sum(question.file is not None for question in table.questions)
    unreadable = table.left_out.get(UNREADABLE, 0)
    total = len(table.questions) + unreadable
    yield f"can be asked: {askable:,} of {total:,} questions"
    if not askable:
        raise DataError(f"none of the {len(table.videos):,} videos is below {data}; download or unpack them")
    if askable < total or (lost := _unsubtitled(table)):
        what = f"{total - askable:,} of {total:,} questions cannot be asked"
        if askable == total:
            what = f"the subtitles of {len(lost):,} videos are missing"
        raise PartlyDoneError(f"{what}; the lines above say which")


def packed_lines(folder: DataFolder, *, is_complete: bool) -> Iterator[str]:
    """A line for each series of archives that is, or may be, still packed.

    Args:
        folder: of the data.
        is_complete: whether no video and no subtitle file is missing, so that only surely packed ones matter.
    """
    for archive in folder.archives():
        if archive.is_packed or (archive.is_packed is None and not is_complete):
            state = "is" if archive.is_packed else "may be"
            yield f"archive     {_some(archive.names)} {state} still packed; run: {archive.command}"


def _questions(benchmark: Benchmark, table: QuestionTable) -> Iterator[str]:
    published = benchmark.counts.get(table.split)
    known = ""
    if published:
        videos = f" about {published[1]:,} videos" if published[1] is not None else ""
        known = f"; published: {published[0]:,}{videos}"
    found = f"{len(table.questions):,} questions about {len(table.videos):,} videos"
    yield f"{benchmark.title}, {table.split}: {found}{known}"
    yield f"files       {_some(table.annotations)}, revision {table.revision}"
    for reason, count in table.left_out.items():
        yield f"left out    {count:,} more questions: {reason}"
    without_gold = sum(question.gold is None for question in table.questions)
    if without_gold:
        yield f"answers     {without_gold:,} questions have no public answer: they can be asked, but not scored"
    totals = table.totals()
    for axis, title in benchmark.axes.items():
        if 0 < len(totals.get(axis, {})) <= _MAX_GROUPS_SHOWN:
            groups = ", ".join(f"{group} {count:,}" for group, count in totals[axis].items())
            yield f"{title.partition(' (')[0]}: {groups}"


def _videos(benchmark: Benchmark, table: QuestionTable, folder: DataFolder) -> Iterator[str]:
    missing = [video for video, file in table.videos.items() if file is None]
    there = len(table.videos) - len(missing)
    named = f"; missing: {_some(missing)}" if missing else ""
    yield f"videos      {there:,} of {len(table.videos):,} are there{named}"
    if gone := sorted(benchmark.gone & set(missing)):
        yield f"gone        {len(gone)} of the missing ones cannot be had any more: {_some(gone)}"
    if folder.stubs:
        yield f"no videos   {len(folder.stubs):,} files are too small, perhaps Git LFS pointers: {_some(folder.stubs)}"


def _unsubtitled(table: QuestionTable) -> list[str]:
    """Videos whose subtitles the benchmark has, and the folder has not."""
    wanted = {question.video for question in table.questions if question.needs_subtitles and not question.subtitles}
    return sorted(wanted)


def _subtitles(benchmark: Benchmark, table: QuestionTable) -> Iterator[str]:
    if not any(protocol.said and not protocol.is_likelihood for protocol in benchmark.protocols.values()):
        return
    there = {question.video for question in table.questions if question.subtitles}
    without = sum(question.subtitles is None for question in table.questions)
    lost = _unsubtitled(table)
    named = f"; missing though the benchmark has them: {_some(lost)}" if lost else ""
    yield f"subtitles   {len(there):,} of {len(table.videos):,} videos have them, {without:,} questions do not{named}"


def _some(names: Sequence[str]) -> str:
    """A few of these names, and how many more there are."""
    shown = ", ".join(names[:_NUM_NAMED])
    return shown if len(names) <= _NUM_NAMED else f"{shown} and {len(names) - _NUM_NAMED:,} more"
