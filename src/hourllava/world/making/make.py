"""`hourllava world make`: a data set of MarathonWorld videos in VideoMarathon's folders.

    OUT/videos/marathonworld/<video>.mp4, .json   the videos and their scripts; or <video>.world.json, see below
    OUT/jsons/videomarathon.json                  training records, with one or several questions about a video
    OUT/jsons/questions.parquet                   a question row per question, with all that is known about it
    OUT/jsons/captions.jsonl                      a line per video: clips, events, overall
    OUT/preview.png                               frames of the first video
    OUT/marathonworld.json                        the settings; a run with other settings is refused

The container `reference` encodes no video; a small file stands for it (`hourllava.world.reference`). Worker processes
return finished lines and tables, so the process that writes them keeps up with many workers.

The command can be stopped at any moment: each file is renamed into place when it is complete, a script after its video,
the records at the end. Started again with the same settings, it makes what is missing and ends with the same bytes.
"""

import os
from collections import deque
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from hourllava.clock import format_clock
from hourllava.data.records.taxonomy import find_task
from hourllava.data.records.writing import question_table_file, training_record_file
from hourllava.errors import ConfigError
from hourllava.files import replacing
from hourllava.processes import WorkerPool
from hourllava.world.drawing.encode import VIDEO_PIXELS, encode_video
from hourllava.world.drawing.render import render_frames
from hourllava.world.drawing.sheet import contact_sheet
from hourllava.world.generate import DIFFICULTIES, MAX_EVENTS, MAX_SECONDS, check_settings
from hourllava.world.making.jobs import run_folder, run_jobs, workers
from hourllava.world.making.records import SOURCE, Described, describe_video
from hourllava.world.questions import BUILDERS, FORMATS
from hourllava.world.questions.draft import Format
from hourllava.world.reference import REFERENCE_SUFFIX, Reference, write_reference
from hourllava.world.rng import Draws
from hourllava.world.script import GENERATOR, Generator, Script
from hourllava.world.vocabulary import SPLITS, Split

SETTINGS_NAME = "marathonworld.json"
_PREVIEW_FRAMES = 24
_JOBS_PER_CALL = 8  # for jobs that take milliseconds


class MakeSettings(BaseModel):
    """All settings that decide the bytes of a data set."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    videos: int = 40
    min_seconds: int = 180
    max_seconds: int = 3600
    seed: int = 0
    split: Split = "train"
    difficulty: str = "normal"
    needles: int | None = None  # cards per video; None: one per event, at least 4
    per_task: int = 3  # questions per task and format, as in VideoMarathon
    formats: tuple[Format, ...] = FORMATS
    tasks: tuple[str, ...] = tuple(BUILDERS)
    painted: bool = False  # objects in arbitrary colours, named by shape alone
    size_pixels: int = VIDEO_PIXELS
    container: Literal["mp4", "webm", "reference"] = "mp4"
    questions: int = 1  # per training record, at most
    captions: int = 0  # per video, at most: exchanges whose answers are captions
    tables: bool = True  # write questions.parquet and captions.jsonl; training does not read them
    version: Literal[5] = 5  # changes with the bytes of records and tables
    generator: Generator = GENERATOR  # the version of scripts and drawings


def parse_minutes(text: str) -> tuple[int, int]:
    """Turn "3-60" or "5", in minutes, into the shortest and the longest length in seconds.

    Raises:
        ConfigError: no number or range of numbers, not above 0, or more than 24 hours.
    """
    parts = text.split("-")
    try:
        low, high = (float(part) for part in (parts if len(parts) == 2 else parts * 2))
        if not 0 < low <= high <= MAX_SECONDS / 60:
            raise ValueError
    except ValueError:
        raise ConfigError(
            f"--minutes is {text!r}; use a range such as 3-60 or one number such as 5, above 0 and at most 1440"
        ) from None
    return max(1, round(low * 60)), max(1, round(high * 60))


def parse_formats(text: str) -> tuple[Format, ...]:
    """Turn "open", "choice" or "both" into the formats of answers.

    Raises:
        ConfigError: any other word.
    """
    formats = FORMATS if text == "both" else tuple(one for one in FORMATS if one == text)
    if not formats:
        raise ConfigError(f"--formats is {text!r}; use one of: both, {', '.join(FORMATS)}")
    return formats


def parse_tasks(text: str) -> tuple[str, ...]:
    """Turn "all", or names of tasks separated by commas, into the names of the taxonomy.

    Raises:
        ConfigError: a name is no task.
    """
    if text == "all":
        return tuple(BUILDERS)
    found = [(name.strip(), find_task(name.strip())) for name in text.split(",")]
    if unknown := [name for name, task in found if task is None]:
        raise ConfigError(f"--tasks names {unknown[0]!r}; use all, or some of: {', '.join(BUILDERS)}")
    return tuple(dict.fromkeys(task.name for _, task in found if task is not None))


def make_settings(
    videos: int, minutes: str, seed: int, split: str, difficulty: str, needles: int | None, per_task: int,
    formats: str, size_pixels: int, container: str, questions: int = 1, captions: int = 0, tables: bool = True,
    tasks: str = "all", painted: bool = False,
) -> MakeSettings:  # fmt: skip
    """Check the options of `hourllava world make`.

    Raises:
        ConfigError: an option has a value that is not allowed.
    """
    for name, value, allowed in (
        ("split", split, SPLITS),
        ("difficulty", difficulty, tuple(DIFFICULTIES)),
        ("container", container, ("mp4", "webm", "reference")),
    ):
        if value not in allowed:
            raise ConfigError(f"--{name} is {value!r}; use one of: {', '.join(allowed)}")
    answer_formats = parse_formats(formats)
    for name, number, low, high in (
        ("videos", videos, 1, 1_000_000),
        ("per-task", per_task, 1, 100),
        ("size-pixels", size_pixels, 64, 2048),
        ("questions", questions, 1, 1000),
        ("captions", captions, 0, 1 + MAX_EVENTS),
    ):
        if not low <= number <= high:
            raise ConfigError(f"--{name} is {number}; use {low} to {high}")
    if size_pixels % 2:
        raise ConfigError(f"--size-pixels is {size_pixels}; video encoders need an even number")
    min_seconds, max_seconds = parse_minutes(minutes)
    check_settings(min_seconds, split, DIFFICULTIES[difficulty], needles)
    return MakeSettings.model_validate(
        {
            "videos": videos, "min_seconds": min_seconds, "max_seconds": max_seconds, "seed": seed, "split": split,
            "difficulty": difficulty, "needles": needles, "per_task": per_task, "size_pixels": size_pixels,
            "container": container, "formats": answer_formats, "questions": questions, "captions": captions,
            "tables": tables, "tasks": parse_tasks(tasks), "painted": painted,
        }
    )  # fmt: skip


@dataclass(frozen=True)
class _Job:
    settings: MakeSettings
    out: Path
    index: int

    @property
    def name(self) -> str:
        return f"{self.settings.split}-{self.settings.seed}-{self.index:05}"

    @property
    def video_path(self) -> Path:
        ending = REFERENCE_SUFFIX if self.settings.container == "reference" else f".{self.settings.container}"
        return self.out / "videos" / SOURCE / f"{self.name}{ending}"

    @property
    def script_path(self) -> Path:
        return self.video_path.with_name(f"{self.name}.json")

    @property
    def video(self) -> str:
        """The path below `videos/`, as records name it."""
        return f"{SOURCE}/{self.video_path.name}"

    @property
    def reference(self) -> Reference:
        """The reference of the video, also if a video file is made."""
        s = self.settings
        draws = Draws("make", s.seed, s.split, self.index)
        # The smaller of two draws makes short videos more frequent, as in VideoMarathon (mean 22 minutes of 3 to 60).
        duration_seconds = min(draws.between(s.min_seconds, s.max_seconds) for _ in range(2))
        return Reference(
            seed=draws.below(2**53),
            duration_seconds=duration_seconds,
            split=s.split,
            density=DIFFICULTIES[s.difficulty],
            needles=s.needles,
            painted=s.painted,
            size_pixels=s.size_pixels,
        )

    def is_done(self) -> bool:
        if self.settings.container == "reference":
            try:
                return self.video_path.stat().st_size > 0  # a power cut may leave an empty file
            except FileNotFoundError:
                return False
        return self.video_path.exists() and self.script_path.exists()


def make_world(settings: MakeSettings, out: Path, processes: int = 2) -> None:
    """Make the data set in `out`, or the missing part of it.

    Raises:
        ConfigError: `out` cannot be written, holds other files or another run's files, or `processes` is below 1.
    """
    with workers(processes) as pool, _run_folder(settings, out):
        jobs = _make_videos(settings, out, pool)
        _write_records(jobs, out, pool)


def make_videos(settings: MakeSettings, out: Path, processes: int = 2) -> Iterator[tuple[Path, Reference]]:
    """Make the videos without records, or the missing ones; yields the path and the reference of each.

    Raises:
        ConfigError: as in `make_world`.
    """
    with workers(processes) as pool, _run_folder(settings, out):
        jobs = _make_videos(settings, out, pool)
    for job in jobs:
        yield job.video_path, job.reference


def _run_folder(settings: MakeSettings, out: Path) -> AbstractContextManager[None]:
    return run_folder(out, SETTINGS_NAME, settings, (out / "videos" / SOURCE, out / "jsons"))


def _make_videos(settings: MakeSettings, out: Path, pool: WorkerPool) -> list[_Job]:
    jobs = [_Job(settings, out, index) for index in range(settings.videos)]
    missing = [job for job in jobs if not job.is_done()]
    per_call = _JOBS_PER_CALL if settings.container == "reference" else 1
    done = len(jobs) - len(missing)
    deque(run_jobs(_make_video, missing, pool, "video", jobs_per_call=per_call, num_done=done), maxlen=0)
    if missing and settings.container == "reference":
        os.sync()  # once for all references, before the records that name them
    return jobs


def _make_video(job: _Job) -> None:
    reference = job.reference
    if job.settings.container == "reference":
        write_reference(reference, job.video_path)
        return
    script = reference.script()
    encode_video(script, job.video_path, job.settings.size_pixels)
    with replacing(job.script_path) as temporary:
        temporary.write_text(script.model_dump_json(), encoding="utf-8")


def _describe(job: _Job) -> Described:
    s = job.settings
    return describe_video(
        job.reference.script(), job.video, per_task=s.per_task, tasks=s.tasks, formats=s.formats,
        questions_per_record=s.questions, num_descriptions=s.captions, tables=s.tables,
    )  # fmt: skip


def _write_records(jobs: list[_Job], out: Path, pool: WorkerPool) -> None:
    """Write records, tables and captions in one pass; few videos' questions are in memory at a time."""
    _write_preview(jobs[0].reference.script(), out / "preview.png")
    with ExitStack() as files:
        add_record = files.enter_context(training_record_file(out / "jsons" / "videomarathon.json"))
        if jobs[0].settings.tables:
            add_table = files.enter_context(question_table_file(out / "jsons" / "questions.parquet"))
            captions_path = files.enter_context(replacing(out / "jsons" / "captions.jsonl"))
            captions = files.enter_context(captions_path.open("w", encoding="utf-8"))
        for described in run_jobs(_describe, jobs, pool, "record", jobs_per_call=_JOBS_PER_CALL):
            for line in described.record_lines:
                add_record(line)
            if described.table is not None:
                add_table(described.table)
                captions.write(described.caption_line)


def _write_preview(script: Script, path: Path) -> None:
    times = [script.duration_seconds * k // _PREVIEW_FRAMES for k in range(_PREVIEW_FRAMES)]
    titles = [next(e.title for e in script.events if e.end_seconds > time) for time in times]
    captions = [f"{format_clock(time)}\n{title.removeprefix('the ')}" for time, title in zip(times, titles)]
    with replacing(path) as temporary:
        contact_sheet(render_frames(script, times, 192), captions).save(temporary, format="PNG")
