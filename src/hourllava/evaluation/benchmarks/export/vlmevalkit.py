"""Tables for VLMEvalKit: `MODEL_DATASET.tsv`, which `run.py --mode eval` scores without a model.

    PRED_FORMAT=tsv python run.py --mode eval --data Video-MME_1fps --model MODEL --work-dir ...

`index` is a row's place in the annotation files; VLMEvalKit numbers the rows of the hub's files in the same way. Its
scoring of MLVU reads .xlsx only: save the table as such. It has no LVBench, EgoSchema and HourVideo. Its CG-Bench asks
for answers in JSON, which no protocol here does.
"""

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from hourllava.evaluation.benchmarks.questions import Question
from hourllava.evaluation.benchmarks.raw import DataSummary
from hourllava.evaluation.benchmarks.scoring import Scored

Row = dict[str, Any]


def _group(question: Question, axis: str) -> str:
    return question.groups.get(axis, ("",))[0]


def _video_mme(question: Question) -> tuple[str, Row]:
    axes = ("duration", "domain", "sub_category", "task_type")
    return "Video-MME", {
        "video": question.video, "video_path": f"./video/{question.video}.mp4", "candidates": list(question.lines),
        "subtitle_path": f"./subtitle/{question.video}.srt", "question": question.text, "answer": question.gold,
        **{axis: _group(question, axis) for axis in axes},
    }  # fmt: skip


def _longvideobench(question: Question) -> tuple[str, Row]:
    return "LongVideoBench", {
        "video": question.video, "video_path": f"./videos/{question.video}.mp4", "id": question.id,
        "question": question.text, "candidates": list(question.options), "correct_choice": question.gold_index,
        "duration": question.duration_seconds, "duration_group": _group(question, "duration"),
        "question_category": _group(question, "category"), "topic_category": _group(question, "topic"),
        "level": _group(question, "level"),
    }  # fmt: skip


def _mlvu(question: Question) -> tuple[str, Row]:
    answer = question.gold if question.gold_index is None else question.options[question.gold_index]
    return "MLVU_MCQ", {
        "task_type": _group(question, "task"), "duration": question.duration_seconds, "video": f"{question.video}.mp4",
        "question": question.question, "answer": answer, "candidates": list(question.options),
    }  # fmt: skip


_COMPASS = {
    "choice": "TempCompass_MCQ", "caption_matching": "TempCompass_MCQ", "yes_no": "TempCompass_YorN",
    "captioning": "TempCompass_Captioning",
}  # fmt: skip


def _tempcompass(question: Question) -> tuple[str, Row]:
    row: Row = {
        "task_type": _group(question, "task"), "video": question.video, "question": question.text,
        "answer": question.gold, "dim": _group(question, "aspect").partition(": ")[2],
    }  # fmt: skip
    if _COMPASS[question.kind] == "TempCompass_MCQ":
        row["question"], *row["candidates"] = question.text.split("\n")
    if question.kind == "captioning":
        row |= {"mc_question": question.judge_question, "mc_answer": question.judge_answer}
    return _COMPASS[question.kind], row


ROWS: Mapping[str, Callable[[Question], tuple[str, Row]]] = {
    "video-mme": _video_mme, "longvideobench": _longvideobench, "mlvu": _mlvu, "tempcompass": _tempcompass,
}  # fmt: skip
"""By benchmark: VLMEvalKit's data set of a question, and its columns."""


def tables_of(benchmark: str, model: str, scored: Sequence[Scored], summary: DataSummary) -> dict[str, str]:
    """The tables by file name; none for a benchmark that VLMEvalKit lacks."""
    tables: dict[str, list[Row]] = {}
    if benchmark not in ROWS:
        return {}
    shifts = _shifts(summary) if benchmark == "tempcompass" else {}
    for one in sorted(scored, key=lambda one: one.question.place):
        data_set, row = ROWS[benchmark](one.question)
        index = one.question.place - shifts.get(_group(one.question, "task"), 0)
        tables.setdefault(data_set, []).append({"index": index, **row, "prediction": one.raw.output})
    name = model.replace("/", "_")
    return {f"{name}_{data_set}.tsv": _tsv(rows) for data_set, rows in tables.items()}


def _shifts(summary: DataSummary) -> dict[str, int]:
    """What to subtract from places in our table, which holds TempCompass's four tasks one after the other.

    VLMEvalKit has captions after multiple choice in one data set, and the two other tasks each in its own.
    """
    firsts = summary.first_places("task")
    number = summary.totals.get("task", {}).get("multi-choice", 0)
    return {task: first - number if task == "caption_matching" else first for task, first in firsts.items()}


def _tsv(rows: Sequence[Row]) -> str:
    file = io.StringIO()
    writer = csv.DictWriter(file, list(rows[0]), delimiter="\t", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue()
