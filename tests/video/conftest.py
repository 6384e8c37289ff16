"""Clips that several tests read, and decoding processes that start at once."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from forked_decoding import forked_decoding
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


@pytest.fixture(autouse=True, scope="module")
def forked_decoders(request: pytest.FixtureRequest) -> Iterator[None]:
    """Files are decoded in forked processes, except where it matters what a new process imports."""
    if request.module.__name__.rpartition(".")[2] in ("test_drawn", "test_processes", "test_worker"):
        yield
        return
    with forked_decoding():
        yield
