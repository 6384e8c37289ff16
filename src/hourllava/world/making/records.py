"""All text about one video: training records, question rows, captions.

A worker process makes all of it, as lines of JSON and as an Arrow table. For a video with 31 questions a worker needs
7 ms; the process that writes the files then needs 0.2 ms, and 0.5 ms more for the tables.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hourllava.data.records.models import QuestionRow, joined_record, record_line, training_record
from hourllava.data.records.writing import question_table
from hourllava.world.captions import Captions, generate_captions
from hourllava.world.questions import BUILDERS, FORMATS, generate_questions
from hourllava.world.questions.descriptions import description_exchanges
from hourllava.world.questions.draft import Format
from hourllava.world.rng import Draws
from hourllava.world.script import Script

SOURCE = "marathonworld"


@dataclass(frozen=True)
class Described:
    """The text about a video; without tables, `table` is None and `caption_line` empty."""

    record_lines: list[str]
    table: Any = None  # pyarrow.Table of question rows
    caption_line: str = ""


def describe_video(
    script: Script, video: str, *, per_task: int, tasks: tuple[str, ...], formats: tuple[Format, ...],
    questions_per_record: int, num_descriptions: int, tables: bool,
) -> Described:  # fmt: skip
    """Make the questions and captions of a video.

    Args:
        script: the video's script.
        video: the video's path below `videos/`.
        per_task, tasks, formats: as in `generate_questions`.
        questions_per_record: maximum number of exchanges in a training record.
        num_descriptions: maximum number of exchanges whose answers are captions; only records contain them.
        tables: whether to make the table and the captions.
    """
    questions = list(question_rows(script, video, per_task, formats, tasks))
    if not tables and not num_descriptions:
        return Described(_record_lines(script, video, questions, questions_per_record))
    captions = generate_captions(script)
    descriptions = _description_rows(script, captions, video, num_descriptions)
    lines = _record_lines(script, video, [*questions, *descriptions], questions_per_record)
    if not tables:
        return Described(lines)
    start = f'{{"video":"{video}","duration_seconds":{script.duration_seconds},'
    return Described(lines, question_table(questions), f"{start}{captions.model_dump_json()[1:]}\n")


def question_rows(
    script: Script,
    video: str,
    per_task: int,
    formats: tuple[Format, ...] = FORMATS,
    tasks: tuple[str, ...] = tuple(BUILDERS),
) -> Iterator[QuestionRow]:
    """A video's questions as question rows; `video` is its path below `videos/`."""
    for number, question in enumerate(generate_questions(script, per_task=per_task, tasks=tasks, formats=formats)):
        yield QuestionRow(
            question_id=f"{_name_of(video)}-{number:03}",
            video=video,
            data_source=SOURCE,
            duration_seconds=script.duration_seconds,
            split=script.split,
            **question.model_dump(),
        )


def _description_rows(script: Script, captions: Captions, video: str, count: int) -> Iterator[QuestionRow]:
    for number, exchange in enumerate(description_exchanges(script, captions, count)):
        yield QuestionRow(
            question_id=f"{_name_of(video)}-description-{number}",
            video=video,
            data_source=SOURCE,
            format="open",
            question=exchange.question,
            answer=exchange.answer,
        )


def _record_lines(script: Script, video: str, rows: list[QuestionRow], max_questions: int) -> list[str]:
    """The training records. Questions are dealt to records like cards, so that each record mixes tasks."""
    if max_questions == 1:
        return [record_line(training_record(row)) for row in rows]
    count = -(-len(rows) // max_questions)
    shuffled = Draws("records", script.split, script.seed, script.duration_seconds).shuffled(rows)
    return [record_line(joined_record(f"{_name_of(video)}-{k:03}", shuffled[k::count])) for k in range(count)]


def _name_of(video: str) -> str:
    return Path(video).name.partition(".")[0]
