"""LongVideoBench: questions with two to five options about videos of 8 seconds to an hour, many of them with speech.

Files of the hub's `longvideobench/LongVideoBench`: `lvb_val.json`, or a parquet in which unused options are "N/A";
videos and subtitles in archives. A video may be cut out of a longer one, whose subtitle file is whole. Source:
longvideobench/LongVideoBench, lmms-eval `tasks/longvideobench`.
"""

from collections.abc import Mapping
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from hourllava.choices import CHOICE_INSTRUCTION, LETTERS
from hourllava.evaluation.benchmarks.benchmark import Benchmark, Published
from hourllava.evaluation.benchmarks.building import NO_GOLD_OPTION, TableBuilder, number_of, text_of, texts_of
from hourllava.evaluation.benchmarks.cues import Sampling, interleaved, timed_texts
from hourllava.evaluation.benchmarks.folder import DataFolder
from hourllava.evaluation.benchmarks.letters import LONGVIDEOBENCH_WORDS, first_letter
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
from hourllava.evaluation.benchmarks.questions import Question, QuestionTable
from hourllava.evaluation.benchmarks.rules import VLMEVALKIT, letter_rule, of_harness, with_likelihood

NAME = "longvideobench"
_UNUSED = "N/A"
_MAX_OPTIONS = 5
_HARNESS_FRAMES = 16
_FILES = {
    "val": ("lvb_val.json", "validation-*.parquet"),
    "test": ("lvb_test_wo_gt.json", "test-*.parquet"),
}


def read(folder: DataFolder, split: str) -> QuestionTable:
    """The questions of a download: `val`, or `test`, whose answers are not public."""
    own, packed = _FILES[split]
    files = (folder.find(own) or folder.find(packed))[:1]
    builder = TableBuilder(folder, NAME, split, files, f"download {own} of longvideobench/LongVideoBench")
    for number, row in enumerate(folder.rows(files[0], builder.problems), 1):
        builder.read(row, f"row {number}", partial(_add, builder))
    return builder.table()


def _add(builder: TableBuilder, row: Mapping[str, Any]) -> None:
    question_id, asked = text_of(row, "id"), text_of(row, "question")
    path = text_of(row, "video_path", "video_id")
    options = texts_of(row, "candidates") if row.get("candidates") else _columns(row)
    choice, gold_index = number_of(row, "correct_choice"), None
    if choice is not None:
        gold_index = int(choice)
        if gold_index >= len(options):
            builder.problems.add(NO_GOLD_OPTION, question_id)
            gold_index = None
    named = row.get("subtitle_path")
    duration = number_of(row, "duration")
    axes = {"duration_group": "duration", "question_category": "category", "topic_category": "topic", "level": "level"}
    builder.add(
        question_id,
        video=PurePosixPath(path).stem,
        file=builder.folder.video(path, builder.problems),
        subtitles=builder.folder.subtitles(named) if isinstance(named, str) else None,
        needs_subtitles=isinstance(named, str) and named != "",
        end_seconds=duration or None,  # only so much of the file counts
        subtitles_start_seconds=number_of(row, "starting_timestamp_for_subtitles") or 0.0,
        text=asked,
        lines=options,
        question=asked,
        options=options,
        gold=None if choice is None else LETTERS[int(choice)],
        gold_index=gold_index,
        groups={axis: (str(row[column]),) for column, axis in axes.items() if row.get(column) is not None},
        duration_seconds=duration,
    )


def _columns(row: Mapping[str, Any]) -> tuple[str, ...]:
    """The options in columns of their own; the unused last ones are dropped, so that letters stay as published."""
    options = [str(row.get(f"option{k}", _UNUSED)) for k in range(_MAX_OPTIONS)]
    while options and options[-1] == _UNUSED:
        options.pop()
    if len(options) < 2:
        raise ValueError("fewer than two options")
    return tuple(options)


def _official(question: Question, said: Said) -> Prompt:
    subtitles = f"{said}\n" if said else ""
    return Prompt(f"{subtitles}Question: {question.text}\n{lettered(question.options)}\n{CHOICE_INSTRUCTION}")


def _official_said(question: Question, path: Path, sampling: Sampling) -> str:
    """Cues by the interleaving rule at one frame a second; the frames themselves cannot stand between them."""
    duration = sampling.duration_seconds
    count = max(1, int(duration))
    frames = [int(int(duration * sampling.file_fps) / count) * k / sampling.file_fps for k in range(count)]
    cues = timed_texts(path, as_authors=True)
    found = interleaved(cues, frames, question.subtitles_start_seconds, duration)
    return "\n".join(text for text in found if text is not None)


def _harness(question: Question, said: Said) -> Prompt:
    subtitles = "" if said is None or not question.subtitles else f"{said}\n"
    options = [option for option in question.options if option != _UNUSED]  # one between others shifts the letters
    return Prompt(f"{subtitles}{question.text}\n{lettered(options)}\n{CHOICE_INSTRUCTION}\n")


def _harness_said(question: Question, path: Path, sampling: Sampling) -> str:
    """The text of the task `_val_i`: its 16 pictures are literal marks, which stay in the text."""
    duration = sampling.duration_seconds
    if duration > _HARNESS_FRAMES:
        frames = [duration / _HARNESS_FRAMES * k for k in range(_HARNESS_FRAMES)]
    else:
        frames = [float(k) for k in range(int(duration))]
    cues = timed_texts(path, as_authors=True)
    found = interleaved(cues, frames, question.subtitles_start_seconds, duration)
    return "\n".join("<image>" if text is None else text for text in found)


_NOTE = (
    "Without subtitles as the task longvideobench_val_v. With subtitles the text is that of longvideobench_val_i, "
    "while the model sees the video instead of 16 pictures. All of the file is watched, also behind the published "
    "length."
)
_RULE = letter_rule(
    lambda question, output: first_letter(output, "ABCDE", LONGVIDEOBENCH_WORDS),
    "random",
    "For an answer that cannot be read, an option is drawn.",
)
_WITHOUT_CHANCE = letter_rule(lambda question, output: first_letter(output, "ABCDE", LONGVIDEOBENCH_WORDS))
_OURS = ("not known", "1 frame a second, the whole video; prompt and harness not known", "arXiv 2506.05332")

BENCHMARK = Benchmark(
    name=NAME,
    title="LongVideoBench",
    read=read,
    splits=("val", "test"),
    protocols=by_name(
        *(
            Protocol(name, _harness, name, 32, said=_harness_said, stop=HARNESS_STOP, whole_file=True, note=_NOTE)
            for name in (HARNESS, OLD_HARNESS)
        ),
        Protocol(
            OFFICIAL, _official, OFFICIAL, 32, said=_official_said, reads_file=True,
            note="With subtitles, those at one frame a second stand before the question.",
        ),
    ),
    rules=with_likelihood(
        {HARNESS: of_harness(_RULE), OLD_HARNESS: _RULE, OFFICIAL: _RULE, VLMEVALKIT: _WITHOUT_CHANCE}
    ),
    default_protocol=HARNESS,
    axes={"duration": "By length group", "category": "By category", "topic": "By topic", "level": "By level"},
    counts={"val": (1337, None)},
    figures=(
        Published("Hour-LLaVA-3B", "all", "57.8", *_OURS),
        Published("Hour-LLaVA-7B", "all", "60.4", *_OURS),
        Published("LLaVA-Video-7B", "all", "58.2", "without", "lmms-eval, longvideobench_val_v", "ACL25-AdaReTaKe#10"),
    ),
    advice="Quote lmms-eval-0.7.2 without subtitles, and with them beside it; say which is which.",
)  # fmt: skip
