"""`hourllava data stats`: what is in a data set, in numbers, tables and pictures.

Works on MarathonWorld and on the published files; what those do not tell (lengths, events) is said, not guessed.
Reads one record at a time; only counters and one entry per video are kept.
"""

import json
from collections import Counter
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from hourllava.data.records.models import LoadReport, iterate_questions
from hourllava.data.records.taxonomy import TASKS, TOPICS
from hourllava.errors import DataError, PartlyDoneError
from hourllava.files import replacing

BIN_MINUTES = 5
WORLD_NAME, WORLD_SOURCE = "MarathonWorld", "marathonworld"  # its rows' `data_source`; made by scripts, so exact
PUBLISHED: dict[str, Any] = json.loads(
    files("hourllava.data.records").joinpath("published.json").read_text(encoding="utf-8")
)
_TABLES = ("questions.parquet", "videomarathon.json", "videomarathon.jsonl", "videomarathon.parquet")
COMPARISON_HEADS = ("data set", "captioner", "summarizer", "total", "mean", "range", "open-ended", "multiple-choice")


class Statistics(BaseModel):
    """Counts of one data set; empty where the files do not say (see `notes`)."""

    name: str
    num_videos: int
    num_open: int
    num_choice: int
    videos_per_source: dict[str, int]
    questions_per_topic: dict[str, int]
    questions_per_task: dict[str, int]
    durations_minutes: list[float]  # one per video with a known length, sorted
    videos_per_event_count: dict[int, int]
    notes: list[str]

    def videos_per_bin(self) -> list[int]:
        """Videos per bin of 5 minutes, from 0 on; 12 bins or as many as the longest video needs."""
        counts = Counter(int(minutes // BIN_MINUTES) for minutes in self.durations_minutes)
        # An hour belongs to the last of the 12 bins, as in the published figure.
        counts[11] += counts.pop(12, 0) if all(minutes <= 60 for minutes in self.durations_minutes) else 0
        return [counts[k] for k in range(max(12, max(counts, default=0) + 1))]


def find_question_file(source: Path) -> Path:
    """The file with the questions: `source` itself, or the fullest one in a data set's `jsons/`.

    Raises:
        DataError: there is none.
    """
    if source.is_file():
        return source
    for folder in (source / "jsons", source):
        for name in _TABLES:
            if (folder / name).is_file():
                return folder / name
    raise DataError(f"{source} holds no question file; expected jsons/ with one of: {', '.join(_TABLES)}")


def collect_statistics(source: Path, name: str | None = None) -> tuple[Statistics, LoadReport]:
    """Count a data set: a folder in VideoMarathon's layout, or one of its question files.

    Without a name, it is called by its folder or file; MarathonWorld, which its rows name as their source, by its own.

    Raises:
        DataError: no question file, or none of its records can be used.
    """
    path, report = find_question_file(source), LoadReport()
    sources: dict[str, str] = {}
    seconds: dict[str, float] = {}
    topics: Counter[str] = Counter()
    tasks: Counter[str] = Counter()
    formats: Counter[str] = Counter()
    for row in iterate_questions(path, report):
        sources[row.media_id] = row.data_source
        if row.duration_seconds is not None:
            seconds[row.media_id] = row.duration_seconds
        topics[row.topic or "not given"] += 1
        tasks[row.task or "not given"] += 1
        formats[row.format] += 1
    if not sources:
        raise DataError(f"{path} holds no question that can be used; {'; '.join(report.lines()) or 'it is empty'}")
    events = _event_counts(path.with_name("captions.jsonl"))
    notes = []
    if len(seconds) < len(sources):
        notes.append(f"length unknown for {len(sources) - len(seconds)} of {len(sources)} videos")
    if not events:
        notes.append("event counts unknown: no captions.jsonl beside the questions")
    if topics["not given"]:
        notes.append(f"topic unknown for {topics['not given']} of {topics.total()} questions")
    statistics = Statistics(
        name=name or _name_of(source, set(sources.values())),
        num_videos=len(sources),
        num_open=formats["open"],
        num_choice=formats["choice"],
        videos_per_source=dict(Counter(sources.values()).most_common()),
        questions_per_topic={topic: topics[topic] for topic in (*TOPICS, "not given") if topics[topic]},
        questions_per_task={task: tasks[task] for task in (*TASKS, "not given") if tasks[task]},
        durations_minutes=sorted(round(value / 60, 3) for value in seconds.values()),
        videos_per_event_count=dict(sorted(events.items())),
        notes=notes,
    )
    return statistics, report


def _name_of(source: Path, data_sources: set[str]) -> str:
    if data_sources == {WORLD_SOURCE}:
        return WORLD_NAME
    return source.stem if source.is_file() else source.absolute().name


def _event_counts(path: Path) -> Counter[int]:
    counts: Counter[int] = Counter()
    if path.is_file():
        with path.open(encoding="utf-8") as file:
            counts.update(len(json.loads(line)["events"]) for line in file if line.strip())
    return counts


def short_number(value: float) -> str:
    """A count in three digits: 1730000 -> "1.73M"."""
    for limit, unit in ((1e6, "M"), (1e3, "K")):
        if value >= limit:
            return f"{value / limit:.3g}{unit}"
    return f"{value:.3g}"


def comparison_rows(statistics: Statistics) -> list[tuple[str, ...]]:
    """The four published data sets and this one; heads in `COMPARISON_HEADS`."""
    rows = [
        tuple(
            str(entry[key]) for key in ("name", "captioner", "summarizer", "total", "mean", "range", "open", "choice")
        )
        for entry in PUBLISHED["data_sets"]
    ]
    minutes = statistics.durations_minutes
    known = len(minutes) == statistics.num_videos
    exact = set(statistics.videos_per_source) == {WORLD_SOURCE}
    rows.append(
        (
            statistics.name,
            "exact script" if exact else "not given",
            "exact script" if exact else "not given",
            f"{short_number(sum(minutes) / 60)} h" if known else "not given",
            f"{sum(minutes) / len(minutes):.1f} min" if known else "not given",
            f"{minutes[0]:.0f}-{minutes[-1]:.0f} min" if known else "not given",
            short_number(statistics.num_open),
            short_number(statistics.num_choice),
        )
    )
    return rows


def markdown_report(statistics: Statistics) -> str:
    """The comparison table and the counts per task as Markdown."""
    lines = [f"# {statistics.name}", "", f"{statistics.num_videos} videos.", ""]
    lines += [f"| {' | '.join(COMPARISON_HEADS)} |", "|" + "---|" * len(COMPARISON_HEADS)]
    lines += [f"| {' | '.join(row)} |" for row in comparison_rows(statistics)]
    lines += ["", "| topic | task | form | questions |", "|---|---|---|---|"]
    for name, task in TASKS.items():
        count = statistics.questions_per_task.get(name, 0)
        lines.append(f"| {task.topic} | {name} | {task.form} | {count} |")
    lines += ["", *(f"- {note}" for note in statistics.notes)]
    return "\n".join(lines).rstrip() + "\n"


def write_statistics(source: Path, out: Path, name: str | None = None) -> Iterator[str]:
    """Write figures (PNG, SVG) and tables (Markdown, JSON) of a data set to `out`.

    Yields:
        lines for the user: what was counted, what could not be used, what was written.

    Raises:
        PartlyDoneError: after the last line, if some records could not be used.
        DataError: the data set cannot be read.
    """
    from hourllava.data.records.figures import draw_comparison, draw_panels, draw_taxonomy, save_figure

    statistics, report = collect_statistics(source, name)
    try:
        out.mkdir(parents=True, exist_ok=True)
        written = []
        for stem, figure in (
            ("statistics", draw_panels(statistics)),
            ("taxonomy", draw_taxonomy(statistics)),
            ("comparison", draw_comparison(comparison_rows(statistics))),
        ):
            written += [save_figure(figure, out / f"{stem}{suffix}") for suffix in (".png", ".svg")]
        for path, text in (
            (out / "statistics.md", markdown_report(statistics)),
            (out / "statistics.json", statistics.model_dump_json(indent=1) + "\n"),
        ):
            with replacing(path) as temporary:
                temporary.write_text(text, encoding="utf-8")
            written.append(path)
    except OSError as error:
        raise DataError(f"{out} cannot be written: {error.strerror}; use a folder you may write to") from error
    summary = (
        f"{statistics.num_videos} videos, {statistics.num_open} open-ended and {statistics.num_choice} multiple-choice"
    )
    yield from (f"{summary} questions", *statistics.notes, *report.lines(), *map(str, written))
    if report.problems:
        raise PartlyDoneError(
            f"{report.problems.total()} records of {source} could not be used; all others are counted"
        )
