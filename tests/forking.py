"""Commands in processes of their own, forked from a server that has imported everything: 20 ms instead of 6 s.

    result = run_hourllava("ask", video, "What is shown?", cache=tmp_path)     # like subprocess.run
    with start_hourllava("train", recipe, cache=tmp_path) as process:          # like subprocess.Popen
        process.send_signal(signal.SIGINT)
    run_python("import os; print(os.getpid())")                                # any code, as `python -c` runs it

The first call in a test process starts the server; both end together. What it forks for a request is a process without
threads, in a session of its own, with its own standard streams, folder and environment. So signals, kills, exit codes
and open files are as real as with `subprocess`. Only variables that are read at import time (`OMP_NUM_THREADS`,
`HF_HUB_OFFLINE`) keep the server's values.

With `pytest -n`, the server starts first. The test processes are forked from it, too, before it imports hourllava, and
all of them use it. Decoding processes come from a server of their own: one that has not imported torch forks ten times
as fast.
"""

import atexit
import functools
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from forking_server import COMMANDS, DECODING, LIBRARIES

COMMAND = "from hourllava.cli.main import run; run()"
_SERVER = "HOURLLAVA_TESTS_SERVER"  # variable with the address of a server that runs
_one_start = threading.Lock()  # several threads may ask for the server first


class ForkedProcess:
    """A process started by `start_python` or `start_hourllava`, with the part of `subprocess.Popen` that tests use.

    Its standard output and error go to files, so it never waits for a reader.
    """

    def __init__(self, status_fd: int, out: Path, err: Path):
        self._status = os.fdopen(status_fd, "rb")
        self._out, self._err = out, err
        self.pid = int(self._status.readline())
        self.returncode: int | None = None

    def wait(self, timeout: float = 300) -> int:
        """Wait for the exit code, negative for a signal.

        Raises:
            subprocess.TimeoutExpired: the process has not ended in time.
        """
        end = time.monotonic() + timeout
        while self.poll() is None:
            if time.monotonic() > end:
                raise subprocess.TimeoutExpired(f"process {self.pid}", timeout, self.stdout, self.stderr)
            time.sleep(0.005)
        assert self.returncode is not None
        return self.returncode

    def poll(self) -> int | None:
        """Exit code; None while it runs."""
        if self.returncode is None:
            os.set_blocking(self._status.fileno(), False)
            line = self._status.readline()
            if line:
                self.returncode = int(line)
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Signal this process only, not the processes that it has started."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    @property
    def stdout(self) -> str:
        """What it has written so far."""
        return self._out.read_text(encoding="utf-8")

    @property
    def stderr(self) -> str:
        return self._err.read_text(encoding="utf-8")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if self.poll() is None:
            os.killpg(self.pid, signal.SIGKILL)
            self.wait()
        self._status.close()


def start_python(
    code: str,
    *arguments: object,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    stdin: str = "",
) -> ForkedProcess:
    """Start Python code as `python -c CODE ARGUMENTS` would.

    Args:
        code: the code to run.
        arguments: `sys.argv[1:]`.
        env: the whole environment; by default that of this process.
        cwd: folder to run in; by default that of this process.
        stdin: the text on its standard input.
    """
    with _one_start:
        folder = Path(tempfile.mkdtemp(dir=_server(COMMANDS).folder))
    out, err, given = folder / "out", folder / "err", folder / "in"
    given.write_text(stdin, encoding="utf-8")
    with given.open("rb") as stdin_file, out.open("wb") as out_file, err.open("wb") as err_file:
        streams = [stdin_file.fileno(), out_file.fileno(), err_file.fileno()]
        return ForkedProcess(fork_python(code, *arguments, streams=streams, env=env, cwd=cwd), out, err)


def fork_python(
    code: str,
    *arguments: object,
    streams: Sequence[int],
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    modules: tuple[str, ...] = COMMANDS,
) -> int:
    """As `start_python`, with open descriptors as standard input, output and error.

    Args:
        modules: those that are imported before: `COMMANDS`, or `DECODING`, which come from another server.

    Returns:
        The descriptor of a pipe: a line with the process id comes at once, one with the exit code at the end.
    """
    request = {
        "code": code, "arguments": [str(argument) for argument in arguments], "modules": modules,
        "env": dict(os.environ if env is None else env), "cwd": str(Path.cwd() if cwd is None else cwd),
    }  # fmt: skip
    with _one_start:
        channel = _server(modules).channel
    return _send(channel, request, streams)


def _send(channel: socket.socket, request: dict[str, Any], streams: Sequence[int]) -> int:
    status_read, status_write = os.pipe()
    socket.send_fds(channel, [json.dumps(request).encode()], [*streams, status_write])
    os.close(status_write)
    return status_read


def run_python(code: str, *arguments: object, timeout: float = 300, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run code to its end; see `start_python`."""
    with start_python(code, *arguments, **options) as process:
        returncode = process.wait(timeout)
        return subprocess.CompletedProcess(list(arguments), returncode, process.stdout, process.stderr)


def environment(cache: Path, **more: str) -> dict[str, str]:
    """The environment of a command that keeps its memories in `cache` and does not use the network."""
    return {**os.environ, "XDG_CACHE_HOME": str(cache), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", **more}


def start_hourllava(*arguments: object, cache: Path, **options: Any) -> ForkedProcess:
    """Start `hourllava` with these arguments; see `start_python`."""
    return start_python(COMMAND, *arguments, env=environment(cache), **options)


def run_hourllava(*arguments: object, cache: Path, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run `hourllava` with these arguments; see `run_python`."""
    return run_python(COMMAND, *arguments, env=environment(cache), **options)


class _Server:
    """A server that this process uses: its own, which ends with it, or one that runs."""

    def __init__(self, modules: Sequence[str], running: str | None = None) -> None:
        self.folder = tempfile.mkdtemp(prefix="hourllava-tests-")
        self.address = running or f"{self.folder}/server"
        self._process = None if running else _start_server(self.address, modules)
        self.channel = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.channel.connect(self.address)

    def close(self) -> None:
        self.channel.close()
        if self._process is not None:
            self._process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)


def _start_server(address: str, modules: Sequence[str]) -> subprocess.Popen[bytes]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(address)
        listener.listen()
        search_path = os.pathsep.join([str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])])
        return subprocess.Popen(
            [sys.executable, "-c", f"from forking_server import serve; serve{(listener.fileno(), *modules)}"],
            pass_fds=[listener.fileno()],
            env={**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "PYTHONPATH": search_path},
            start_new_session=True,
        )


@functools.cache
def _server(modules: tuple[str, ...]) -> _Server:
    """The server for processes that need these modules; that for commands begins with the libraries."""
    server = _Server(DECODING) if modules == DECODING else _Server(LIBRARIES, os.environ.get(_SERVER))
    atexit.register(server.close)
    return server


def forked_interpreter() -> str:
    """A command that runs what follows, `-c CODE`, in a process that is forked before the server imports hourllava."""
    os.environ[_SERVER] = _server(COMMANDS).address
    return f"{sys.executable} -S {__file__}"


def _main() -> None:
    """Be `forked_interpreter`: have the code run with the streams of this process, and end as it ends."""
    request = {"code": sys.argv[-1], "arguments": [], "modules": [], "env": dict(os.environ), "cwd": str(Path.cwd())}
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as channel:
        channel.connect(os.environ[_SERVER])
        status = _send(channel, request, [0, 1, 2])
    for number in (0, 1):
        os.close(number)  # the other end is to notice when the process has closed them
    with os.fdopen(status) as lines:
        lines.readline()
        sys.exit(int(lines.readline() or 1))


if __name__ == "__main__":
    _main()
