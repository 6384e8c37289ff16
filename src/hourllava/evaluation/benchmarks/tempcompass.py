"""TempCompass: 7,540 questions about 410 short clips, four tasks, each about five aspects of time.

Files: `questions/*.json` of llyx97/TempCompass, an object per task `{video: {aspect: [questions]}}`, or the parquets of
the hub's `lmms-lab/TempCompass`, a folder per task; `meta_info.json` adds finer aspects. Captioning needs a judge.
Source: llyx97/TempCompass, lmms-eval `tasks/tempcompass`.
"""

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import PurePosixPath
from typing import Any

from hourllava.choices import LETTERS
from hourllava.errors import DataError
from hourllava.evaluation.benchmarks.benchmark import Benchmark, Published
from hourllava.evaluation.benchmarks.building import NO_GOLD_OPTION, TableBuilder, split_text, text_of
from hourllava.evaluation.benchmarks.folder import DataFolder
from hourllava.evaluation.benchmarks.protocols import (
    HARNESS,
    HARNESS_STOP,
    OFFICIAL,
    OLD_HARNESS,
    Prompt,
    Protocol,
    Said,
    by_name,
)
from hourllava.evaluation.benchmarks.questions import Kind, Question, QuestionTable
from hourllava.evaluation.benchmarks.rules import Judge, Rule, of_harness, with_likelihood
from hourllava.evaluation.benchmarks.tempcompass_rules import (
    harness_judge_request,
    judge_request,
    judge_says,
    match,
    match_stripped,
)

NAME = "tempcompass"
KINDS: dict[str, Kind] = {
    "multi-choice": "choice",
    "yes_no": "yes_no",
    "caption_matching": "caption_matching",
    "captioning": "captioning",
}
_POST_PROMPTS: dict[Kind, str] = {
    "choice": "\nPlease directly give the best option:",
    "caption_matching": "\nPlease directly give the best option:",
    "yes_no": "\nPlease answer yes or no:",
    "captioning": "",  # the question ends with "Generated Caption:"
}
_NO_JUDGE_QUESTION = "a caption without the multiple-choice question that its judge needs"


def read(folder: DataFolder, split: str) -> QuestionTable:
    """The questions of a download, all four tasks; a task whose file is missing is a problem."""
    files = {}
    for task in KINDS:
        found = folder.find(f"questions/{task}.json") or folder.find(f"{task}/*.parquet")
        if found:
            files[task] = found[0]
    builder = TableBuilder(folder, NAME, split, list(files.values()), "download questions/*.json of llyx97/TempCompass")
    for task in KINDS.keys() - files.keys():
        builder.problems.add("a task's questions are missing", task)
    fine = _fine_aspects(folder)
    rows = {task: list(_rows(folder, path, builder)) for task, path in files.items()}
    first_choice: dict[tuple[str, str], Mapping[str, Any]] = {}
    for row in rows.get("multi-choice", ()):
        first_choice.setdefault((str(row.get("video_id")), str(row.get("dim"))), row)
    numbers: Counter[str] = Counter()
    for task, found_rows in rows.items():
        for number, row in enumerate(found_rows, 1):
            builder.read(
                row, f"{files[task]}, question {number}", partial(_add, builder, task, fine, first_choice, numbers)
            )
    return builder.table()


def _rows(folder: DataFolder, path: str, builder: TableBuilder) -> Iterator[Mapping[str, Any]]:
    """The rows of a task, in the hub's columns."""
    if not path.endswith(".json"):
        yield from folder.rows(path, builder.problems)
        return
    for video, aspects in _object(folder, path).items():
        for aspect, asked in (aspects or {}).items():
            for one in asked or ():
                yield {**one, "video_id": video, "dim": aspect}


def _object(folder: DataFolder, path: str) -> dict[str, Any]:
    try:
        found = json.loads((folder.root / path).read_bytes())
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read ({error}); download it again") from error
    if not isinstance(found, dict):
        raise DataError(f"{path} is no object with a video per name; download it again")
    return found


def _fine_aspects(folder: DataFolder) -> dict[tuple[str, str], str]:
    """(video, aspect) -> finer aspect, from `meta_info.json`, if it is there."""
    fine = {}
    for path in folder.find("meta_info.json")[:1]:
        for video, entry in _object(folder, path).items():
            for aspect, cell in (entry.get("eval_dim") or {}).items():
                if isinstance(cell, dict) and isinstance(cell.get("type"), str):
                    fine[video, aspect] = cell["type"]
    return fine


def _add(
    builder: TableBuilder,
    task: str,
    fine: Mapping[tuple[str, str], str],
    first_choice: Mapping[tuple[str, str], Mapping[str, Any]],
    numbers: Counter[str],
    row: Mapping[str, Any],
) -> None:
    kind, text = KINDS[task], text_of(row, "question")
    video, aspect = text_of(row, "video_id"), text_of(row, "dim")
    video = PurePosixPath(video).name.removesuffix(".mp4").removesuffix(".jpg")
    key = f"{task}/{video}/{aspect}"
    numbers[key] += 1
    question_id = f"{key}/{numbers[key]}"
    judged = row if row.get("mc_question") else first_choice.get((video, aspect), {})
    gold = str(row["answer"]) if row.get("answer") else None
    question, options = _parts(kind, text, builder, question_id)
    if kind == "captioning" and not judged:
        builder.problems.add(_NO_JUDGE_QUESTION, question_id)
    groups = {"task": task, "aspect": f"{task}: {aspect}"}
    groups |= {"fine": f"{task}: {fine.get((video, aspect), aspect)}"} if fine else {}
    builder.add(
        question_id,
        video=video,
        file=builder.folder.video(video, builder.problems),
        kind=kind,
        text=text,
        question=question,
        options=options,
        gold=gold,
        gold_index=_gold_index(kind, gold, options, builder, question_id),
        groups={axis: (group,) for axis, group in groups.items()},
        judge_question=str(judged.get("mc_question") or judged.get("question") or "") if kind == "captioning" else "",
        judge_answer=str(judged.get("mc_answer") or judged.get("answer") or "") if kind == "captioning" else "",
    )


def _parts(kind: Kind, text: str, builder: TableBuilder, question_id: str) -> tuple[str, tuple[str, ...]]:
    """The question and its options."""
    if kind == "choice":
        return split_text(text, builder.problems, question_id)
    if kind == "yes_no":
        return text, ("yes", "no")
    if kind == "caption_matching":
        asked, *options = text.split("\n")
        return asked, tuple(option.partition(": ")[2] or option for option in options)
    return text, ()


def _gold_index(
    kind: Kind, gold: str | None, options: tuple[str, ...], builder: TableBuilder, question_id: str
) -> int | None:
    if gold is None or kind == "captioning":
        return None
    gold = gold.strip()
    if kind == "choice":
        index = LETTERS.find(gold[:1])
    else:
        wanted = gold if kind == "yes_no" else gold.partition(": ")[2] or gold
        index = options.index(wanted) if wanted in options else -1
    if not 0 <= index < (len(options) or 4):
        builder.problems.add(NO_GOLD_OPTION, question_id)
        return None
    return index


def _prompt(question: Question, said: Said) -> Prompt:
    return Prompt(question.text + _POST_PROMPTS[question.kind])


def _needs_judge(question: Question) -> bool:
    return question.kind == "captioning"


_UNMATCHED = "An answer that no rule reads goes to the judge; without one it is wrong. Captions need the judge."
_HARNESS_RULE = Rule(match, judge=Judge(harness_judge_request, judge_says, _needs_judge), note=_UNMATCHED)
_OURS = ("without", "1 frame a second; which tasks and how they are averaged is not known", "arXiv 2506.05332")

BENCHMARK = Benchmark(
    name=NAME,
    title="TempCompass",
    read=read,
    splits=("test",),
    protocols=by_name(
        Protocol(OFFICIAL, _prompt, OFFICIAL, 128),
        Protocol(HARNESS, _prompt, HARNESS, 128, stop=HARNESS_STOP),
        Protocol(OLD_HARNESS, _prompt, OLD_HARNESS, 128, stop=HARNESS_STOP, note="The same as in 0.7.2."),
    ),
    rules=with_likelihood(
        {
            OFFICIAL: Rule(match_stripped, judge=Judge(judge_request, judge_says, _needs_judge), note=_UNMATCHED),
            HARNESS: of_harness(_HARNESS_RULE),
            OLD_HARNESS: _HARNESS_RULE,
        }
    ),
    default_protocol=OFFICIAL,
    axes={"task": "By task", "aspect": "By aspect", "fine": "By finer aspect"},
    counts={"test": (7540, 410)},
    figures=(
        Published("Hour-LLaVA-3B", "all", "63.6", *_OURS),
        Published("Hour-LLaVA-7B", "all", "68.1", *_OURS),
    ),
    advice="Quote official, a figure per task: there is no official mean over tasks. Name the judge of the captions.",
)
