"""Runs a command; every error becomes one line on stderr and an exit code."""

import os
import sys

from hourllava.cli.commands import app
from hourllava.cli.faults import BUG_NOTE, describe_fault, one_line
from hourllava.errors import ConfigError, HourLlavaError

INTERRUPTED_EXIT_CODE = 130


def run() -> None:
    """Run the command of `sys.argv`.

    An error of ours, or a fault of the machine, becomes `error: ...` on stderr and an exit code. Ctrl-C ends with 130.
    A bug keeps its traceback. Under torchrun, all processes find the same mistake in a recipe: only the first process
    of each machine prints a `ConfigError`. Other errors are printed by every process that has one.
    """
    try:
        app()
    except HourLlavaError as error:
        if not isinstance(error, ConfigError) or os.environ.get("LOCAL_RANK", "0") == "0":
            _complain(str(error))
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED_EXIT_CODE)
    except Exception as error:
        fault = describe_fault(error)
        if fault is None:
            error.add_note(BUG_NOTE)
            raise
        _complain(fault)
        sys.exit(HourLlavaError.exit_code)


def _complain(message: str) -> None:
    process = f" (process {os.environ['RANK']})" if "RANK" in os.environ else ""
    print(f"error{process}: {one_line(message)}", file=sys.stderr)
