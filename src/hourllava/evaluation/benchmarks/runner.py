"""Runs a benchmark: watches each video once, asks all questions about it, and writes each answer when it is there.

A run that was stopped continues with the next question. Several processes or machines share a run by `--shard k/N`:
each takes whole videos. What cannot be asked is listed in failures.jsonl, and tried again by the next run.
"""

import dataclasses
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence, Set
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from hourllava.errors import ConfigError, DataError, HourLlavaError, PartlyDoneError, VideoError
from hourllava.evaluation.benchmarks.asking import Asking, Result, Watched, answers_about
from hourllava.evaluation.benchmarks.building import UNREADABLE
from hourllava.evaluation.benchmarks.protocols import Protocol
from hourllava.evaluation.benchmarks.questions import Question, QuestionTable
from hourllava.evaluation.benchmarks.raw import (
    FAILURES_NAME,
    RAW_NAME,
    Failure,
    RawAnswer,
    Shard,
    read_raw,
    shard_name,
)
from hourllava.files import cut_unfinished_line
from hourllava.inference.engine import HourLlava
from hourllava.inference.memories.cache import MemoryCache

NEEDS_OPTIONS = "it has no options, so no letter can be the likeliest"


@dataclass(frozen=True)
class Part:
    """A part of a video that is watched, and the questions about it."""

    video: str
    file: str | None
    start_seconds: float
    end_seconds: float | None
    questions: Sequence[Question]

    def without(self, done: Set[str]) -> "Part":
        """The part with the questions that have no answer yet."""
        return dataclasses.replace(self, questions=[one for one in self.questions if one.id not in done])


AnswerAll = Callable[[Sequence[Part]], Iterable[Result]]
"""Answers all questions about some parts of videos, in any order."""


@dataclass
class Tally:
    """What a run has done so far."""

    num_questions: int = 0
    num_answered: int = 0
    num_frames: int = 0
    watch_seconds: float = 0.0
    ask_seconds: float = 0.0
    watched: set[tuple[object, ...]] = dataclasses.field(default_factory=set)
    failures: list[Failure] = dataclasses.field(default_factory=list)
    first_error: HourLlavaError | None = None

    def add_answer(self, answer: RawAnswer) -> None:
        """Count an answer, and its part of a video if it is the first about it."""
        self.num_answered += 1
        self.ask_seconds += answer.ask_seconds
        question = answer.question
        part = question.video, question.start_seconds, question.end_seconds
        if part not in self.watched and answer.num_frames:
            self.watched.add(part)
            self.num_frames += answer.num_frames
            self.watch_seconds += answer.watch_seconds

    def add_failure(self, question: Question, error: HourLlavaError) -> None:
        """Count a question that could not be asked."""
        self.failures.append(Failure(id=question.id, video=question.video, reason=str(error)))
        self.first_error = self.first_error or error

    def line(self) -> str:
        """How fast it was."""
        frames = f"{self.num_frames / self.watch_seconds:.0f} frames/s" if self.watch_seconds else "from kept memories"
        questions = f"{self.num_answered / self.ask_seconds:.2f} questions/s" if self.ask_seconds else "none asked"
        return (
            f"this run watched {len(self.watched):,} videos, {self.num_frames:,} frames ({frames}), and asked "
            f"{self.num_answered:,} questions ({questions})"
        )


def asked_by(table: QuestionTable, protocol: Protocol) -> QuestionTable:
    """The table as a protocol asks it: without the questions that it cannot ask, which are counted.

    Raises:
        ConfigError: the protocol can ask none.
    """
    if protocol.whole_file:
        whole = [question.model_copy(update={"end_seconds": None}) for question in table.questions]
        table = dataclasses.replace(table, questions=whole)
    if not protocol.is_likelihood:
        return table
    askable = [question for question in table.questions if len(question.options) > 1]
    if not askable:
        raise ConfigError(f"no question has options, which --protocol {protocol.name} needs; use another protocol")
    left_out = Counter(table.left_out)
    left_out[NEEDS_OPTIONS] += len(table.questions) - len(askable)
    return dataclasses.replace(table, questions=askable, left_out=+left_out)


def parts_of(table: QuestionTable, shard: Shard, limit: int | None) -> list[Part]:
    """The parts of videos that one shard of a run watches; all parts of a video are in one shard.

    Args:
        table: of the questions.
        shard: (k, N) for part k of N.
        limit: only the first so many videos.
    """
    videos = {video: number for number, video in enumerate(list(table.videos)[:limit])}
    parts: dict[tuple[str, str | None, float, float | None], list[Question]] = {}
    for question in table.questions:
        if videos.get(question.video, -1) % shard[1] == shard[0] and question.video in videos:
            key = question.video, question.file, question.start_seconds, question.end_seconds
            parts.setdefault(key, []).append(question)
    return [Part(*key, questions) for key, questions in parts.items()]


def ask_all_parts(answer_all: AnswerAll, parts: Sequence[Part], out: Path, *, shard: Shard) -> Tally:
    """Ask all questions that are not answered yet; answers and failures are written as they come.

    Args:
        answer_all: answers them, in any order.
        parts: from `parts_of`.
        out: the run's folder, which this process holds (`raw.run_folder`).
        shard: (k, N) for part k of N.

    Raises:
        DataError: the answers of an earlier run are damaged.
    """
    raw_path = out / shard_name(RAW_NAME, shard)
    cut_unfinished_line(raw_path)
    done = {answer.question.id for answer in read_raw(out)}
    tally = Tally(num_questions=sum(len(part.questions) for part in parts))
    num_done = sum(question.id in done for part in parts for question in part.questions)
    with (
        raw_path.open("a", encoding="utf-8") as raw,
        (out / shard_name(FAILURES_NAME, shard)).open("w", encoding="utf-8") as failures,
        tqdm(total=tally.num_questions, initial=num_done, unit="question", desc="asking", file=sys.stderr) as progress,
    ):
        for result in answer_all([part.without(done) for part in parts if part.without(done).questions]):
            progress.update(1)
            if isinstance(result, RawAnswer):
                tally.add_answer(result)
                raw.write(result.model_dump_json() + "\n")
                raw.flush()
                continue
            question, error = result
            if not tally.failures or tally.failures[-1].reason != str(error):  # a video's questions fail for one reason
                progress.write(f"failed: {question.id}: {error}", file=sys.stderr)
            tally.add_failure(question, error)
            failures.write(tally.failures[-1].model_dump_json() + "\n")
            failures.flush()
    return tally


def answers_of_model(
    engine: HourLlava, data: Path, asking: Asking, cache: MemoryCache | None, parts: Iterable[Part]
) -> Iterator[Result]:
    """Watch each part of a video once, and answer the questions about it.

    Args:
        engine: the model, as `engine_for` gives it.
        data: the benchmark's data folder.
        asking: how the questions are asked.
        cache: of memories; None watches every video.
        parts: one after the other.
    """
    for part in parts:
        try:
            watched = _watched(engine, data, asking, cache, part)
        except (DataError, VideoError) as error:
            for question in part.questions:
                yield question, error
        else:
            yield from answers_about(engine, watched, part.questions, data, asking)


def _watched(engine: HourLlava, data: Path, asking: Asking, cache: MemoryCache | None, part: Part) -> Watched:
    if asking.condition == "blind":
        return Watched(None, data, 0.0)
    if part.file is None:
        raise DataError(f"the video {part.video} is missing")
    path = data / part.file
    start = time.perf_counter()
    memory = engine.watch(
        path, start_seconds=part.start_seconds, end_seconds=part.end_seconds, cache=cache, progress=False
    )
    return Watched(memory, path, time.perf_counter() - start)


def check_outcome(tally: Tally, table: QuestionTable, num_answers: int, out: Path, shard: Shard) -> None:
    """Say that some questions failed, or all.

    Raises:
        PartlyDoneError: some failed, or rows of the files could not be read.
        DataError, VideoError, InputError: all failed; the class is that of the first.
    """
    if tally.first_error is not None:
        path = out / shard_name(FAILURES_NAME, shard)
        videos = len({failure.video for failure in tally.failures})
        message = (
            f"{len(tally.failures):,} of {tally.num_questions:,} questions, about {videos:,} videos, could not be "
            f"asked and are listed in {path}. The first reason: {tally.failures[0].reason}"
        )
        raise PartlyDoneError(message) if num_answers else type(tally.first_error)(message)
    if unreadable := table.left_out.get(UNREADABLE, 0):
        raise PartlyDoneError(
            f"{unreadable:,} rows of {', '.join(table.annotations)} cannot be read and were not asked"
        )
