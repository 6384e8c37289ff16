"""A running server, and a video to give it."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import openai
import pytest

from forked_decoding import forked_decoding
from serving.agents import CUES
from serving.live import Live, live
from video.clips import write_clip


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A video of 12 seconds."""
    return write_clip(tmp_path_factory.mktemp("clip") / "lecture.mp4", num_frames=120, fps=10)


@pytest.fixture
def media(tmp_path: Path, clip: Path) -> Path:
    """A media folder with a video and its subtitles, and a video outside it."""
    root = tmp_path / "media"
    (root / "talks").mkdir(parents=True)
    shutil.copy(clip, root / "talks" / "lecture.mp4")
    (root / "talks" / "lecture.srt").write_text(CUES)
    shutil.copy(clip, tmp_path / "secret.mp4")
    return root


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., Live]]:
    """Starts servers; see `live`."""
    with ExitStack() as on_end:
        yield lambda **settings: on_end.enter_context(live(settings.pop("folder", tmp_path / "store"), **settings))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """A server for the tests of a module that leave it as it is."""
    with live(tmp_path_factory.mktemp("store")) as running:
        yield running


@pytest.fixture(autouse=True, scope="module")
def decoding_is_forked() -> Iterator[None]:
    with forked_decoding():
        yield


def raw(path: Path) -> dict[str, Any]:
    """Arguments of a request that uploads a file."""
    return {"params": {"filename": path.name}, "content": path.read_bytes()}


def sdk(server: Live, **options: Any) -> openai.OpenAI:
    """The real SDK for a server."""
    return openai.OpenAI(**{"base_url": f"{server.url}/v1", "api_key": "anything", **options})
