"""Commands in processes of their own, forked from a server that has imported everything: 20 ms instead of 6 s.

    result = run_hourllava("ask", video, "What is shown?", cache=tmp_path)     # like subprocess.run
    with start_hourllava("train", recipe, cache=tmp_path) as process:          # like subprocess.Popen
        process.send_signal(signal.SIGINT)
    run_python("import os; print(os.getpid())")                                # any code, as `python -c` runs it

The first call in a test process starts the server; both end together. For every request the server forks a monitor,
and the monitor forks the command: a process without threads, in a session of its own, with its own standard streams,
folder and environment. So signals, kills, exit codes and open files are as real as with `subprocess`. Only variables
that are read at import time (`OMP_NUM_THREADS`, `HF_HUB_OFFLINE`) keep the server's values.

With `pytest -n`, the server starts first. The test processes are forked from it, too, before it imports hourllava, and
all of them use it.
"""

import atexit
import functools
import gc
import importlib
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

COMMAND = "from hourllava.cli.main import run; run()"
_LIBRARIES = (
    "accelerate", "av", "huggingface_hub", "matplotlib.figure", "matplotlib.backends.backend_agg", "peft", "PIL.Image",
    "pyarrow.parquet", "pydantic", "torch", "torch.nn.attention.varlen", "torch.utils.tensorboard", "transformers",
    "transformers.modeling_utils", "transformers.trainer", "typer",
)  # fmt: skip
_MODULES = (
    "hourllava.cli.main", "hourllava.cli.session", "hourllava.evaluation.world", "hourllava.evaluation.demo",
    "hourllava.training.command", "hourllava.training.run", "hourllava.data.prepare.stage",
    "hourllava.data.prepare.commands", "hourllava.data.features.extract", "hourllava.world.making.make",
    "hourllava.world.making.pictures",
)  # fmt: skip
_SERVER = "HOURLLAVA_TESTS_SERVER"  # variable with the address of a server that runs
_MAX_REQUEST_BYTES = 2**17
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
        folder = Path(tempfile.mkdtemp(dir=_server().folder))
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
) -> int:
    """As `start_python`, with open descriptors as standard input, output and error.

    Returns:
        The descriptor of a pipe: a line with the process id comes at once, one with the exit code at the end.
    """
    request = {
        "code": code, "arguments": [str(argument) for argument in arguments], "needs_modules": True,
        "env": dict(os.environ if env is None else env), "cwd": str(Path.cwd() if cwd is None else cwd),
    }  # fmt: skip
    with _one_start:
        channel = _server().channel
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
    """The server of this process: one that runs, or else one of its own."""

    def __init__(self) -> None:
        self.folder = tempfile.mkdtemp(prefix="hourllava-tests-")
        self.address = os.environ.get(_SERVER) or f"{self.folder}/server"
        self._process = None if _SERVER in os.environ else _start_server(self.address)
        self.channel = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.channel.connect(self.address)

    def close(self) -> None:
        self.channel.close()
        if self._process is not None:
            self._process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)


def _start_server(address: str) -> subprocess.Popen[bytes]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(address)
        listener.listen()
        search_path = os.pathsep.join([str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])])
        return subprocess.Popen(
            [sys.executable, "-c", f"from forking import serve; serve({listener.fileno()})"],
            pass_fds=[listener.fileno()],
            env={**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "PYTHONPATH": search_path},
            start_new_session=True,
        )


@functools.cache
def _server() -> _Server:
    server = _Server()
    atexit.register(server.close)
    return server


def forked_interpreter() -> str:
    """A command that runs what follows, `-c CODE`, in a process that is forked before the server imports hourllava."""
    os.environ[_SERVER] = _server().address
    return f"{sys.executable} -S {__file__}"


def _main() -> None:
    """Be `forked_interpreter`: have the code run with the streams of this process, and end as it ends."""
    request = {
        "code": sys.argv[-1],
        "arguments": [],
        "needs_modules": False,
        "env": dict(os.environ),
        "cwd": str(Path.cwd()),
    }
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as channel:
        channel.connect(os.environ[_SERVER])
        status = _send(channel, request, [0, 1, 2])
    for number in (0, 1):
        os.close(number)  # the other end is to notice when the process has closed them
    with os.fdopen(status) as lines:
        lines.readline()
        sys.exit(int(lines.readline() or 1))


def flush_nothing() -> None:
    """From now on, files are not flushed to the disk: what a killed process has written stays, and disks are slow."""
    os.fsync = lambda _: None


def serve(listener_fd: int) -> None:
    """Import the libraries, then fork for each request until the process that came first, which started this, ends."""
    _import(_LIBRARIES)
    flush_nothing()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for monitors
    listener = socket.socket(fileno=listener_fd)
    channels: list[socket.socket] = []
    while True:
        for ready in select.select([listener, *channels], [], [])[0]:
            if ready is listener:
                channels.append(listener.accept()[0])
                continue
            request, descriptors, _, _ = socket.recv_fds(ready, _MAX_REQUEST_BYTES, 4)
            if request:
                _serve_one(json.loads(request), descriptors, [listener, *channels])
            elif ready is channels[0]:
                return
            else:
                channels.remove(ready)
                ready.close()


def _serve_one(request: dict[str, Any], descriptors: list[int], sockets: list[socket.socket]) -> None:
    if request["needs_modules"]:
        _import(_MODULES)
    if os.fork() == 0:
        for one in sockets:
            one.close()
        _monitor(request, descriptors)
    for descriptor in descriptors:
        os.close(descriptor)


@functools.cache
def _import(names: tuple[str, ...]) -> None:
    for name in names:
        importlib.import_module(name)
    gc.collect()
    gc.freeze()  # so that collections in the children neither look at the libraries nor copy their pages


def _monitor(request: dict[str, Any], descriptors: list[int]) -> None:
    """Fork the command; write its process id and, when it has ended, its exit code."""
    *streams, status = descriptors
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    pid = os.fork()
    if pid == 0:
        os.close(status)
        _run(request, streams)
    os.write(status, f"{pid}\n".encode())
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    os.write(status, f"{code}\n".encode())
    os._exit(0)


def _run(request: dict[str, Any], streams: list[int]) -> None:
    """Become the command."""
    os.setsid()
    for number, descriptor in enumerate(streams):
        os.dup2(descriptor, number)
        os.close(descriptor)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD):
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["env"])
    sys.argv = ["-c", *request["arguments"]]
    code = _exit_code(request["code"])
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _exit_code(code: str) -> int:
    """Run the code and handle its end as the interpreter does."""
    try:
        exec(compile(code, "<string>", "exec"), {"__name__": "__main__"})
    except SystemExit as end:
        if end.code is None or isinstance(end.code, int):
            return end.code or 0
        print(end.code, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    except Exception:  # noqa: BLE001 - the border of the process
        traceback.print_exc()
        return 1
    return 0


if __name__ == "__main__":
    _main()
