"""`hourllava eval world`: how much of MarathonWorld a model sees, remembers and finds again.

    OUT/evaluation.json   the settings; a run with others, or with other weights, is refused
    OUT/world/            the videos, unless those of another folder are asked
    OUT/answers.jsonl     one line per question, written as it is answered
    OUT/scores.json       accuracies with intervals, by task, topic, form, length, depth; evidence
    OUT/table.md, *.png   the same for people

Stopped at any moment and started again with the same settings it goes on with the next question.
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

MAX_NEW_TOKENS = 64  # the longest answer, a summary, is one token of nano's and some 50 of others'


class EvaluationSettings(BaseModel):
    """What decides the answers."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    model: str
    weights: str  # digest
    videos: MakeSettings | NeedleSettings
    baselines: bool = True
    memory_share: float = 1.0
    forgetting: TemporalForgetting | None = None  # when asked; None: as trained
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
    """Ask, score, draw.

    Args:
        engine: of the model; its forgetting is changed if `forgetting` says so.
        name: of the model, for the record.
        videos: what is asked about.
        out: new or empty folder, or one of an interrupted run.
        world: folder of the videos; OUT/world by default.
        baselines: whether to ask without the memory and without the video, too.
        memory_share: of the memory's frames that MemAug finds, see `hourllava.inference.ready.thinned`.
        forgetting: temporal forgetting when asked, if another than trained with.
        memories: folder of a cache of memories; models whose vision towers are the same share them.

    Yields:
        lines for the user.

    Raises:
        ConfigError: the settings contradict each other, `out` holds another run, or there is no question to ask.
        DataError: the answers of an earlier run cannot be read.
        PartlyDoneError: after the last line, if some videos cannot be watched or asked about.
        VideoError, InputError: none can.
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
        raise failures[0] if failures else ConfigError(f"the videos in {folder} serve no question; use longer ones")
    yield from write_results(settings.model_dump(mode="json"), answered, out)
    if failures:
        raise PartlyDoneError(
            f"{total - len(answered)} of {total} questions were not answered, about {len(failures)} of {len(cases)} "
            f"videos, and do not count; the first fault: {failures[0]}"
        )


def _progress(total: int, num_done: int) -> tqdm:
    return tqdm(total=total, initial=num_done, unit="question", desc="asking", file=sys.stderr)


def _cut_unfinished_line(path: Path) -> None:
    """Cut off what a killed run left half-written."""
    if path.exists():
        num_whole = path.read_bytes().rfind(b"\n") + 1
        with path.open("r+b") as file:
            file.truncate(num_whole)
