"""Asking a model: every question with the video, with the frames in the decoder's sight only, and blind.

    video        as the library is used: watch once, then ask and choose
    frames_only  the same, but MemAug finds nothing in the memory except the tokens that forgetting kept for the
                 decoder anyway: what is gained by the rest of the memory is the difference
    blind        the question alone, no video: what the wording gives away

Taking MemAug out of a model that was trained with it would be no baseline: its decoder has never seen a token that had
not gone through it. A model trained without MemAug is one, see benchmarks/ablations.py; for it, `frames_only` is left
out, being the same as `video`.
"""

import functools
from collections.abc import Iterator, Mapping, Sequence

from hourllava.data.records.models import QuestionRow
from hourllava.evaluation.cases import Case
from hourllava.evaluation.scores import AnsweredQuestion, Condition, is_right
from hourllava.inference.cache import MemoryCache
from hourllava.inference.engine import HourLlava
from hourllava.inference.evidence import Span
from hourllava.inference.memory import Memory
from hourllava.inference.ready import check_share, make_ready

OPEN_BATCH = 8  # open-ended questions that are answered together
Said = tuple[str, Sequence[Span]]
"""An answer and its evidence."""


def engines_for(engine: HourLlava, *, memory_share: float, baselines: bool) -> dict[Condition, HourLlava]:
    """The engine of each condition; they share the model.

    Args:
        engine: as loaded.
        memory_share: of the memory's frames that MemAug finds, for the condition `video`.
        baselines: whether to have the other two conditions.

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
    return HourLlava(engine.model, engine.processor, make_ready=functools.partial(make_ready, share=memory_share))


def answer_case(
    case: Case,
    done: set[str],
    engines: Mapping[Condition, HourLlava],
    max_new_tokens: int,
    cache: MemoryCache | None,
) -> Iterator[AnsweredQuestion]:
    """Watch a video once and answer what is not in `done`; nothing is watched if there is nothing left to ask."""
    rows = [row for row in case.questions if row.question_id not in done]
    if not rows:
        return
    memory = engines["video"].watch(case.path, cache=cache, progress=False)
    open_rows = [row for row in rows if row.format == "open"]
    batches = [open_rows[k : k + OPEN_BATCH] for k in range(0, len(open_rows), OPEN_BATCH)]
    batches += [[row] for row in rows if row.format == "choice"]
    for batch in batches:
        said: dict[Condition, list[Said]] = {
            condition: _ask(engine, None if condition == "blind" else memory, batch, max_new_tokens)
            for condition, engine in engines.items()
        }
        for k, row in enumerate(batch):
            yield _answered(row, memory, {condition: answers[k] for condition, answers in said.items()})


def _ask(engine: HourLlava, memory: Memory | None, rows: Sequence[QuestionRow], max_new_tokens: int) -> list[Said]:
    if rows[0].format == "choice":
        choices = [engine.choose(memory, row.question, row.options) for row in rows]
        return [(choice.option, choice.evidence) for choice in choices]
    answers = engine.ask(memory, [row.question for row in rows], max_new_tokens=max_new_tokens)
    return [(answer.text, answer.evidence) for answer in answers]


def _answered(row: QuestionRow, memory: Memory, said: Mapping[Condition, Said]) -> AnsweredQuestion:
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
        answers={condition: answer for condition, (answer, _) in said.items()},
        right={condition: is_right(answer, row.answer) for condition, (answer, _) in said.items()},
        moments=row.evidence,
        evidence=tuple((span.start_seconds, span.end_seconds) for span in said["video"][1]),
    )
