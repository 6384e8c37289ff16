"""What is in a data set, counted.

It works on MarathonWorld and on the published files. Missing lengths and events are reported, not guessed. It reads one
record at a time, and keeps only counters and one entry per video.
"""

import json
from collections import Counter
from importlib.resources import files
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from hourllava.data.records.loading import LoadReport, iterate_questions
from hourllava.data.records.taxonomy import TASKS, TOPICS
from hourllava.errors import DataError

BIN_MINUTES = 5
WORLD_NAME, WORLD_SOURCE = "MarathonWorld", "marathonworld"  # the source is the `data_source` of its question rows
PUBLISHED: dict[str, Any] = json.loads(
    files("hourllava.data.records").joinpath("published.json").read_text(encoding="utf-8")
)
_TABLES = ("questions.parquet", "questions.jsonl", "videomarathon.json", "videomarathon.jsonl", "videomarathon.parquet")


class Statistics(BaseModel):
    """Counts of one data set; empty if the files do not tell them (see `notes`)."""

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
        """Videos per bin of 5 minutes, from 0 on; at least 12 bins, more for longer videos."""
        counts = Counter(int(minutes // BIN_MINUTES) for minutes in self.durations_minutes)
        # An hour belongs to the last of the 12 bins, as in the published figure.
        counts[11] += counts.pop(12, 0) if all(minutes <= 60 for minutes in self.durations_minutes) else 0
        return [counts[k] for k in range(max(12, max(counts, default=0) + 1))]


def find_question_file(source: Path) -> Path:
    """The file with the questions: `source` itself, or the one with most columns in a data set's `jsons/`.

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

    Without `name`, its folder or file names it; MarathonWorld is recognised by the source of its question rows.

    Raises:
        DataError: there is no question file, or none of its records can be used.
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
