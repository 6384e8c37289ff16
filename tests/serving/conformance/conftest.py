"""Engines of all kinds, and a device that can be held for each."""

import functools
import threading

import pytest

from conftest import tiny_checkpoint
from forked_decoding import forked_decoding
from hourllava.inference.engine import HourLlava
from hourllava.inference.watching.frame_encoder import FrameEncoder
from hourllava.serving.local import EngineSettings, LocalEngine
from hourllava.serving.protocol import Video
from serving.in_process import InProcess, ray_engine
from serving.ray_here import local_ray
from serving.scripted import ScriptedModel
from video.clips import write_clip

SETTINGS = EngineSettings(name="tiny", max_watches=1, max_waiting_watches=2, max_waiting_questions=4)


@functools.cache
def tiny():
    """One model for all engines; each closes it, and the next call starts it again."""
    return HourLlava.from_pretrained(tiny_checkpoint(), device="cpu")


@pytest.fixture(scope="session")
def clip(tmp_path_factory):
    return write_clip(tmp_path_factory.mktemp("clips") / "secret.mp4", num_frames=120, fps=10)


@pytest.fixture
def video(clip):
    return Video(str(clip), "sha256:1", fps=10.0, name="lecture.mp4")


@pytest.fixture(autouse=True, scope="module")
def forked_decoders():
    with forked_decoding():
        yield


class Held:
    """Frames pass only while this is open."""

    def __init__(self, gate):
        self.close, self.open = gate.clear, gate.set


RAY = pytest.param("ray", marks=[pytest.mark.slow, pytest.mark.filterwarnings("ignore")])  # its own warnings


@pytest.fixture(params=["scripted", "local", "replica", RAY])
def kind(request):
    """What is behind the protocol.

    scripted: a model by script in this process; local: a tiny model. replica: the first of them behind a pickled call,
    with the engine that several replicas have; ray: the same through Ray Serve, which takes seconds to import.
    """
    return request.param


@pytest.fixture
def made(kind, tmp_path, monkeypatch):
    """(engine, gate of its frames)."""
    if kind != "local":
        model = ScriptedModel(num_frames=120)
        engine = LocalEngine(model, tmp_path / "memories", SETTINGS)
        if kind == "replica":
            engine = ray_engine([InProcess(lambda engine=engine: engine)])
        elif kind == "ray":
            engine = local_ray(engine)
        return engine, Held(model.frames_may_pass)
    gate = threading.Event()
    gate.set()
    launch = FrameEncoder.launch

    def held(self, frames):
        assert gate.wait(30)
        return launch(self, frames)

    monkeypatch.setattr(FrameEncoder, "launch", held)
    return LocalEngine(tiny(), tmp_path / "memories", SETTINGS), Held(gate)


@pytest.fixture
def engine(made):
    return made[0]


@pytest.fixture
def frames(made):
    """A test that closes it must open it again, or cancel."""
    yield made[1]
    made[1].open()
