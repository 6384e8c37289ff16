"""Samples as lmms-eval writes them with `--log_samples`, and its file of results.

`lmms_eval --baseline FILE` compares another model with such samples. It joins by `doc_id`, which is a row's place in
the annotation files that our run read: the same as lmms-eval's if these were the hub's files.
"""

import hashlib
import statistics
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from hourllava.evaluation.benchmarks.benchmark import Benchmark
from hourllava.evaluation.benchmarks.questions import Question
from hourllava.evaluation.benchmarks.raw import DataSummary, RunSettings
from hourllava.evaluation.benchmarks.scoring import Scored


class HarnessTask(NamedTuple):
    """A task of lmms-eval.

    Attributes:
        name: of the task; with subtitles, `said` in its place.
        metric: the name of its figure.
        is_percent: whether the figure is in percent; else it is a share.
        said: name of the task with subtitles.
    """

    name: str
    metric: str
    is_percent: bool = True
    said: str = ""


_COMPASS = {"multi-choice": "multi_choice", "yes_no": "yes_no", "caption_matching": "caption_matching",
            "captioning": "captioning"}  # fmt: skip


def _task_of_compass(question: Question) -> HarnessTask:
    return HarnessTask(f"tempcompass_{_COMPASS[question.groups['task'][0]]}", "avg_accuracy")


def _task_of_mlvu(question: Question) -> HarnessTask:
    return HarnessTask(f"mlvu_{question.groups['split'][0]}", "mlvu_percetion_score")  # so spelt there


def _always(task: HarnessTask) -> Callable[[Question], HarnessTask]:
    return lambda question: task


TASKS: dict[str, Callable[[Question], HarnessTask]] = {
    "video-mme": _always(HarnessTask("videomme", "videomme_perception_score", said="videomme_w_subtitle")),
    "tempcompass": _task_of_compass,
    "longvideobench": _always(
        HarnessTask("longvideobench_val_v", "lvb_acc", is_percent=False, said="longvideobench_val_i")
    ),
    "lvbench": _always(HarnessTask("lvbench", "lvbench_score", is_percent=False)),
    "mlvu": _task_of_mlvu,
    "egoschema": _always(HarnessTask("egoschema_subset", "score", is_percent=False)),
    "cg-bench": _always(HarnessTask("cgbench", "cgbench_accuracy", said="cgbench_subtitles")),
}
"""By benchmark, the task of lmms-eval that asks a question. The others are in no released lmms-eval."""


def task_name(benchmark: str, question: Question, *, subtitles: bool) -> str:
    """The name of the task that asks a question; a benchmark that lmms-eval lacks is a task of its own name."""
    if benchmark not in TASKS:
        return benchmark.replace("-", "_")
    task = TASKS[benchmark](question)
    return task.said if subtitles and task.said else task.name


def samples_of(
    settings: RunSettings, scored: Sequence[Scored], summary: DataSummary
) -> dict[str, list[dict[str, Any]]]:
    """The samples by task, in the order of the rows."""
    tasks: dict[str, list[dict[str, Any]]] = {}
    # Its four tasks have a file each, which our table holds one after the other.
    firsts = summary.first_places("task") if settings.benchmark == "tempcompass" else {}
    for one in sorted(scored, key=lambda one: one.question.place):
        name = task_name(settings.benchmark, one.question, subtitles=settings.subtitles)
        first = firsts.get(one.question.groups.get("task", ("",))[0], 0)
        tasks.setdefault(name, []).append(_sample(one, _task_of(settings, one).metric, one.question.place - first))
    return tasks


def _task_of(settings: RunSettings, one: Scored) -> HarnessTask:
    if settings.benchmark in TASKS:
        return TASKS[settings.benchmark](one.question)
    return HarnessTask(task_name(settings.benchmark, one.question, subtitles=settings.subtitles), "accuracy")


def _sample(one: Scored, metric: str, place: int) -> dict[str, Any]:
    question, raw = one.question, one.raw
    score = None if one.right is None else float(one.right)
    groups = {axis: groups[0] if len(groups) == 1 else list(groups) for axis, groups in question.groups.items()}
    verdict = {
        "question_id": question.id, "video": question.video, **groups, "pred_answer": one.answer,
        "answer": question.gold_letter or question.gold, "score": score,
    }  # fmt: skip
    return {
        "doc_id": place, "score": score, "target": question.gold, "filtered_resps": raw.output,
        "token_counts": [{"input_tokens": raw.num_prompt_tokens, "output_tokens": raw.num_new_tokens}],
        "doc_hash": hashlib.sha256(question.model_dump_json().encode()).hexdigest(), metric: verdict,
        "input": raw.prompt,
    }  # fmt: skip


def results_of(benchmark: Benchmark, settings: RunSettings, scored: Sequence[Scored]) -> dict[str, Any]:
    """The file of results: the figure of each task over its scored questions, on the scale that the task has."""
    asked: dict[str, list[Scored]] = {}
    for one in scored:
        asked.setdefault(task_name(settings.benchmark, one.question, subtitles=settings.subtitles), []).append(one)
    results = {}
    for name, some in asked.items():
        task = _task_of(settings, some[0])
        share = _share(some, benchmark.macro_axis if benchmark.headline == "macro" else None)
        figure = share * 100 if share is not None and task.is_percent else share
        results[name] = {"alias": name, f"{task.metric},none": figure}
    return {
        "results": results,
        "n-samples": {name: {"original": len(some), "effective": len(some)} for name, some in asked.items()},
        "config": {"model": "hourllava", "model_args": f"model={settings.model}", "run": settings.model_dump()},
    }


def _share(some: Sequence[Scored], axis: str | None) -> float | None:
    """The share of right answers; with an axis, the mean of its groups' shares."""
    groups: dict[str, list[bool]] = {}
    for one in some:
        if one.right is not None:
            groups.setdefault(one.question.groups.get(axis or "", ("",))[0], []).append(one.right)
    return statistics.fmean(statistics.fmean(hits) for hits in groups.values()) if groups else None
