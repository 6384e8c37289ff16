"""Evaluate a model on MarathonWorld: how much it sees, remembers and finds again (`hourllava eval world`).

    OUT/evaluation.json   the settings; a run with other settings or other weights is refused
    OUT/world/            the videos, unless --world names another folder
    OUT/answers.jsonl     one line per question, written when it is answered
    OUT/scores.json       accuracies with intervals by task, topic, form, length and depth; evidence
    OUT/table.md, *.png   the scores as tables and figures

An interrupted run continues with the next question when it is started again with the same settings.
"""

import dataclasses
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from pydantic import BaseModel, ConfigDict
from tqdm import tqdm

from hourllava.errors import ConfigError, InputError, PartlyDoneError, VideoError
from hourllava.evaluation.answering import answer_case, engines_for
from hourllava.evaluation.cases import NeedleSettings, needle_videos, world_cases
from hourllava.evaluation.results import ANSWERS_NAME, SETTINGS_NAME, read_answers, write_results
from hourllava.evaluation.scores import Condition
from hourllava.inference.cache import MemoryCache
from hourllava.inference.encoder import weights_digest
from hourllava.inference.engine import HourLlava
from hourllava.model.config import TemporalForgetting
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
        memory_share: share of the memory's frames that MemAug reads, see `hourllava.inference.ready.thinned`.
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
        config.forgetting = dataclasses.replace(config.forgetting, temporal=forgetting)
    engines = engines_for(engine, memory_share=memory_share, baselines=baselines)
    settings = EvaluationSettings(
        model=name, weights=weights_digest(engine.model), videos=videos, baselines=baselines, memory_share=memory_share,
        forgetting=forgetting,
    )  # fmt: skip
    cache = None if memories is None else MemoryCache(memories)
    with run_folder(out, SETTINGS_NAME, settings, ()):
        yield from _answer_all(engines, settings, world or out / "world", out, cache)


def _answer_all(
    engines: Mapping[Condition, HourLlava],
    settings: EvaluationSettings,
    folder: Path,
    out: Path,
    cache: MemoryCache | None,
) -> Iterator[str]:
    videos = settings.videos
    found = needle_videos(videos, folder) if isinstance(videos, NeedleSettings) else world_cases(videos, folder)
    cases = list(found)
    path = out / ANSWERS_NAME
    _cut_unfinished_line(path)
    answered = read_answers(path) if path.exists() else []
    done = {one.id for one in answered}
    total = sum(len(case.questions) for case in cases)
    failures: list[VideoError | InputError] = []
    with path.open("a", encoding="utf-8") as file, _progress(total, len(done)) as progress:
        for case in cases:
            try:
                for one in answer_case(case, done, engines, settings.max_new_tokens, cache):
                    file.write(one.model_dump_json() + "\n")
                    file.flush()
                    answered.append(one)
                    progress.update(1)
            except (VideoError, InputError) as error:
                failures.append(error)
                progress.write(f"failed: {error}", file=sys.stderr)
    if not answered:
        raise failures[0] if failures else ConfigError(f"the videos in {folder} allow no question; use longer ones")
    yield from write_results(settings.model_dump(mode="json"), answered, out)
    if failures:
        raise PartlyDoneError(
            f"{total - len(answered)} of {total} questions were not answered because {len(failures)} of {len(cases)} "
            f"videos failed; they are not scored. The first error: {failures[0]}"
        )


def _progress(total: int, num_done: int) -> tqdm:
    return tqdm(total=total, initial=num_done, unit="question", desc="asking", file=sys.stderr)


def _cut_unfinished_line(path: Path) -> None:
    """Remove a half-written last line, left by a killed run."""
    if path.exists():
        num_whole = path.read_bytes().rfind(b"\n") + 1
        with path.open("r+b") as file:
            file.truncate(num_whole)
