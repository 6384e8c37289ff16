"""Video-MME: 2,700 questions about 900 videos of 11 seconds to an hour, three each, with four options.

Files of the hub's `lmms-lab/Video-MME`: one parquet, 20 archives of videos, one of subtitles. 744 of the videos have
subtitles, all of the long ones among them. Source: MME-Benchmarks/Video-MME, lmms-eval `tasks/videomme`.
"""

from functools import partial
from pathlib import Path
from typing import Any

from hourllava.data.records.options import without_letters
from hourllava.evaluation.benchmarks.benchmark import Benchmark, Published
from hourllava.evaluation.benchmarks.building import TableBuilder, gold_of_letter, text_of, texts_of
from hourllava.evaluation.benchmarks.cues import Sampling, at_frames, harness_text, srt_sections
from hourllava.evaluation.benchmarks.folder import DataFolder
from hourllava.evaluation.benchmarks.letters import HARNESS_WORDS, first_letter
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
from hourllava.evaluation.benchmarks.questions import Question, QuestionTable
from hourllava.evaluation.benchmarks.rules import harness_rules, letter_rule, with_likelihood
from hourllava.inference.questions.subtitles import read_subtitles

NAME = "video-mme"
_LETTERS = "ABCD"
_ALWAYS_SUBTITLED = "long"  # videos of 30 to 60 minutes; many shorter ones have none
_ASK = "Respond with only the letter (A, B, C, or D) of the correct option."
_BEST = "The best answer is:"


def read(folder: DataFolder, split: str) -> QuestionTable:
    """The questions of a download."""
    files = folder.find("videomme/test-*.parquet") or folder.find("test-*.parquet", "videomme.json", "videomme.jsonl")
    builder = TableBuilder(
        folder, NAME, split, files[:1], "download videomme/test-00000-of-00001.parquet of lmms-lab/Video-MME"
    )
    for number, row in enumerate(folder.rows(files[0], builder.problems), 1):
        builder.read(row, f"row {number}", partial(_add, builder))
    return builder.table()


def _add(builder: TableBuilder, row: dict[str, Any]) -> None:
    question_id, video, asked = text_of(row, "question_id"), text_of(row, "videoID"), text_of(row, "question")
    lines = texts_of(row, "options")
    options = without_letters(lines)
    axes = ("duration", "domain", "sub_category", "task_type")
    builder.add(
        question_id,
        video=video,
        file=builder.folder.video(video, builder.problems),
        subtitles=builder.folder.subtitles(video),
        needs_subtitles=row.get("duration") == _ALWAYS_SUBTITLED,
        text=asked,
        lines=lines,
        question=asked,
        options=options,
        gold=row.get("answer"),
        gold_index=gold_of_letter(row.get("answer"), len(options), builder.problems, question_id),
        groups={axis: (str(row[axis]),) for axis in axes if row.get(axis)},
    )


def _asked(question: Question) -> str:
    return "\n".join((question.text, *question.lines))


def _official(question: Question, said: Said) -> Prompt:
    subtitles = f"This video's subtitles are listed below:\n{said}\n" if said else ""
    select = f"Select the best answer to the following multiple-choice question based on the video. {_ASK}"
    return Prompt(f"{subtitles}{select}\n{_asked(question)}\n{_BEST}")


def _official_said(question: Question, path: Path, sampling: Sampling) -> str:
    return "\n".join(at_frames(read_subtitles(path), sampling.frame_seconds))


def _harness(question: Question, said: Said) -> Prompt:
    select = (
        f"Select the best answer to the following multiple-choice question based on the video and the subtitles. {_ASK}"
    )
    if said is None:  # it speaks of subtitles all the same
        post = "\nAnswer with the option's letter from the given choices directly."
        return Prompt(f"{select}\n{_asked(question)}\n{post}")
    subtitles = said if question.subtitles else "No subtitles available"
    return Prompt(f"This video's subtitles are listed below: \n{subtitles}\n{select}\n{_asked(question)}\n{_BEST}")


def _harness_said(question: Question, path: Path, sampling: Sampling) -> str:
    """lmms-eval watches `.MP4` and `.mkv` files, too, but counts frames of `.mp4` only: of others it shows no cue."""
    sections = srt_sections(path)
    return harness_text(sections, sampling) if question.file and question.file.endswith(".mp4") else ""


_HARNESS = Protocol(
    HARNESS, _harness, HARNESS, said=_harness_said, reads_file=True, stop=HARNESS_STOP,
    note="With subtitles, the prompt holds those at 32 evenly spaced frames, as the harness's default has it; none if "
    "the file is .MP4 or .mkv instead of .mp4.",
)  # fmt: skip
_OLD = Protocol(
    OLD_HARNESS, _harness, OLD_HARNESS, said=_harness_said, reads_file=True, stop=HARNESS_STOP, note=_HARNESS.note
)  # fmt: skip
_OFFICIAL = Protocol(
    OFFICIAL, _official, OFFICIAL, said=_official_said,
    note="With subtitles, the prompt holds those at the frames that the model sees, each once, in order. "
    "Answers that cannot be read leave the denominator, as in the official script.",
)  # fmt: skip

_OURS = ("1 frame a second, the whole video; prompt and harness not known", "arXiv 2506.05332")
_MODELS = {
    "Hour-LLaVA-3B": {"all": "60.6 / 66.7", "medium": "59.0 / 65.4", "long": "52.1 / 60.4"},
    "Hour-LLaVA-7B": {"all": "63.6 / 70.2", "medium": "63.8 / 70.0", "long": "55.0 / 65.1"},
}
FIGURES = (
    *(
        Published(model, what, both, "without / with", *_OURS)
        for model, figures in _MODELS.items()
        for what, both in figures.items()
    ),
    Published("LLaVA-OneVision-7B", "all", "58.2", "without", "32 frames, its paper", "lmms-eval#1541"),
    Published("LLaVA-OneVision-7B", "all", "63.9", "without", "32 frames, lmms-eval of 2026", "lmms-eval#1541"),
    Published("LLaVA-Video-7B", "all", "63.4", "without", "an own script", "Video-RAG-master#29"),
    Published("LLaVA-Video-7B", "all", "64.6", "without", "lmms-eval", "AKS#12"),
    Published("LLaVA-Video-7B", "all", "66.7", "with", "lmms-eval, run as llava_onevision", "lmms-eval#452"),
    Published("LLaVA-Video-7B", "all", "69.7", "with", "lmms-eval, run as llava_vid; its paper", "lmms-eval#452"),
)

BENCHMARK = Benchmark(
    name=NAME,
    title="Video-MME",
    read=read,
    splits=("test",),
    protocols=by_name(_HARNESS, _OLD, _OFFICIAL),
    rules=with_likelihood(
        {
            **harness_rules(_LETTERS),
            OFFICIAL: letter_rule(
                lambda question, output: first_letter(output, _LETTERS, HARNESS_WORDS),
                "left out",
                "Answers that cannot be read leave the denominator.",
            ),
        }
    ),
    default_protocol=HARNESS,
    axes={"duration": "By length", "domain": "By domain", "sub_category": "By sub-category", "task_type": "By task"},
    counts={"test": (2700, 900)},
    figures=FIGURES,
    advice="Quote lmms-eval-0.7.2 with its version, without and with subtitles; compare within one version only.",
)
