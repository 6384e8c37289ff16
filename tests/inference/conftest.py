"""A tiny model for all tests of this folder, clips that several read, and decoding processes that start at once."""

import gc
import os
import subprocess
import sys
from pathlib import Path
from typing import IO, Any

import pytest

from conftest import tiny_config, tiny_model
from hourllava.inference.engine import HourLlava
from hourllava.model.processor import HourLlavaProcessor
from hourllava.video import child, worker
from hourllava.video.source import Source
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
        "again": write_clip(folder / "again.mkv", num_frames=78, fps=10, codec="mpeg4", options={"qscale": "2"}),
        "other": write_clip(folder / "other.mp4", num_frames=78, fps=20),
        "single": write_clip(folder / "single.mp4", num_frames=10, fps=10),
        "late": write_clip(folder / "late.mkv", num_frames=60, fps=10, times=late, audio=True),
    }


class ForkedDecoder:
    """A decoding process, forked from the tests' instead of started: 20 ms instead of 500. As a `subprocess.Popen`."""

    def __init__(self, stderr: IO[bytes]) -> None:
        requests_read, requests_write = os.pipe()
        frames_read, frames_write = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            os.setsid()
            for number, descriptor in enumerate((requests_read, frames_write, stderr.fileno())):
                os.dup2(descriptor, number)
            os.closerange(3, 1024)  # so that the ends of pipes are noticed
            sys.stdin = open(0, encoding="utf-8")  # noqa: SIM115 - lasts as long as the process
            gc.freeze()  # the collector leaves the tests' objects alone
            worker.main()
        os.close(requests_read)
        os.close(frames_write)
        self.stdin, self.stdout = os.fdopen(requests_write, "wb", 0), os.fdopen(frames_read, "rb", 0)
        self.returncode: int | None = None

    def wait(self) -> int:
        if self.returncode is None:
            self.returncode = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self.returncode

    def kill(self) -> None:
        if self.returncode is None:
            os.kill(self.pid, 9)


@pytest.fixture(autouse=True)
def forked_decoders(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files are decoded in forked processes; a pipe that must be passed on is read by a started one."""
    start = child._start_process

    def fork(source: Source, stderr: IO[bytes]) -> tuple[subprocess.Popen[bytes] | ForkedDecoder, Source]:
        return start(source, stderr) if source.descriptor is not None else (ForkedDecoder(stderr), source)

    monkeypatch.setattr(child, "_start_process", fork)
