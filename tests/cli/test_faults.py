"""A fault of the machine becomes one line and exit code 1; a bug keeps its traceback; messages stay on one line."""

import errno
import os
import subprocess
import sys

import pytest
import torch

from cli.in_process import error_line, run_here
from forking import COMMAND, environment, run_python
from hourllava.cli import main
from hourllava.cli.faults import BUG_NOTE, describe_fault, one_line
from hourllava.errors import DataError, InputError


@pytest.fixture
def end_with(monkeypatch, capsys):
    """Runs the command with an app that raises an error: (exit code, stderr)."""

    def end(error):
        def app():
            raise error

        monkeypatch.setattr(main, "app", app)
        with pytest.raises(SystemExit) as ended:
            main.run()
        return ended.value.code, capsys.readouterr().err

    return end


def because(error, cause):
    error.__cause__ = cause
    return error


NO_MEMORY = [
    MemoryError(),
    MemoryError("Unable to allocate 931. GiB for an array with shape (1000000000000,) and data type uint8"),
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nGPU 0 has a total capacity of 8 GiB"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried"),
    RuntimeError("can't start new thread"),
    RuntimeError("std::bad_alloc"),
    OSError(errno.ENOMEM, "Cannot allocate memory"),
    ImportError("libtorch_cpu.so: failed to map segment from shared object"),
    because(ModuleNotFoundError("Could not import module 'X'."), OSError("libx.so: failed to map segment from shared")),
]


@pytest.mark.parametrize("error", NO_MEMORY, ids=repr)
def test_no_memory(end_with, error):
    code, printed = end_with(error)
    assert code == 1
    assert printed.startswith("error: there is not enough memory")
    assert printed.count("\n") == 1


def test_torch_itself(end_with):
    """An allocation that no machine grants."""
    with pytest.raises(RuntimeError) as refused:
        torch.empty(2**55, dtype=torch.uint8)
    assert end_with(refused.value)[1].startswith("error: there is not enough memory")


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "the output or a temporary file cannot be used: No space"),
        (
            OSError(errno.EROFS, "Read-only file system", "/mnt/a"),
            "/mnt/a cannot be used: Read-only file system; use a",
        ),
        (PermissionError(errno.EACCES, "Permission denied", "b"), "b cannot be used: Permission denied; use a file"),
        (OSError(errno.EMFILE, "Too many open files"), "raise the limit on open files"),
        (OSError(errno.ENAMETOOLONG, "File name too long", "x" * 300), "use a shorter name"),
        (
            FileNotFoundError(errno.ENOENT, "No usable temporary directory found in ['/tmp', '/home/me']"),
            "No usable temporary directory found in ['/tmp', '/home/me']; set TMPDIR",
        ),
        (DataError("two\nlines"), r"two\nlines"),
        (
            InputError("bell \a, clear \x1b[2J, return \r, next \u2028"),
            r"bell \x07, clear \x1b[2J, return \r, next \u2028",
        ),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_one_line_says_what_and_what_to_do(end_with, error, words):
    _, printed = end_with(error)
    assert words in printed
    assert printed.startswith("error: ")
    assert printed.count("\n") == 1


@pytest.mark.parametrize(
    "error", [ValueError("x"), KeyError("x"), RuntimeError("shape"), FileNotFoundError(2, "no", "f")]
)
def test_a_bug_stays_a_traceback(monkeypatch, error):
    def app():
        raise error

    monkeypatch.setattr(main, "app", app)
    with pytest.raises(type(error)) as caught:
        main.run()
    assert caught.value.__notes__ == [BUG_NOTE]
    assert describe_fault(error) is None


def test_what_can_be_printed_is_left_alone():
    for text in ("a b", "Grüße, 世界", "a\u00a0b", "r\\n", "👍🏽", "'\""):
        assert one_line(text) == text
    assert one_line("\ud800") == "\\ud800"
    assert len(one_line("".join(map(chr, range(0x3000)))).splitlines()) == 1


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")  # noqa: PTH110
@pytest.mark.parametrize("arguments", [["version"], ["cache", "list", "--json"]], ids=" ".join)
def test_output_that_cannot_be_written(tmp_path, arguments):
    full = "import os; os.dup2(os.open('/dev/full', os.O_WRONLY), 1)\n"
    done = run_python(full + COMMAND, *arguments, env=environment(tmp_path))
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "error: the output or a temporary file cannot be used: No space left on device; free space there"
    ]


def test_a_reader_that_has_gone(tmp_path):
    """As of `| head`: nothing is said, and the exit code is not 0."""
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "hourllava", "version"]
    done = subprocess.run(
        command, stdout=writer, stderr=subprocess.PIPE, text=True, check=False, env=environment(tmp_path)
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (1, "")


def test_a_line_break_in_a_name_is_no_second_line():
    ended = run_here("watch", "a\nb.mp4")
    assert ended.code == 3
    assert r"a\nb.mp4" in error_line(ended)
