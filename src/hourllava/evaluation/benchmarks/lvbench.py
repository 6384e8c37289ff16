"""LVBench: 1,549 questions about 103 videos of up to two hours, with four options inside the question.

Files: `video_info.meta.jsonl` (a line per video) of THUDM/LVBench, or the parquet of `lmms-lab/LVBench` (a row per
question). The videos come from YouTube, and some are gone. Source: THUDM/LVBench, lmms-eval `tasks/lvbench`.
"""

import json
import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from hourllava.evaluation.benchmarks.benchmark import Benchmark, Published
from hourllava.evaluation.benchmarks.building import TableBuilder, gold_of_letter, split_text, text_of, texts_of
from hourllava.evaluation.benchmarks.folder import DataFolder
from hourllava.evaluation.benchmarks.letters import first_character
from hourllava.evaluation.benchmarks.protocols import (
    HARNESS,
    HARNESS_STOP,
    OFFICIAL,
    OLD_HARNESS,
    Protocol,
    by_name,
    followed_by,
)
from hourllava.evaluation.benchmarks.questions import QuestionTable
from hourllava.evaluation.benchmarks.rules import harness_rules, letter_rule, with_likelihood
from hourllava.evaluation.intervals import Interval

NAME = "lvbench"
GONE = frozenset(
    {"idZkam9zqAs", "Z4HGQL_McDQ", "QWXlvx1GoTY", "28CIeC8cZks"}
    | {"t-RtDI2RWQs", "qYMnM5blZIE", "gXnhqF0TqqI", "QgWRyDV9Ozs"}
)
"""Videos that had vanished from YouTube by November 2025."""
_TIMES = re.compile(r"\s*((?:\d+:)?\d+:\d\d)\s*-\s*((?:\d+:)?\d+:\d\d)\s*")


def read(folder: DataFolder, split: str) -> QuestionTable:
    """The questions of a download."""
    files = folder.find("video_info.meta.jsonl") or folder.find("data/train-*.parquet", "train-*.parquet")
    builder = TableBuilder(folder, NAME, split, files[:1], "download video_info.meta.jsonl of THUDM/LVBench")
    numbered = _numbered_videos(folder)
    for number, row in enumerate(folder.rows(files[0], builder.problems), 1):
        for asked in row["qa"] if isinstance(row.get("qa"), list) else [row]:
            builder.read(asked, f"row {number}", partial(_add, builder, row, numbered))
    return builder.table()


def _add(builder: TableBuilder, video: Mapping[str, Any], numbered: Mapping[str, str], row: Mapping[str, Any]) -> None:
    question_id, key, text = text_of(row, "uid"), text_of(video, "key"), text_of(row, "question")
    question, options = split_text(text, builder.problems, question_id)
    file = builder.folder.video(text_of(video, "video_path", "key"), builder.problems)
    builder.add(
        question_id,
        video=key,
        file=file or builder.folder.video(key, builder.problems) or numbered.get(key),
        text=text,
        question=question,
        options=options,
        gold=row.get("answer"),
        gold_index=gold_of_letter(row.get("answer"), len(options) or 4, builder.problems, question_id),
        groups={"ability": texts_of(row, "question_type"), "type": (text_of(video, "type"),)},
        moments=_moments(row, builder, question_id),
    )


def _moments(row: Mapping[str, Any], builder: TableBuilder, question_id: str) -> tuple[Interval, ...]:
    """The times that show the answer, written `MM:SS-MM:SS` or `HH:MM:SS-HH:MM:SS`."""
    times = row.get("time_reference")
    match = _TIMES.fullmatch(times) if isinstance(times, str) else None
    if match is None:
        if times:
            builder.problems.add("time_reference is no stretch of time", f"{question_id}: {times!r:.40}")
        return ()
    start, end = (sum(int(part) * 60**k for k, part in enumerate(reversed(time.split(":")))) for time in match.groups())
    return ((float(start), float(end)),)


def _numbered_videos(folder: DataFolder) -> dict[str, str]:
    """The videos that video2dataset saved under numbers: YouTube id -> path, from the .json beside each."""
    found = {}
    for stem, path in folder.stems_of_videos():
        beside = str(PurePosixPath(path).with_suffix(".json"))
        if stem.isdecimal() and (folder.root / beside).is_file() and (key := _key_in(folder.root / beside)):
            found[key] = path
    return found


def _key_in(path: Path) -> str | None:
    try:
        url = json.loads(path.read_bytes()).get("url", "")
    except (OSError, ValueError, AttributeError):
        return None
    match = re.search(r"(?:v=|youtu\.be/|/)([\w-]{11})$", str(url))
    return match[1] if match else None


_PROMPT = followed_by("\nAnswer the question with the option letter")
_OURS = ("1 frame a second, the whole video; a script that is not known", "arXiv 2506.05332")

BENCHMARK = Benchmark(
    name=NAME,
    title="LVBench",
    read=read,
    splits=("test",),
    protocols=by_name(
        Protocol(HARNESS, _PROMPT, HARNESS, stop=HARNESS_STOP),
        Protocol(
            OLD_HARNESS, _PROMPT, OLD_HARNESS, stop=HARNESS_STOP, note="lmms-eval 0.5.0 to 0.7.1; 0.3 has no LVBench."
        ),
        Protocol(OFFICIAL, _PROMPT, OFFICIAL, note="The authors publish no prompt: it is lmms-eval's."),
    ),
    rules=with_likelihood(
        {
            **harness_rules("ABCD"),
            OFFICIAL: letter_rule(
                lambda question, output: first_character(output),
                note="Anything but the bare letter is wrong; questions without an answer leave the denominator.",
            ),
        }
    ),
    default_protocol=HARNESS,
    axes={"ability": "By ability (a question may count for several)", "type": "By kind of video"},
    counts={"test": (1549, 103)},
    figures=(
        Published("Hour-LLaVA-3B", "all", "44.7", "without", *_OURS),
        Published("Hour-LLaVA-7B", "all", "45.6", "without", *_OURS),
    ),
    advice="Quote lmms-eval-0.7.2 with the number of questions: videos vanish from YouTube.",
    gone=GONE,
)
