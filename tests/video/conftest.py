"""Clips that several tests read."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from video.clips import write_clip


@pytest.fixture(scope="session")
def shared_clip(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """`write_clip` with a suffix instead of a path. Equal arguments give one file: a test that changes it copies it."""
    folder = tmp_path_factory.mktemp("clips")
    made: dict[str, Path] = {}

    def clip(suffix: str, num_frames: int = 100, fps: float = 25, **options: Any) -> Path:
        key = repr((suffix, num_frames, fps, sorted(options.items())))
        if key not in made:
            made[key] = write_clip(folder / f"{len(made)}.{suffix}", num_frames, fps, **options)
        return made[key]

    return clip
