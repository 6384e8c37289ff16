"""The command in this process, which has imported torch and loaded the model: what it prints, and how it ends."""

import contextlib
import functools
import io
from typing import NamedTuple
from unittest import mock

import typer.main

from hourllava.cli import main
from hourllava.inference.engine import HourLlava

_load = functools.cache(HourLlava.from_pretrained)


class Ended(NamedTuple):
    """How a command ended."""

    code: int
    stdout: str
    stderr: str


@functools.cache
def _command():
    """All commands, put together once: it takes 30 ms."""
    return typer.main.get_command(main.app)


def run_here(*arguments: object, stdin: bytes | None = b"") -> Ended:
    """Run `hourllava ARGUMENTS`; without `stdin` its standard input is closed."""
    given = None if stdin is None else io.TextIOWrapper(io.BytesIO(stdin), encoding="utf-8")
    stdout, stderr = io.StringIO(), io.StringIO()
    code = None
    with (
        mock.patch("sys.argv", ["hourllava", *map(str, arguments)]),
        mock.patch("sys.stdin", given),
        mock.patch.object(main, "app", _command()),
        mock.patch.object(HourLlava, "from_pretrained", _load),
        contextlib.redirect_stdout(stdout),
        contextlib.redirect_stderr(stderr),
    ):
        try:
            main.run()
        except SystemExit as end:
            code = end.code
    assert code is None or isinstance(code, int), code
    return Ended(code or 0, stdout.getvalue(), stderr.getvalue())


def error_line(ended: Ended) -> str:
    """What the last line on stderr, `error: ...`, says."""
    line = ended.stderr.splitlines()[-1]
    assert line.startswith("error: "), ended.stderr
    return line.removeprefix("error: ")
