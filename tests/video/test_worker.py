"""A decoding process tells its parent of every error."""

import json
import subprocess
import sys

import av
import pytest

from hourllava.video.source import resolve_source
from hourllava.video.worker import _unforeseen
from video.clips import write_clip


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (KeyError("two\nlines"), "KeyError"),
        (MemoryError(), "memory ran out"),
        (av.error.MemoryError(12, "Cannot allocate memory"), "memory ran out"),
        (AssertionError(), "AssertionError"),
    ],
)
def test_unforeseen_errors_are_one_line(error, words):
    message = _unforeseen(error, "clip.mp4")
    assert words in message
    assert message.startswith("clip.mp4: ")
    assert "\n" not in message


def test_a_child_passes_every_error_on(tmp_path):
    program = "import hourllava.video.worker as w\nw.open_video = lambda *_, **__: 1 / 0\nw.main()"
    path = write_clip(tmp_path / "clip.mp4", 1)
    request = {"source": resolve_source(path).as_message(), "fps": 1.0, "start_seconds": 0.0, "end_seconds": None}
    request |= {"size_pixels": None, "folder_fps": 1.0}
    child = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert child.stdin is not None
    assert child.stdout is not None
    child.stdin.write(json.dumps(request).encode() + b"\n")
    child.stdin.flush()  # left open, as by a reader
    answer = child.stdout.read()
    child.stdin.close()
    child.stdout.close()
    assert child.wait() == 0
    assert "ZeroDivisionError: division by zero" in json.loads(answer[4:])["message"]
