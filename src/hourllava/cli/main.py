"""Runs a command, and turns our errors into one clear line and an exit code."""

import os
import sys

from hourllava.cli.commands import app
from hourllava.cli.faults import BUG_NOTE, describe_fault, one_line
from hourllava.errors import ConfigError, HourLlavaError

INTERRUPTED_EXIT_CODE = 130


def run() -> None:
    """Entry point: an error of ours becomes `error: ...` on stderr and its exit code; Ctrl-C becomes 130.

    What the machine lacks (memory, space, open files) becomes one line, too; a bug stays a traceback. Under torchrun
    every process finds the same fault in a recipe, and the first of a machine tells it; of anything else each process
    tells its own.
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
