"""A decoding process seen from its parent: how it is started, its pipes, and why it ended."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from typing import IO, Any, Protocol

from hourllava.errors import Cancelled, VideoError
from hourllava.forks import renew_after_fork
from hourllava.video.source import Source

PIPE_BYTES = 1 << 20
STDERR_BYTES = 1 << 16  # how much of the end of a child's stderr is read
STOP_SECONDS = 0.1  # how long a reader that waits for a child may take to notice that it is to stop

_NO_MEMORY = "memory ran out: free memory, or use fewer processes"

# Signal that ended a child -> why, and what to do.
_SIGNALS: dict[int, str] = {
    signal.SIGKILL: f"it was killed, most likely because {_NO_MEMORY}",
    signal.SIGABRT: f"it gave up, most likely because {_NO_MEMORY}",
    signal.SIGTERM: "something else on this machine ended it: retry",
    signal.SIGINT: "something else on this machine ended it: retry",
    signal.SIGHUP: "something else on this machine ended it: retry",
    signal.SIGXCPU: "its limit of CPU time was reached: raise the limit (ulimit -t)",
    signal.SIGXFSZ: "its limit of file size was reached: raise the limit (ulimit -f)",
}
_CRASHED = "FFmpeg crashed on this file: convert the file and retry"


class Stop(Protocol):
    """Says whether to stop; a `threading.Event`, for example."""

    def is_set(self) -> bool:
        """Whether to stop."""
        ...


class Child:
    """One decoding process and its pipes.

    Raises:
        VideoError: no further process can be started.
    """

    def __init__(self, request: dict[str, Any], source: Source, timeout_seconds: float, stop: Stop | None = None):
        self._stop = stop
        self._source = source
        self._timeout_seconds = timeout_seconds
        try:
            self._stderr = _scratch_file()
            with contextlib.ExitStack() as on_failure:
                on_failure.callback(self._stderr.close)
                self._process, opened = _start_process(source, self._stderr)
                on_failure.pop_all()
        except OSError as error:
            raise VideoError(
                f"{source.location}: no decoding process can be started ({error.strerror or error}): close files or"
                " other programs, or raise the limits of this user (ulimit -n, -u, -v)"
            ) from error
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._stdin, self._stdout = self._process.stdin, self._process.stdout
        renew_after_fork(self)
        # May fail: the kernel refuses once a user's pipes take 64 MiB. Small pipes work too.
        with contextlib.suppress(OSError, AttributeError):  # AttributeError: no such call outside Linux
            fcntl.fcntl(self._stdout, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        self._poll = select.poll()  # select() takes no descriptors from 1,024 up
        self._poll.register(self._stdout, select.POLLIN)
        self.send({**request, "source": opened.as_message()})

    def send(self, message: dict[str, Any]) -> None:
        """Send a line; if the child is gone, reading its answer fails."""
        with contextlib.suppress(BrokenPipeError):
            self._stdin.write(json.dumps(message).encode() + b"\n")

    def is_ready(self, wait_seconds: float) -> bool:
        """Whether something can be read within this time.

        Raises:
            Cancelled: it is to stop.
        """
        if self._stop is None:
            return bool(self._poll.poll(wait_seconds * 1000))
        end = time.monotonic() + wait_seconds
        while True:
            if self._stop.is_set():
                raise Cancelled(f"reading {self._source.location} was cancelled")
            left_seconds = max(0.0, end - time.monotonic())
            if self._poll.poll(min(left_seconds, STOP_SECONDS) * 1000):
                return True
            if left_seconds <= STOP_SECONDS:
                return False

    def receive(self) -> dict[str, Any]:
        """The next message other than a sign of life.

        Raises:
            VideoError: the child reports an error, is silent for too long, or is gone.
            Cancelled: it is to stop.
        """
        while True:
            length = bytearray(4)
            self.receive_into(memoryview(length))
            text = bytearray(int.from_bytes(length))
            self.receive_into(memoryview(text))
            message: dict[str, Any] = json.loads(text)
            if message["type"] == "error":
                raise VideoError(message["message"])
            if message["type"] != "alive":
                return message

    def receive_into(self, view: memoryview) -> None:
        """Fill a buffer.

        Raises:
            VideoError: the child is silent for too long, or is gone.
            Cancelled: it is to stop.
        """
        while view.nbytes:
            if not self.is_ready(self._timeout_seconds):
                raise VideoError(
                    f"{self._source.location}: decoding gave no sign of life for {self._timeout_seconds:g} s and was"
                    " stopped: the file or its storage hangs; convert or copy it, or raise timeout_seconds"
                )
            count = self._stdout.readinto(view)  # type: ignore[attr-defined]  # unbuffered, so a FileIO
            if not count:
                raise VideoError(self._death())
            view = view[count:]

    def _death(self) -> str:
        code = self._process.wait()
        if code < 0:
            name = next((f", {kind.name}" for kind in signal.Signals if kind == -code), "")
            how = f"signal {-code}{name}): {_SIGNALS.get(-code, _CRASHED)}"
        else:
            self._stderr.seek(max(0, self._stderr.seek(0, os.SEEK_END) - STDERR_BYTES))
            lines = self._stderr.read().decode(errors="replace").strip().splitlines()
            reason = lines[-1] if lines else f"exit code {code}"
            is_memory = "MemoryError" in reason or "Cannot allocate memory" in reason
            how = f"{reason}): {_NO_MEMORY if is_memory else 'convert the file and retry'}"
        return f"{self._source.location}: the decoding process ended unexpectedly ({how}"

    def kill(self) -> None:
        """End the process and close the pipes."""
        self._process.kill()
        self._process.wait()
        self.renew()

    def renew(self) -> None:
        """Close the pipes; a forked process does it too, or the child would not notice the end of its parent."""
        for file in (self._stdin, self._stdout, self._stderr):
            with contextlib.suppress(BrokenPipeError):
                file.close()


def _scratch_file() -> IO[bytes]:
    """A file for a child's stderr; /dev/null if there is no place for temporary files."""
    try:
        return tempfile.TemporaryFile()
    except OSError:
        return open(os.devnull, "w+b")  # noqa: PTH123 - closed by the child's kill()


def _require_descriptors(file: IO[bytes]) -> None:
    """Raise an OSError unless as many files can be opened as `Popen` needs for its three pipes.

    Python 3.11.2, that of Debian 12, leaves the first pipe open if the next one cannot be opened (gh-87474).
    """
    with contextlib.ExitStack() as opened:
        for _ in range(6):
            opened.callback(os.close, os.dup(file.fileno()))


def _start_process(source: Source, stderr: IO[bytes]) -> tuple[subprocess.Popen[bytes], Source]:
    """A child, and the source under the names that are valid in it."""
    descriptor = None
    if source.descriptor is not None:
        # Under another number: 0 is the pipe of requests in the child.
        descriptor = os.dup(source.descriptor)
        source = replace(source, opened=f"/dev/fd/{descriptor}", descriptor=descriptor)
    try:
        _require_descriptors(stderr)
        # -P and PYTHONPATH: the child imports from the same folders as the parent. A new session: Ctrl-C in a terminal
        # reaches the parent only, which ends the child.
        process = subprocess.Popen(
            [sys.executable, "-P", "-c", "from hourllava.video.worker import main; main()"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            # One thread for BLAS: the processes fill the cores, and each idle thread takes 40 MB of address space.
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
                "OPENBLAS_NUM_THREADS": "1",
            },
            start_new_session=True,
            pass_fds=() if descriptor is None else (descriptor,),
            bufsize=0,
        )
    finally:
        if descriptor is not None:
            os.close(descriptor)
    return process, source
