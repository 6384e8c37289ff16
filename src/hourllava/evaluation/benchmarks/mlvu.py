"""MLVU: multiple choice about videos of 3 minutes to 2 hours, in 7 tasks (dev) or 9 (test).

Files: the authors' `json/*.json` (the answer is a text) with a folder of videos per task, or the parquet of
`sy1998/MLVU_dev` and `sy1998/MLVU_Test` (options in the question, the answer is a letter), all videos in one folder.
The two tasks that are answered freely need a judge whose prompt is not published here, so they are left out.
Source: JUNJIE99/MLVU, lmms-eval `tasks/mlvu`.
"""

from collections import Counter
from collections.abc import Mapping
from functools import partial
from pathlib import PurePosixPath
from typing import Any

from hourllava.evaluation.benchmarks.benchmark import Benchmark, Published
from hourllava.evaluation.benchmarks.building import (
    NO_GOLD_OPTION,
    TableBuilder,
    gold_of_letter,
    number_of,
    split_text,
    text_of,
    texts_of,
)
from hourllava.evaluation.benchmarks.folder import DataFolder
from hourllava.evaluation.benchmarks.letters import before_bracket
from hourllava.evaluation.benchmarks.protocols import (
    HARNESS,
    HARNESS_STOP,
    OFFICIAL,
    OLD_HARNESS,
    Prompt,
    Protocol,
    Said,
    by_name,
    lettered,
)
from hourllava.evaluation.benchmarks.questions import Problems, Question, QuestionTable
from hourllava.evaluation.benchmarks.rules import harness_rules, letter_rule, with_likelihood

NAME = "mlvu"
_GENERATION = ("8_sub_scene", "9_summary")
_FREELY = "answered freely and scored by a judge whose prompt is not published here"
_MAX_BELIEVED_SECONDS = 3 * 3600.0
_TASKS = {"findNeedle": "needle"}  # a task's name in the rows -> in the folders and in lmms-eval
_SYSTEM = (
    "Carefully watch this video and pay attention to every detail. Based on your observations, select the best option "
    "that accurately addresses the question."
)
_ONLY = "\nOnly give the best option."


def read(folder: DataFolder, split: str) -> QuestionTable:
    """The questions of a download: `dev` or `test`."""
    files, hub = _files(folder, split)
    builder = TableBuilder(folder, NAME, split, files, f"download sy1998/{hub} or the authors' json folder")
    numbers: Counter[str] = Counter()
    for path in files:
        name = PurePosixPath(path)
        task_folder = name.stem if split == "dev" and name.suffix == ".json" else ""
        for number, row in enumerate(folder.rows(path, builder.problems), 1):
            if task_folder in _GENERATION:
                builder.leave_out(_FREELY)
            else:
                builder.read(row, f"{path}, row {number}", partial(_add, builder, task_folder, split, numbers))
    return builder.table()


def _files(folder: DataFolder, split: str) -> tuple[list[str], str]:
    """The annotation files, and the hub's name of the split. The authors' files come before re-packed ones."""
    hub, other = ("MLVU_dev", "MLVU_Test") if split == "dev" else ("MLVU_Test", "MLVU_dev")
    if split == "dev":  # a clone of the repository and the hub's folder may lie side by side
        own = list({PurePosixPath(path).name: path for path in reversed(folder.find("[1-9]_*.json"))}.values())
    else:
        own = folder.find("test_question.json", "test_multi_choice*.json")[:1]
    packed = [path for path in folder.find("test-*.parquet") if other not in path]
    return sorted(own) or packed[:1], hub


def _add(builder: TableBuilder, task_folder: str, split: str, numbers: Counter[str], row: Mapping[str, Any]) -> None:
    task = task_folder.partition("_")[2] or text_of(row, "task_type", "question_type")
    task = _TASKS.get(task, task)
    name = text_of(row, "video_name", "video")
    video = PurePosixPath(name).stem
    numbers[f"{task}/{video}"] += 1
    question_id = str(row.get("question_id") or f"{task}/{video}/{numbers[f'{task}/{video}']}")
    published = text_of(row, "question")
    if row.get("video_name"):  # re-packed: options inside, the answer is a letter
        text = published
        question, options = split_text(text, builder.problems, question_id)
        gold_index = gold_of_letter(row.get("answer"), len(options) or 6, builder.problems, question_id)
    else:
        question, options = published, texts_of(row, "candidates")
        text = f"{question}\n{lettered(options, '({}) {}')}"
        gold_index = _gold_of_text(row.get("answer"), options, builder.problems, question_id)
    if len(set(options)) < len(options):
        builder.problems.add("an option is there twice; the published letter alone counts", question_id)
    duration = number_of(row, "duration")
    if duration is not None and duration > _MAX_BELIEVED_SECONDS:
        builder.problems.add("a listed length is over three hours; the file's own counts", f"{name}: {duration:.0f} s")
    builder.add(
        question_id,
        video=video,
        file=builder.folder.video(f"{task_folder}/{name}" if task_folder else name, builder.problems),
        text=text,
        question=question,
        options=options,
        gold=row.get("answer"),
        gold_index=gold_index,
        groups={"task": (task,), "split": (split,)},
        duration_seconds=duration,
    )


def _gold_of_text(gold: str | None, options: tuple[str, ...], problems: Problems, example: str) -> int | None:
    """The index of the right text; of equal options, the authors' script takes the last."""
    if gold is None:
        return None
    places = [k for k, option in enumerate(options) if option == gold]
    if not places:
        problems.add(NO_GOLD_OPTION, example)
        return None
    return places[-1]


def _official(question: Question, said: Said) -> Prompt:
    asked = f"Question: {question.text}"
    if question.options:
        asked = f"Question: {question.question}\nOptions:\n{lettered(question.options, '({}) {}')}"
    return Prompt(f"{asked}{_ONLY}", system=_SYSTEM, reply="Best Option: (")


def _harness(question: Question, said: Said) -> Prompt:
    """lmms-eval's test task has no post-prompt (lmms-eval#1065)."""
    return Prompt(question.text if _is_of_test(question) else f"{question.text}{_ONLY}\nBest option: (")


def _is_of_test(question: Question) -> bool:
    return "test" in question.groups.get("split", ())


_A_TO_D = "Only A to D count, so in the test split, which has six options, E and F are always wrong."
_BRACKET = letter_rule(lambda question, output: before_bracket(output))

BENCHMARK = Benchmark(
    name=NAME,
    title="MLVU",
    read=read,
    splits=("dev", "test"),
    protocols=by_name(
        Protocol(HARNESS, _harness, HARNESS, stop=HARNESS_STOP, note=_A_TO_D),
        Protocol(OLD_HARNESS, _harness, OLD_HARNESS, stop=HARNESS_STOP),
        Protocol(
            OFFICIAL, _official, OFFICIAL,
            note="The authors' system text stands before the question, and the beginning of the reply behind it.",
        ),
    ),
    rules=with_likelihood({**harness_rules("ABCD"), OLD_HARNESS: _BRACKET, OFFICIAL: _BRACKET}),
    default_protocol=HARNESS,
    axes={"task": "By task"},
    macro_axis="task",
    headline="macro",
    counts={"dev": (2175, None), "test": (502, None)},
    figures=(
        Published("LLaVA-Video-7B", "all", "70.8", "without", "dev; its paper", "LLaVA-NeXT#432"),
        Published("LLaVA-Video-7B", "all", "67.0-68.6", "without", "dev; by users", "LLaVA-NeXT#432"),
    ),
    advice="Quote lmms-eval-0.7.2 for dev and official for test, where lmms-eval cannot score options E and F.",
)  # fmt: skip
