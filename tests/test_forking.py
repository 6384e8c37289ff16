"""A forked command behaves like a started one: `forking` against `subprocess`."""

import os
import signal
import subprocess
import sys
import time

import pytest

from forking import run_python, start_python

CODES = {
    "nothing": "pass",
    "its arguments and input": "import sys; print(sys.argv, sys.stdin.read())",
    "a number": "import sys; sys.exit(7)",
    "a text": "import sys; sys.exit('no')",
    "an error": "raise ValueError('no')",
    "a handler at its end": "import atexit; atexit.register(print, 'end')",
    "a signal of its own": "import os; os.kill(os.getpid(), 9)",
    "a process of its own": "import subprocess, sys; sys.exit(subprocess.run(['false']).returncode)",
}


@pytest.mark.parametrize("code", CODES.values(), ids=CODES)
def test_output_and_exit_code_are_those_of_a_started_process(code):
    started = subprocess.run(
        [sys.executable, "-c", code, "a b"], input="in", capture_output=True, text=True, check=False
    )
    forked = run_python(code, "a b", stdin="in")
    assert (forked.returncode, forked.stdout) == (started.returncode, started.stdout)
    assert forked.stderr.splitlines()[-1:] == started.stderr.splitlines()[-1:]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_signal_ends_it(number):
    with start_python("import time; print('up', flush=True); time.sleep(60)") as process:
        while not process.stdout:
            time.sleep(0.005)
        process.send_signal(number)
        assert process.wait(10) == -number


def test_folder_and_environment_are_the_given_ones(tmp_path):
    result = run_python("import os; print(os.getcwd(), dict(os.environ))", cwd=tmp_path, env={"NAME": "value"})
    assert result.stdout == f"{tmp_path} {{'NAME': 'value'}}\n"
    assert os.environ.get("NAME") is None
