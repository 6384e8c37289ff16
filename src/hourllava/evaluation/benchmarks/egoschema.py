"""EgoSchema: 5,031 clips of three minutes with one question each, five options; 500 of the answers are public.

Files: `questions.json` and `subset_answers.json` of egoschema/EgoSchema, or the parquets of the hub's
`lmms-eval/egoschema`. The clips are Ego4D's, a source of VideoMarathon: check for overlap with training before you
quote a figure. Source: egoschema/EgoSchema, lmms-eval `tasks/egoschema`.
"""

import json
from collections.abc import Mapping
from functools import partial
from typing import Any

from hourllava.choices import CHOICE_INSTRUCTION, LETTERS
from hourllava.data.records.options import without_letters
from hourllava.errors import DataError
from hourllava.evaluation.benchmarks.benchmark import Benchmark
from hourllava.evaluation.benchmarks.building import NO_GOLD_OPTION, TableBuilder, text_of, texts_of
from hourllava.evaluation.benchmarks.folder import DataFolder
from hourllava.evaluation.benchmarks.letters import marked_option
from hourllava.evaluation.benchmarks.protocols import (
    HARNESS,
    HARNESS_STOP,
    OLD_HARNESS,
    Prompt,
    Protocol,
    Said,
    by_name,
    lettered,
)
from hourllava.evaluation.benchmarks.questions import Question, QuestionTable
from hourllava.evaluation.benchmarks.rules import letter_rule, of_harness, with_likelihood

NAME = "egoschema"
_NO_ANSWER = "the answer is not public (use --split full to ask all)"


def read(folder: DataFolder, split: str) -> QuestionTable:
    """The questions of a download: `subset`, whose answers are public, or `full`."""
    own = folder.find("questions.json")[:1]
    if own:
        return _read_own(folder, split, own[0], folder.find("subset_answers.json")[:1])
    pattern = "Subset/*.parquet" if split == "subset" else "GENERATION/*.parquet"
    files = folder.find(pattern)[:1]
    builder = TableBuilder(
        folder, NAME, split, files, "download questions.json and subset_answers.json of egoschema/EgoSchema"
    )
    for number, row in enumerate(folder.rows(files[0], builder.problems), 1):
        builder.read(row, f"row {number}", partial(_add_packed, builder))
    return builder.table()


def _read_own(folder: DataFolder, split: str, path: str, answer_files: list[str]) -> QuestionTable:
    if split == "subset" and not answer_files:
        raise DataError(f"{folder.root} holds no subset_answers.json; download it, or use --split full")
    answers = _answers(folder, answer_files[0]) if answer_files else {}
    builder = TableBuilder(folder, NAME, split, [path, *answer_files])
    for number, row in enumerate(folder.rows(path, builder.problems), 1):
        if split == "full" or row.get("q_uid") in answers:
            builder.read(row, f"row {number}", partial(_add_own, builder, answers))
    return builder.table()


def _answers(folder: DataFolder, path: str) -> dict[str, int]:
    try:
        return {str(name): int(index) for name, index in json.loads((folder.root / path).read_bytes()).items()}
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise DataError(f"{path} cannot be read ({error}); download it again") from error


def _add_own(builder: TableBuilder, answers: Mapping[str, int], row: Mapping[str, Any]) -> None:
    uid = text_of(row, "q_uid")
    options = tuple(text_of(row, f"option {k}") for k in range(5))
    _add(builder, uid, text_of(row, "question"), tuple(lettered(options).split("\n")), options, answers.get(uid))


def _add_packed(builder: TableBuilder, row: Mapping[str, Any]) -> None:
    lines = texts_of(row, "option")
    gold = row.get("answer")
    index = int(gold) if gold is not None and str(gold).isdecimal() else None
    _add(builder, text_of(row, "video_idx"), text_of(row, "question"), lines, without_letters(lines), index)


def _add(
    builder: TableBuilder, uid: str, asked: str, lines: tuple[str, ...], options: tuple[str, ...], gold: int | None
) -> None:
    if gold is not None and gold >= len(options):
        builder.problems.add(NO_GOLD_OPTION, uid)
    builder.add(
        uid,
        video=uid,
        file=builder.folder.video(uid, builder.problems),
        text=asked,
        lines=lines,
        question=asked,
        options=options,
        gold=None if gold is None else LETTERS[gold],
        gold_index=gold if gold is not None and gold < len(options) else None,
    )


def _prompt(question: Question, said: Said) -> Prompt:
    return Prompt("\n".join((question.text, *question.lines, CHOICE_INSTRUCTION)))


_RULE = letter_rule(
    lambda question, output: marked_option(output, question.lines, question.letters),
    "random",
    "For an answer that cannot be read, an option is drawn.",
)

BENCHMARK = Benchmark(
    name=NAME,
    title="EgoSchema",
    read=read,
    splits=("subset", "full"),
    protocols=by_name(
        Protocol(HARNESS, _prompt, HARNESS, stop=HARNESS_STOP),
        Protocol(OLD_HARNESS, _prompt, OLD_HARNESS, stop=HARNESS_STOP, note="The same as in 0.7.2."),
    ),
    rules=with_likelihood({HARNESS: of_harness(_RULE), OLD_HARNESS: _RULE}),
    default_protocol=HARNESS,
    axes={},
    counts={"subset": (500, 500), "full": (5031, 5031)},
    advice="Quote lmms-eval-0.7.2 on the subset; only a server can score the full set.",
)
