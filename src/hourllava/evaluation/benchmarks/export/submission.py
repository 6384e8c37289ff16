"""The files that the benchmarks' own scripts and leaderboards take.

| benchmark | file | what it holds |
|---|---|---|
| Video-MME | `video-mme.json` | videos with their questions, and the model's text as `response` |
| TempCompass | a file per task | `{video: {aspect: [{question, answer, prediction}]}}` |
| LongVideoBench | `longvideobench.json` | `{id: text}` |
| LVBench | `lvbench.json` | `{uid: letter}` |
| MLVU | `mlvu.json` | `[{question_id, question_type, option}]` |
| EgoSchema | `egoschema.json` | `{q_uid: 0-4}` |

Where a file has letters, they are those that the rule read; an answer that it cannot read is left out of LVBench's file
(its script leaves such questions out of the denominator), "" in MLVU's, and -1 in EgoSchema's.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from hourllava.choices import LETTERS
from hourllava.evaluation.benchmarks.scoring import Scored

Files = dict[str, Any]


def _video_mme(scored: Sequence[Scored]) -> Files:
    videos: dict[str, dict[str, Any]] = {}
    for one in scored:
        question = one.question
        groups = {axis: groups[0] for axis, groups in question.groups.items()}
        task = groups.pop("task_type", "")
        number = question.id.partition("-")[0]  # "001-1" is the first question about video 001
        video = videos.setdefault(question.video, {"video_id": number, **groups, "questions": []})
        video["questions"].append(
            {
                "question_id": question.id, "task_type": task, "question": question.text,
                "options": list(question.lines), "answer": question.gold, "response": one.raw.output,
            }
        )  # fmt: skip
    return {"video-mme.json": list(videos.values())}


def _tempcompass(scored: Sequence[Scored]) -> Files:
    files: dict[str, dict[str, dict[str, list[dict[str, Any]]]]] = {}
    for one in scored:
        question = one.question
        aspect = question.groups["aspect"][0].partition(": ")[2]
        videos = files.setdefault(f"{question.groups['task'][0]}.json", {})
        answers = videos.setdefault(question.video, {}).setdefault(aspect, [])
        answers.append({"question": question.text, "answer": question.gold, "prediction": one.raw.output})
    return dict(files)


def _longvideobench(scored: Sequence[Scored]) -> Files:
    return {"longvideobench.json": {one.question.id: one.raw.output for one in scored}}


def _lvbench(scored: Sequence[Scored]) -> Files:
    return {"lvbench.json": {one.question.id: one.answer for one in scored if one.answer}}


def _mlvu(scored: Sequence[Scored]) -> Files:
    return {
        "mlvu.json": [
            {
                "question_id": one.question.id,
                "question_type": one.question.groups["task"][0],
                "option": one.answer,
            }
            for one in scored
        ]
    }


def _egoschema(scored: Sequence[Scored]) -> Files:
    return {"egoschema.json": {one.question.id: LETTERS.find(one.answer) if one.answer else -1 for one in scored}}


SUBMISSIONS: Mapping[str, Callable[[Sequence[Scored]], Files]] = {
    "video-mme": _video_mme, "tempcompass": _tempcompass, "longvideobench": _longvideobench, "lvbench": _lvbench,
    "mlvu": _mlvu, "egoschema": _egoschema,
}  # fmt: skip
"""By benchmark: its files from the answers in the order of the rows."""


def submission_of(benchmark: str, scored: Sequence[Scored]) -> Files:
    """The files by name; none for a benchmark whose form is not known here."""
    if benchmark not in SUBMISSIONS:
        return {}
    return SUBMISSIONS[benchmark](sorted(scored, key=lambda one: one.question.place))
