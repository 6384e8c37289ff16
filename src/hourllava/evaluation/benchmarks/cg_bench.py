"""CG-Bench: questions with five to eight options about videos of 9 to 105 minutes, with the seconds that show why.

Files of the hub's `CG-Bench/CG-Bench`: `cgbench_mini.json` (3,000 questions) and `cgbench.json` (12,129), videos in
`cg_videos_720p`, subtitles in `cg_subtitles`. Only its accuracy over the whole video is scored here; that with the clue
given, and its open-ended questions, are not. Source: CG-Bench/CG-Bench, lmms-eval `tasks/cgbench`.
"""

from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from hourllava.evaluation.benchmarks.benchmark import Benchmark
from hourllava.evaluation.benchmarks.building import TableBuilder, gold_of_letter, number_of, text_of, texts_of
from hourllava.evaluation.benchmarks.cues import Sampling, evenly_spaced, sections_at_frames, srt_sections
from hourllava.evaluation.benchmarks.folder import DataFolder
from hourllava.evaluation.benchmarks.protocols import (
    HARNESS,
    HARNESS_STOP,
    Prompt,
    Protocol,
    Said,
    by_name,
    lettered,
)
from hourllava.evaluation.benchmarks.questions import Question, QuestionTable
from hourllava.evaluation.benchmarks.rules import harness_rules, with_likelihood
from hourllava.evaluation.intervals import Interval

NAME = "cg-bench"
_HARNESS_LETTERS = "ABCDEFGHIJKLMN"
_NONE = "No subtitles available."
_FILES = {
    "mini": ("cgbench_mini.json", "*mini*/*.parquet", "*mini*.parquet"),
    "full": ("cgbench.json", "cg-bench/*.parquet"),
}


def read(folder: DataFolder, split: str) -> QuestionTable:
    """The questions of a download: `mini` or `full`."""
    own, *packed = _FILES[split]
    files = (folder.find(own) or folder.find(*packed))[:1]
    builder = TableBuilder(folder, NAME, split, files, f"download {own} of CG-Bench/CG-Bench")
    for number, row in enumerate(folder.rows(files[0], builder.problems), 1):
        builder.read(row, f"row {number}", partial(_add, builder))
    return builder.table()


def _add(builder: TableBuilder, row: Mapping[str, Any]) -> None:
    question_id, video, asked = text_of(row, "qid"), text_of(row, "video_uid"), text_of(row, "question")
    options = texts_of(row, "choices")
    gold = row.get("right_answer")
    builder.add(
        question_id,
        video=video,
        file=builder.folder.video(video, builder.problems),
        subtitles=builder.folder.subtitles(video),
        text=asked,
        lines=options,
        question=asked,
        options=options,
        gold=gold,
        gold_index=gold_of_letter(gold, len(options), builder.problems, question_id),
        groups={axis: (str(row[axis]),) for axis in ("domain", "sub_category") if row.get(axis)},
        duration_seconds=number_of(row, "duration"),
        moments=_moments(row.get("clue_intervals"), builder, question_id),
    )


def _moments(cell: Any, builder: TableBuilder, question_id: str) -> tuple[Interval, ...]:
    if not cell:
        return ()
    try:
        return tuple((float(start), float(end)) for start, end in _pairs(cell))
    except (TypeError, ValueError):
        builder.problems.add("clue_intervals are no pairs of seconds", question_id)
        return ()


def _pairs(cell: Any) -> Iterable[Any]:
    return cell if isinstance(cell[0], list | tuple) else [cell]


def _asked(question: Question) -> str:
    return f"{question.text}\n{lettered(question.options)}\nAnswer with the option letter only."


def _prompt(question: Question, said: Said) -> Prompt:
    select = "Select the best answer to the following multiple-choice question based on the video"
    if said is None:
        return Prompt(f"{select}.\n{_asked(question)}")
    listed = "This video's subtitles are listed below:"
    return Prompt(f"{listed}\n{said or _NONE}\n{select} and subtitles.\n{_asked(question)}")


def _said(question: Question, path: Path, sampling: Sampling) -> str:
    return sections_at_frames(srt_sections(path), evenly_spaced(sampling))


BENCHMARK = Benchmark(
    name=NAME,
    title="CG-Bench",
    read=read,
    splits=("mini", "full"),
    protocols=by_name(
        Protocol(
            HARNESS, _prompt, HARNESS, said=_said, reads_file=True, stop=HARNESS_STOP,
            note="lmms-eval 0.7.3; earlier versions have no CG-Bench.",
        )
    ),
    rules=with_likelihood(harness_rules(_HARNESS_LETTERS)),
    default_protocol=HARNESS,
    axes={"domain": "By domain", "sub_category": "By sub-category"},
    counts={"mini": (3000, 1118), "full": (12129, 1219)},
    advice="Quote lmms-eval-0.7.2 as the accuracy over the whole video (long accuracy) of mini.",
)  # fmt: skip
