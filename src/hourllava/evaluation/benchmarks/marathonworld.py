"""MarathonWorld as a benchmark: a folder of `hourllava world make` in the same runner as the other benchmarks.

`hourllava eval world` makes its videos itself and has baselines; this reads `jsons/questions.parquet` of a folder that
exists, so that the same files can be given to other models.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any

from hourllava.choices import choice_prompt
from hourllava.data.records.loading import question_rows
from hourllava.data.records.models import QuestionRow
from hourllava.evaluation.benchmarks.benchmark import Benchmark
from hourllava.evaluation.benchmarks.building import TableBuilder
from hourllava.evaluation.benchmarks.folder import DataFolder
from hourllava.evaluation.benchmarks.protocols import HARNESS_STOP, PLAIN, Prompt, Protocol, Said, by_name
from hourllava.evaluation.benchmarks.questions import Question, QuestionTable
from hourllava.evaluation.benchmarks.rules import Rule, Verdict, harness_rules, with_likelihood
from hourllava.evaluation.scores import is_right, length_bin

NAME = "marathonworld"


def read(folder: DataFolder, split: str) -> QuestionTable:
    """The questions of a folder of `hourllava world make`."""
    files = folder.find("questions.parquet", "questions.jsonl")[:1]
    builder = TableBuilder(folder, NAME, split, files, "make them with hourllava world make")
    for number, row in enumerate(folder.rows(files[0], builder.problems), 1):
        builder.read(row, f"row {number}", partial(_add, builder))
    return builder.table()


def _add(builder: TableBuilder, record: Mapping[str, Any]) -> None:
    (row,), _ = question_rows(dict(record), "")
    groups = {"task": row.task, "topic": row.topic, "form": row.form, "format": row.format}
    if row.duration_seconds:
        groups["length"] = length_bin(row.duration_seconds)
    add_row(builder, row, groups)


def add_row(builder: TableBuilder, row: QuestionRow, groups: Mapping[str, str | None]) -> None:
    """Add a question of MarathonWorld to a table.

    Args:
        builder: of the table.
        row: the question.
        groups: of the question by axis; one without a group is left out.
    """
    builder.add(
        row.question_id,
        video=row.video,
        file=builder.folder.video(row.video, builder.problems),
        kind=row.format,
        text=row.question,
        lines=row.options,
        question=row.question,
        options=row.options,
        gold=row.answer,
        gold_index=row.answer_index,
        groups={axis: (group,) for axis, group in groups.items() if group},
        duration_seconds=row.duration_seconds,
        moments=row.evidence,
    )


def _plain(question: Question, said: Said) -> Prompt:
    return Prompt(choice_prompt(question.question, question.options) if question.options else question.question)


def _read_answer(question: Question, output: str) -> Verdict:
    if question.kind == "open":
        return Verdict(output, is_right(output, question.gold or ""))
    return harness_rules(None)["lmms-eval-0.7.2"].read(question, output)


PLAIN_CHOICE = Protocol(
    PLAIN, _plain, PLAIN, max_new_tokens=64, stop=HARNESS_STOP,
    note="Options are answered by letter; open-ended answers must match exactly, but for case and blanks.",
)  # fmt: skip
RULES = with_likelihood({PLAIN: Rule(_read_answer)})

BENCHMARK = Benchmark(
    name=NAME,
    title="MarathonWorld",
    read=read,
    splits=("all",),
    protocols=by_name(PLAIN_CHOICE),
    rules=RULES,
    default_protocol=PLAIN,
    axes={"format": "By format", "length": "By length", "topic": "By topic", "task": "By task", "form": "By form"},
    advice="Quote plain, with the folder's settings (marathonworld.json).",
)  # fmt: skip
