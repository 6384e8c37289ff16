"""A tiny model for all tests of this folder, clips that several read, and decoding processes that start at once."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from conftest import tiny_config, tiny_model
from forked_decoding import forked_decoding
from hourllava.inference.engine import HourLlava
from hourllava.model.processor import HourLlavaProcessor
from hourllava.video import child
from video.clips import write_clip


@pytest.fixture(scope="session")
def engine(tokenizer: Any) -> HourLlava:
    return HourLlava(tiny_model().float(), HourLlavaProcessor(tokenizer, tiny_config()))


@pytest.fixture(scope="session")
def clips(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Clips of 10 pictures a second; a picture carries its number, so the later ones of `other` are other pictures."""
    folder = tmp_path_factory.mktemp("clips")
    late = [7 + n / 10 for n in range(60)]
    return {
        "short": write_clip(folder / "short.mp4", num_frames=35, fps=10),
        "long": write_clip(folder / "long.mp4", num_frames=78, fps=10),
        "longer": write_clip(folder / "longer.mp4", num_frames=400, fps=10),
        "again": write_clip(folder / "again.mkv", num_frames=78, fps=10, codec="mpeg4", options={"qscale": "2"}),
        "other": write_clip(folder / "other.mp4", num_frames=78, fps=20),
        "single": write_clip(folder / "single.mp4", num_frames=10, fps=10),
        "late": write_clip(folder / "late.mkv", num_frames=60, fps=10, times=late, audio=True),
    }


@pytest.fixture
def nothing_left(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Processes that decoded in the test; at its end they are gone, and so are all threads that it started.

    Only the thread that owns the device may live on: it belongs to the engine of the session.
    """
    start, started = child._start_process, []

    def record(*arguments: Any) -> Any:
        process, source = start(*arguments)
        started.append(process.pid)
        return process, source

    monkeypatch.setattr(child, "_start_process", record)
    before = set(threading.enumerate())
    yield started
    assert {thread for thread in threading.enumerate() if thread.name != "hourllava-engine"} <= before
    assert not [pid for pid in started if Path(f"/proc/{pid}").exists()]


@pytest.fixture(autouse=True, scope="module")
def forked_decoders() -> Iterator[None]:
    """Files are decoded in forked processes."""
    with forked_decoding():
        yield
