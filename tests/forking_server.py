"""The server of `forking`: it imports modules, and forks a process for each request.

A request is a message on its Unix socket: JSON, with the descriptors of the process's three streams and of a pipe. Into
the pipe go a line with the process id and, when the process has ended, one with its exit code.
"""

import atexit
import gc
import importlib
import json
import os
import select
import signal
import socket
import sys
import traceback
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

LIBRARIES = (
    "accelerate", "av", "huggingface_hub", "matplotlib.figure", "matplotlib.backends.backend_agg", "peft", "PIL.Image",
    "pyarrow.parquet", "pydantic", "torch", "torch.nn.attention.varlen", "torch.utils.tensorboard", "transformers",
    "transformers.modeling_utils", "transformers.trainer", "typer",
)  # fmt: skip
COMMANDS = (
    "hourllava.cli.main", "hourllava.cli.session", "hourllava.evaluation.world", "hourllava.evaluation.demo",
    "hourllava.training.command", "hourllava.training.run", "hourllava.data.prepare.stage",
    "hourllava.data.prepare.commands", "hourllava.data.features.extract", "hourllava.world.making.make",
    "hourllava.world.making.pictures",
)  # fmt: skip
DECODING = ("hourllava.video.worker", "hourllava.world.rendered")
MAX_REQUEST_BYTES = 2**17


def flush_nothing() -> None:
    """From now on, files are not flushed to the disk: what a killed process has written stays, and disks are slow."""
    os.fsync = lambda _: None


def serve(listener_fd: int, *modules: str) -> None:
    """Import the modules, then serve until the process that connected first, which started this one, ends."""
    _import(modules)
    flush_nothing()
    ended, signalled = socket.socketpair()  # gets a byte when a child has ended
    signalled.setblocking(False)
    signal.set_wakeup_fd(signalled.fileno(), warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    listener = socket.socket(fileno=listener_fd)
    channels: list[socket.socket] = []
    pipes: dict[int, int] = {}  # of the children that run, by process id
    while True:
        for ready in select.select([listener, ended, *channels], [], [])[0]:
            if ready is listener:
                channels.append(listener.accept()[0])
            elif ready is ended:
                ended.recv(4096)
                _report_ends(pipes)
            elif not _serve_one(ready, [listener, ended, signalled, *channels], pipes):
                if ready is channels[0]:
                    return
                channels.remove(ready)
                ready.close()


def _import(modules: Sequence[str]) -> None:
    new = [name for name in modules if name not in sys.modules]
    for name in new:
        importlib.import_module(name)
    if new:
        gc.collect()
        gc.freeze()  # so that collections in the children neither look at the libraries nor copy their pages


def _serve_one(channel: socket.socket, sockets: Sequence[socket.socket], pipes: dict[int, int]) -> bool:
    """Fork for the next request of a channel; False if its other end is closed."""
    request, descriptors, _, _ = socket.recv_fds(channel, MAX_REQUEST_BYTES, 4)
    if not request:
        return False
    asked = json.loads(request)
    _import(asked["modules"])
    *streams, pipe = descriptors
    pid = os.fork()
    if pid == 0:
        signal.set_wakeup_fd(-1)
        for number in (*(one.fileno() for one in sockets), *pipes.values(), pipe):
            os.close(number)
        _run(asked, streams)
    pipes[pid] = pipe
    _write_line(pipe, pid)
    for descriptor in streams:
        os.close(descriptor)
    return True


def _report_ends(pipes: dict[int, int]) -> None:
    while pipes:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid == 0:
            return
        pipe = pipes.pop(pid)
        _write_line(pipe, os.waitstatus_to_exitcode(status))
        os.close(pipe)


def _write_line(pipe: int, number: int) -> None:
    with suppress(BrokenPipeError):  # nobody asks for it any more
        os.write(pipe, f"{number}\n".encode())


def _run(request: dict[str, Any], streams: list[int]) -> None:
    """Become the process that was asked for."""
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
