"""`hourllava eval world`: checks the options before it loads the model."""

from collections.abc import Iterator
from pathlib import Path
from typing import get_args

from hourllava.errors import ConfigError
from hourllava.evaluation.cases import NeedleSettings, world_of
from hourllava.evaluation.world import evaluate_world
from hourllava.inference.engine import HourLlava
from hourllava.model.config import TemporalForgetting
from hourllava.world.making.make import MakeSettings, make_settings, parse_formats, parse_minutes
from hourllava.world.making.needles import FRAME_PIXELS, needle_cases


def run_world_evaluation(
    out: Path, *, model: str, videos: int, minutes: str, per_task: int, seed: int, formats: str, container: str,
    world: Path | None, needles: bool, baselines: bool, memory_share: float, forgetting: str | None,
    memories: Path | None, device: str | None, dtype: str | None,
) -> Iterator[str]:  # fmt: skip
    """Check the options of `hourllava eval world`, load the model, evaluate it.

    Yields:
        lines for the user.

    Raises:
        ConfigError: an option has a value that is not allowed.
        Also all errors of `HourLlava.from_pretrained` and `evaluate_world`.
    """
    if forgetting is not None and forgetting not in get_args(TemporalForgetting):
        raise ConfigError(f"--forgetting is {forgetting!r}; use one of: {', '.join(get_args(TemporalForgetting))}")
    if needles and world is not None:
        raise ConfigError("--needles makes its own videos and cannot use those of --world; omit one of the two")
    asked: MakeSettings | NeedleSettings
    if needles:
        asked = _needle_settings(videos, minutes, seed, formats)
    elif world is not None:
        asked = world_of(world)
    else:
        asked = make_settings(videos, minutes, seed, "test", "normal", None, per_task, formats, FRAME_PIXELS, container)
    engine = HourLlava.from_pretrained(model, device=device, dtype=dtype)
    return evaluate_world(
        engine, model, asked, out, world=world, baselines=baselines, memory_share=memory_share,
        forgetting=forgetting,  # type: ignore[arg-type]  # checked above
        memories=memories,
    )  # fmt: skip


def _needle_settings(videos: int, minutes: str, seed: int, formats: str) -> NeedleSettings:
    answer_formats = parse_formats(formats)
    lengths = []
    for part in minutes.split(","):
        low, high = parse_minutes(part)
        if low != high:
            raise ConfigError(f"--minutes is {minutes!r}; with --needles use one or more lengths, such as 60 or 5,60")
        lengths.append(low)
    settings = NeedleSettings(
        lengths_seconds=tuple(lengths),
        num_depths=videos,
        seed=seed,
        formats=answer_formats,
    )
    next(needle_cases(settings.lengths_seconds, videos, seed=seed))  # raises ConfigError for impossible settings
    return settings
