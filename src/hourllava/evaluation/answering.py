"""Ask a model every question under up to three conditions.

    video        the library's normal use: watch once, then ask and choose
    frames_only  MemAug reads only the kept tokens, which the decoder sees anyway; the difference from `video` is what
                 the rest of the memory gives
    blind        the question without the video: what the wording gives away

Removing MemAug from a model that was trained with it is no fair baseline: its decoder has seen only tokens that went
through MemAug. Compare with a model trained without MemAug instead (benchmarks/ablations.py). Such a model has no
`frames_only` condition, because it would equal `video`.
"""

import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hourllava.data.records.models import QuestionRow
from hourllava.evaluation.scores import AnsweredQuestion, Condition, is_right
from hourllava.inference.engine import HourLlava
from hourllava.inference.memories.cache import MemoryCache
from hourllava.inference.memories.memory import Memory
from hourllava.inference.memories.ready import make_ready
from hourllava.inference.memories.thinning import check_share
from hourllava.inference.questions.evidence import Span

OPEN_BATCH = 8  # open-ended questions asked together
Reply = tuple[str, Sequence[Span]]
"""The text of an answer, and its evidence spans."""


@dataclass(frozen=True)
class Case:
    """A video and the questions about it. Every benchmark gives its videos in this form."""

    path: Path
    questions: list[QuestionRow]


def engines_for(engine: HourLlava, *, memory_share: float, baselines: bool) -> dict[Condition, HourLlava]:
    """The engine of each condition; all share one model.

    Args:
        engine: as loaded.
        memory_share: share of the memory's frames that MemAug reads in the condition `video`, 0 to 1.
        baselines: whether to add the conditions `frames_only` and `blind`.

    Raises:
        ConfigError: `memory_share` is outside what is allowed.
    """
    model = engine.model
    engines: dict[Condition, HourLlava] = {"video": _engine_with(engine, memory_share)}
    if baselines:
        if model.config.memaug.num_blocks and model.config.forgetting.temporal != "question":
            engines["frames_only"] = _engine_with(engine, 0.0)
        engines["blind"] = engine
    return engines


def _engine_with(engine: HourLlava, memory_share: float) -> HourLlava:
    check_share(memory_share, engine.model.config)
    return engine.with_ready(functools.partial(make_ready, share=memory_share))


def answer_case(
    case: Case,
    done: set[str],
    engines: Mapping[Condition, HourLlava],
    max_new_tokens: int,
    cache: MemoryCache | None,
) -> Iterator[AnsweredQuestion]:
    """Watch a video once and answer its questions that are not in `done`; skip the video if none is left."""
    rows = [row for row in case.questions if row.question_id not in done]
    if not rows:
        return
    memory = engines["video"].watch(case.path, cache=cache, progress=False)
    open_rows = [row for row in rows if row.format == "open"]
    batches = [open_rows[k : k + OPEN_BATCH] for k in range(0, len(open_rows), OPEN_BATCH)]
    batches += [[row] for row in rows if row.format == "choice"]
    for batch in batches:
        replies: dict[Condition, list[Reply]] = {
            condition: _ask(engine, None if condition == "blind" else memory, batch, max_new_tokens)
            for condition, engine in engines.items()
        }
        for k, row in enumerate(batch):
            yield _answered(row, memory, {condition: answers[k] for condition, answers in replies.items()})


def _ask(engine: HourLlava, memory: Memory | None, rows: Sequence[QuestionRow], max_new_tokens: int) -> list[Reply]:
    if rows[0].format == "choice":
        choices = [engine.choose(memory, row.question, row.options) for row in rows]
        return [(choice.option, choice.evidence) for choice in choices]
    answers = engine.ask_all(memory, [row.question for row in rows], max_new_tokens=max_new_tokens)
    return [(answer.text, answer.evidence) for answer in answers]


def _answered(row: QuestionRow, memory: Memory, replies: Mapping[Condition, Reply]) -> AnsweredQuestion:
    return AnsweredQuestion(
        id=row.question_id,
        video=row.video,
        duration_seconds=row.duration_seconds or memory.duration_seconds,
        task=row.task or "",
        topic=row.topic or "",
        form=row.form or "",
        format=row.format,
        template=row.template or "",
        question=row.question,
        options=row.options,
        truth=row.answer,
        answers={condition: answer for condition, (answer, _) in replies.items()},
        right={condition: is_right(answer, row.answer) for condition, (answer, _) in replies.items()},
        moments=row.evidence,
        evidence=tuple((span.start_seconds, span.end_seconds) for span in replies["video"][1]),
    )
