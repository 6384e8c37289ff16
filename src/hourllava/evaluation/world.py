"""Evaluate a model on MarathonWorld: how much it sees, remembers and finds again (`hourllava eval world`).

    OUT/evaluation.json   the settings; a run with other settings or other weights is refused
    OUT/world/            the videos, unless --world names another folder
    OUT/answers.jsonl     one line per question, written when it is answered
    OUT/scores.json       accuracies with intervals by task, topic, form, length and depth; evidence
    OUT/table.md, *.png   the scores as tables and figures

An interrupted run continues with the next question when it is started again with the same settings.
"""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from hourllava.errors import ConfigError
from hourllava.evaluation.answering import Case, engines_for
from hourllava.evaluation.cases import NeedleSettings, needle_videos, world_cases
from hourllava.evaluation.results import SETTINGS_NAME
from hourllava.evaluation.run import answer_all
from hourllava.inference.engine import HourLlava
from hourllava.inference.memories.cache import MemoryCache
from hourllava.inference.memories.encoder import weights_digest
from hourllava.model.config import TemporalForgetting, check_recall
from hourllava.world.making.jobs import run_folder
from hourllava.world.making.make import MakeSettings

MAX_NEW_TOKENS = 64  # the longest answer, a summary, has about 50 tokens with a common tokenizer


class EvaluationSettings(BaseModel):
    """All settings that decide the answers."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    model: str
    weights: str  # digest of the model's weights
    videos: MakeSettings | NeedleSettings
    baselines: bool = True
    memory_share: float = 1.0
    forgetting: TemporalForgetting | None = None  # while asking; None: as in training
    max_new_tokens: int = MAX_NEW_TOKENS


def evaluate_world(
    engine: HourLlava,
    name: str,
    videos: MakeSettings | NeedleSettings,
    out: Path,
    *,
    world: Path | None = None,
    baselines: bool = True,
    memory_share: float = 1.0,
    forgetting: TemporalForgetting | None = None,
    memories: Path | None = None,
) -> Iterator[str]:
    """Ask all questions, score the answers, write the report.

    Args:
        engine: the model to ask; `forgetting` changes its configuration.
        name: the model's name, stored with the settings.
        videos: which videos to ask about.
        out: a new or empty folder, or the folder of an interrupted run.
        world: folder of the videos; OUT/world by default.
        baselines: whether to also ask with the kept tokens only, and without the video.
        memory_share: share of the memory's frames that MemAug reads, see `hourllava.inference.memories.thinning`.
        forgetting: temporal forgetting while asking; None: as in training.
        memories: folder for a cache of memories; models with the same vision tower share them.

    Yields:
        lines for the user.

    Raises:
        ConfigError: the settings contradict each other, `out` holds another run, or there is no question to ask.
        DataError: the answers of an earlier run cannot be read.
        PartlyDoneError: some videos cannot be watched or asked about; raised after the last line.
        VideoError, InputError: no video can.
    """
    config = engine.model.config
    if forgetting is not None:
        changed = dataclasses.replace(config.forgetting, temporal=forgetting)
        check_recall(config.memaug, changed)
        config.forgetting = changed
    engines = engines_for(engine, memory_share=memory_share, baselines=baselines)
    settings = EvaluationSettings(
        model=name, weights=weights_digest(engine.model), videos=videos, baselines=baselines, memory_share=memory_share,
        forgetting=forgetting,
    )  # fmt: skip
    cache = None if memories is None else MemoryCache(memories)
    with run_folder(out, SETTINGS_NAME, settings, ()):
        cases = _cases(videos, world or out / "world")
        yield from answer_all(cases, engines, settings, out, max_new_tokens=settings.max_new_tokens, cache=cache)


def _cases(videos: MakeSettings | NeedleSettings, folder: Path) -> list[Case]:
    cases = list(needle_videos(videos, folder) if isinstance(videos, NeedleSettings) else world_cases(videos, folder))
    if not any(case.questions for case in cases):
        raise ConfigError(f"the videos in {folder} allow no question; use longer ones")
    return cases
