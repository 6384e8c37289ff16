"""Decoding processes are forked from a server, which has imported what they need: 10 ms instead of 0.4 s."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import IO, Any

import pytest

from forking import fork_python
from forking_server import DECODING
from hourllava.video import child
from hourllava.video.source import Source

_start_process = child._start_process


class ForkedDecoder:
    """The part of `subprocess.Popen` that `Child` uses."""

    def __init__(self, stderr: IO[bytes]):
        theirs_in, ours_in = os.pipe()
        ours_out, theirs_out = os.pipe()
        code = "from hourllava.video.worker import main; main()"
        status = fork_python(code, streams=[theirs_in, theirs_out, stderr.fileno()], modules=DECODING)
        os.close(theirs_in)
        os.close(theirs_out)
        self.stdin, self.stdout = os.fdopen(ours_in, "wb", 0), os.fdopen(ours_out, "rb", 0)
        self._status = os.fdopen(status, "rb")
        self.pid = int(self._status.readline())
        self._code: int | None = None

    def kill(self) -> None:
        if self._code is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)

    def wait(self) -> int:
        if self._code is None:
            self._code = int(self._status.readline())
            self._status.close()
        return self._code


def start_forked(source: Source, stderr: IO[bytes]) -> Any:
    """In place of `child._start_process`."""
    if source.descriptor is not None:  # a pipe or an open file, which a child inherits
        return _start_process(source, stderr)
    return ForkedDecoder(stderr), source


@contextmanager
def forked_decoding() -> Iterator[None]:
    """Within the block, decoding processes are forked."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(child, "_start_process", start_forked)
        yield
