"""HourVideo: questions with five options about egocentric videos of 20 minutes to 2 hours.

Files of the hub's `HourVideo/HourVideo`: `v1.0_release/json/dev_v1.0_annotations.json` (50 videos, with answers) and
`test_v1.0.json` (500, scored on a server only). The videos are Ego4D's, a source of VideoMarathon: check for overlap
with training. Questions whose options are pictures are left out. Source: keshik6/HourVideo; no harness has it.
"""

import json
import re
from collections.abc import Mapping
from functools import partial
from typing import Any

from hourllava.choices import choice_prompt
from hourllava.errors import DataError
from hourllava.evaluation.benchmarks.benchmark import Benchmark
from hourllava.evaluation.benchmarks.building import TableBuilder, gold_of_letter, number_of, text_of
from hourllava.evaluation.benchmarks.folder import DataFolder
from hourllava.evaluation.benchmarks.protocols import PLAIN, Prompt, Protocol, Said, by_name
from hourllava.evaluation.benchmarks.questions import Question, QuestionTable
from hourllava.evaluation.benchmarks.rules import harness_rules, with_likelihood
from hourllava.evaluation.intervals import Interval

NAME = "hourvideo"
PICTURES = "its options are pictures"
_PICTURE_TASKS = ("reasoning/spatial/layout",)
_PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg")
_PREDICTIVE = "reasoning/predictive"  # such a question is about the video up to its time
_STRETCH = re.compile(r"(\d+):(\d\d):(\d\d)(?:\s*-\s*(\d+):(\d\d):(\d\d))?")
_FILES = {"dev": ("dev_v1.0_annotations.json", "dev_v*.json"), "test": ("test_v1.0.json", "test_v*.json")}


def read(folder: DataFolder, split: str) -> QuestionTable:
    """The questions of a download: `dev`, or `test`, whose answers are not public."""
    files = folder.find(*_FILES[split])[:1]
    builder = TableBuilder(
        folder, NAME, split, files, f"download v1.0_release/json/{_FILES[split][0]} of HourVideo/HourVideo"
    )
    for uid, entry in _entries(folder, files[0]).items():
        rows = entry.get("benchmark_dataset") if isinstance(entry, Mapping) else None
        if not isinstance(rows, list):
            builder.problems.add("a video has no benchmark_dataset", uid)
            continue
        seconds = number_of(entry.get("video_metadata") or {}, "duration_in_seconds")
        for number, row in enumerate(rows, 1):
            builder.read(row, f"{uid}, question {number}", partial(_add, builder, uid, seconds))
    return builder.table()


def _entries(folder: DataFolder, path: str) -> Mapping[str, Any]:
    try:
        entries = json.loads((folder.root / path).read_bytes())
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read ({error}); download it again") from error
    if not isinstance(entries, dict):
        raise DataError(f"{path} is no object with a video per name; download it again")
    return entries


def _add(builder: TableBuilder, uid: str, seconds: float | None, row: Mapping[str, Any]) -> None:
    question_id, task, asked = text_of(row, "qid"), text_of(row, "task"), text_of(row, "question")
    options = tuple(text_of(row, f"answer_{k}") for k in range(1, 6))
    if task.endswith("_image") or task in _PICTURE_TASKS or all(map(_is_picture, options)):
        builder.leave_out(PICTURES)
        return
    moments, end = _moments(row.get("relevant_timestamps")), None
    if task == _PREDICTIVE:
        if not moments or moments[0][0] <= 0:
            raise ValueError("a predictive question without the time up to which the video is shown")
        end, moments = moments[0][0], ()
    gold = row.get("correct_answer_label")
    builder.add(
        question_id,
        video=uid,
        file=builder.folder.video(uid, builder.problems),
        end_seconds=end,
        text=asked,
        lines=options,
        question=asked,
        options=options,
        gold=gold,
        gold_index=gold_of_letter(gold, len(options), builder.problems, question_id),
        groups={"task": (task,), "suite": (task.partition("/")[0],)},
        duration_seconds=seconds,
        moments=moments,
    )


def _is_picture(option: str) -> bool:
    return option.lower().endswith(_PICTURE_SUFFIXES)


def _moments(cell: Any) -> tuple[Interval, ...]:
    """Stretches written `HH:MM:SS-HH:MM:SS`, one or several."""
    texts = cell if isinstance(cell, list) else [cell]
    found = []
    for match in (match for text in texts if isinstance(text, str) for match in _STRETCH.finditer(text)):
        start, end = (match.groups()[k : k + 3] for k in (0, 3))
        found.append((_seconds(start), _seconds(end if end[0] is not None else start)))
    return tuple(found)


def _seconds(clock: tuple[str, ...]) -> float:
    hours, minutes, seconds = map(int, clock)
    return float(hours * 3600 + minutes * 60 + seconds)


def _plain(question: Question, said: Said) -> Prompt:
    return Prompt(choice_prompt(question.question, question.options))


BENCHMARK = Benchmark(
    name=NAME,
    title="HourVideo",
    read=read,
    splits=("dev", "test"),
    protocols=by_name(
        Protocol(
            PLAIN, _plain, PLAIN,
            note="Our own: question, options, and the instruction to answer with the letter; one question at a time, "
            "while the authors ask all questions of a task in one prompt.",
        )
    ),
    rules=with_likelihood({**(rules := harness_rules(None)), PLAIN: rules["lmms-eval-0.7.2"]}),
    default_protocol=PLAIN,
    axes={"suite": "By suite", "task": "By task"},
    macro_axis="task",
    counts={"dev": (1182, 50), "test": (12976, 500)},
    advice="No harness has it: quote plain with its wording, and do not compare it with the authors' tables.",
)  # fmt: skip
