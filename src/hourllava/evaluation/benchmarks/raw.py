"""Answers as the model gave them: one line of JSON for each question, with all that is needed to score it again.

    OUT/run.json              what the run is: benchmark, revision, protocol, model; a run with others is refused
    OUT/data.json             how many questions the files hold, by group, and what in them was odd
    OUT/raw.jsonl             one line per answer; with --shard k/N, raw-k-of-N.jsonl
    OUT/failures.jsonl        one line per question that could not be asked (failures-k-of-N.jsonl)

A line is written when the answer is there. What a killed run leaves of a last line is cut off by the next.
"""

import itertools
import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from hourllava.errors import ConfigError, DataError
from hourllava.evaluation.benchmarks.questions import Question, QuestionTable
from hourllava.evaluation.intervals import Interval
from hourllava.evaluation.scores import Condition
from hourllava.files import remove_leftovers, replacing
from hourllava.locks import LOCK_NAME, lock_folder

RUN_NAME, DATA_NAME, RAW_NAME, FAILURES_NAME = "run.json", "data.json", "raw.jsonl", "failures.jsonl"
SERVED = "not known"
"""The digest of weights behind a server."""
Shard = tuple[int, int]
Model = TypeVar("Model", bound=BaseModel)

_log = logging.getLogger(__name__)


class RunSettings(BaseModel):
    """What decides the answers of a run."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    format: Literal[1] = 1
    benchmark: str
    split: str
    revision: str
    protocol: str
    subtitles: bool
    model: str
    weights: str  # digest of the model's weights
    fps: float = 1.0
    max_new_tokens: int
    condition: Condition = "video"


class DataSummary(BaseModel):
    """What a benchmark's files hold, for scores without the files."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    annotations: tuple[str, ...]
    num_questions: int
    num_videos: int
    left_out: dict[str, int]
    totals: dict[str, dict[str, int]]
    notes: tuple[str, ...]

    def first_places(self, axis: str) -> dict[str, int]:
        """Where each group of an axis begins in the table, if it holds one group after the other."""
        counts = self.totals.get(axis, {})
        return dict(zip(counts, itertools.accumulate(counts.values(), initial=0)))

    @classmethod
    def of(cls, table: QuestionTable) -> "DataSummary":
        """The summary of a table."""
        return cls(
            annotations=table.annotations, num_questions=len(table.questions), num_videos=len(table.videos),
            left_out=dict(table.left_out), totals=table.totals(), notes=tuple(table.problems.lines()),
        )  # fmt: skip


class RawAnswer(BaseModel):
    """One answer.

    Attributes:
        question: as in the table; what a rule needs to score the answer again.
        prompt: the text of the user's turn behind the video; under `likelihood`, the question and the options.
        output: the model's text; under `likelihood`, the most probable letter.
        log_probabilities: of the letters, under `likelihood`.
        evidence: (start_seconds, end_seconds) of the spans that the model looked at, strongest first.
        num_frames, fps, duration_seconds: of what was watched; without frames, the published length, or 0.
        num_prompt_tokens, num_new_tokens, finish_reason: of the answer; 0 and "" under `likelihood`.
        had_subtitles: whether the prompt held subtitles.
        watch_seconds, ask_seconds: how long it took to get the memory, and the answer.
        version: of hourllava.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    question: Question
    prompt: str
    output: str
    log_probabilities: tuple[float, ...] = ()
    evidence: tuple[Interval, ...] = ()
    num_frames: int
    fps: float
    duration_seconds: float
    num_prompt_tokens: int = 0
    num_new_tokens: int = 0
    finish_reason: str = ""
    had_subtitles: bool = False
    watch_seconds: float = 0.0
    ask_seconds: float = 0.0
    version: str


class Failure(BaseModel):
    """A question that could not be asked."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    id: str
    video: str
    reason: str


def shard_name(name: str, shard: Shard) -> str:
    """`raw.jsonl`, or `raw-1-of-4.jsonl` for part 1 of 4."""
    k, count = shard
    stem, _, suffix = name.partition(".")
    return name if count == 1 else f"{stem}-{k}-of-{count}.{suffix}"


@contextmanager
def run_folder(out: Path, settings: RunSettings, summary: DataSummary, shard: Shard) -> Iterator[None]:
    """Hold one shard of a run's folder, which is made, or found as the same run left it. Other shards may run beside.

    Raises:
        ConfigError: `out` cannot be written, holds another run or something else.
        DataError: another process runs this shard.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        with lock_folder(out):
            _check_run(out, settings)
            remove_leftovers(out, (RUN_NAME, DATA_NAME))
            for name, value in ((RUN_NAME, settings), (DATA_NAME, summary)):
                with replacing(out / name) as temporary:
                    temporary.write_text(value.model_dump_json(indent=1) + "\n", encoding="utf-8")
        with lock_folder(out, f"{LOCK_NAME}-{shard[0]}-of-{shard[1]}"):
            yield
    except OSError as error:
        raise ConfigError(
            f"{out} cannot be written: {error.strerror or error}; use a folder you may write to"
        ) from error


def _check_run(out: Path, settings: RunSettings) -> None:
    path = out / RUN_NAME
    if path.exists():
        found = read_settings(out)
        fields = RunSettings.model_fields
        changed = [name for name in fields if getattr(found, name) != getattr(settings, name)]
        if changed:
            told = ", ".join(
                f"{name} {getattr(found, name)!r} there, {getattr(settings, name)!r} now" for name in changed
            )
            raise ConfigError(f"{out} holds a run with other settings ({told:.300}); use another folder")
    elif any(not entry.name.startswith((LOCK_NAME, RUN_NAME)) for entry in out.iterdir()):
        raise ConfigError(f"{out} is not empty and holds no run to continue; use a new or empty folder")


def read_settings(out: Path) -> RunSettings:
    """The settings of a run.

    Raises:
        DataError: they cannot be read.
    """
    return _read_object(out / RUN_NAME, RunSettings)


def read_summary(out: Path) -> DataSummary:
    """What the files of a run's benchmark hold.

    Raises:
        DataError: it cannot be read.
    """
    return _read_object(out / DATA_NAME, DataSummary)


def _read_object(path: Path, model: type[Model]) -> Model:
    try:
        return model.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise DataError(
            f"{path} is missing, damaged or of another version; give the folder of a benchmark's run"
        ) from error


def read_raw(out: Path) -> list[RawAnswer]:
    """The answers of all shards; an unfinished last line is skipped, and of two answers to a question the first counts.

    Raises:
        DataError: a file is damaged.
    """
    answers: dict[str, RawAnswer] = {}
    num_lines = 0
    for path in sorted(out.glob("raw*.jsonl"), key=lambda path: (path.name != RAW_NAME, path.name)):
        for answer in _lines(path, RawAnswer):
            num_lines += 1
            answers.setdefault(answer.question.id, answer)
    if num_lines > len(answers):
        _log.warning("%s: %d questions were answered twice; the first answer counts", out, num_lines - len(answers))
    return list(answers.values())


def read_failures(out: Path) -> list[Failure]:
    """The questions that the last runs could not ask.

    Raises:
        DataError: a file is damaged.
    """
    return [failure for path in sorted(out.glob("failures*.jsonl")) for failure in _lines(path, Failure)]


def _lines(path: Path, model: type[Model]) -> Iterable[Model]:
    content = path.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    for number, line in enumerate(whole.split(b"\n")[:-1], 1):
        try:
            yield model.model_validate_json(line)
        except ValidationError as error:
            raise DataError(
                f"{path}, line {number} is damaged or of another version; remove the line to ask again"
            ) from error
