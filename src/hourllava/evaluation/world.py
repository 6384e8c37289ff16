"""`hourllava eval world`: how much of MarathonWorld a model sees, remembers and finds again.

    OUT/evaluation.json   the settings; a run with others, or with other weights, is refused
    OUT/world/            the videos, unless those of another folder are asked
    OUT/answers.jsonl     one line per question, written as it is answered
    OUT/scores.json       accuracies with intervals, by task, topic, form, length, depth; evidence
    OUT/table.md, *.png   the same for people

Stopped at any moment and started again with the same settings it goes on with the next question.
"""

import dataclasses
import importlib.util
import json
import logging
import sys
from collections.abc import Iterator
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError
from tqdm import tqdm

from hourllava.data.atomic import replacing
from hourllava.errors import DataError
from hourllava.evaluation.answering import answer_case, engines_for
from hourllava.evaluation.cases import NeedleSettings, needle_videos, world_cases
from hourllava.evaluation.report import table_of
from hourllava.evaluation.scores import AnsweredQuestion, score
from hourllava.inference.cache import MemoryCache
from hourllava.inference.encoder import weights_digest
from hourllava.inference.engine import HourLlava
from hourllava.model.config import TemporalForgetting
from hourllava.world.jobs import prepare_folder
from hourllava.world.make import MakeSettings

SETTINGS_NAME = "evaluation.json"
ANSWERS_NAME = "answers.jsonl"
SCORES_NAME = "scores.json"
MAX_NEW_TOKENS = 64  # the longest answer, a summary, is one token of nano's and some 50 of others'

logger = logging.getLogger(__name__)


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
        memory_share: of the memory's frames that MemAug finds, see `hourllava.inference.recall.thinned`.
        forgetting: temporal forgetting when asked, if another than trained with.
        memories: folder of a cache of memories; models whose vision towers are the same share them.

    Yields:
        lines for the user.

    Raises:
        ConfigError: the settings contradict each other, or `out` holds another run.
        DataError: the answers of an earlier run cannot be read.
    """
    config = engine.model.config
    if forgetting is not None:
        config.forgetting = dataclasses.replace(config.forgetting, temporal=forgetting)
    engines = engines_for(engine, memory_share=memory_share, baselines=baselines)
    settings = EvaluationSettings(
        model=name, weights=weights_digest(engine.model), videos=videos, baselines=baselines, memory_share=memory_share,
        forgetting=forgetting,
    )  # fmt: skip
    prepare_folder(out, SETTINGS_NAME, settings, ())
    folder = world or out / "world"
    found = needle_videos(videos, folder) if isinstance(videos, NeedleSettings) else world_cases(videos, folder)
    cases = list(found)
    path = out / ANSWERS_NAME
    answered = _read_answers(path)
    done = {one.id for one in answered}
    cache = None if memories is None else MemoryCache(memories)
    total = sum(len(case.questions) for case in cases)
    with path.open("a", encoding="utf-8") as file, _progress(total, len(done)) as progress:
        for case in cases:
            for one in answer_case(case, done, engines, settings.max_new_tokens, cache):
                file.write(one.model_dump_json() + "\n")
                file.flush()
                answered.append(one)
                progress.update(1)
    yield from _write_results(settings, answered, out)


def _progress(total: int, num_done: int) -> tqdm:
    return tqdm(total=total, initial=num_done, unit="question", desc="asking", file=sys.stderr)


def _read_answers(path: Path) -> list[AnsweredQuestion]:
    """The whole lines of an earlier run; what a killed one left half-written is cut off."""
    if not path.exists():
        return []
    content = path.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    if whole != content:
        with path.open("r+b") as file:
            file.truncate(len(whole))
    try:
        return [AnsweredQuestion.model_validate_json(line) for line in whole.splitlines()]
    except ValidationError as error:
        raise DataError(
            f"{path} is damaged or of another version ({error.error_count()} errors); remove it to ask anew"
        ) from error


def _write_results(settings: EvaluationSettings, answered: list[AnsweredQuestion], out: Path) -> Iterator[str]:
    scores = score(answered)
    for name, text in (
        (SCORES_NAME, json.dumps({"settings": settings.model_dump(mode="json"), **scores}, indent=1) + "\n"),
        ("table.md", table_of(scores)),
    ):
        with replacing(out / name) as temporary:
            temporary.write_text(text, encoding="utf-8")
        yield str(out / name)
    if importlib.util.find_spec("matplotlib") is None:
        logger.warning("no figures: they need matplotlib; pip install 'hourllava[world]' and run the command again")
        return
    from hourllava.evaluation.figures import write_figures

    yield from map(str, write_figures(scores, answered, out))
