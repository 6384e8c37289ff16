"""Puts the commands together and turns our errors into one clear line and an exit code."""

import os
import sys

import typer

from hourllava import __version__
from hourllava.cli import cache, data, eval, world
from hourllava.cli.ask import ask
from hourllava.cli.chat import chat
from hourllava.cli.demo import demo
from hourllava.cli.export import export
from hourllava.cli.faults import BUG_NOTE, describe_fault, one_line
from hourllava.cli.info import info
from hourllava.cli.train import train
from hourllava.cli.watch import watch
from hourllava.errors import ConfigError, HourLlavaError

INTERRUPTED_EXIT_CODE = 130

app = typer.Typer(
    name="hourllava",
    help="Watch a video once, ask it anything, for as long as you like.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
app.command()(demo)
app.command()(watch)
app.command()(ask)
app.command()(chat)
app.command()(train)
app.command()(export)
app.command()(info)
app.add_typer(cache.app, name="cache")
app.add_typer(world.app, name="world")
app.add_typer(data.app, name="data")
app.add_typer(eval.app, name="eval")


@app.command()
def version() -> None:
    """Print the version."""
    typer.echo(__version__)


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
