"""Puts the commands together and turns our errors into one clear line and an exit code."""

import sys

import typer

from hourllava import __version__
from hourllava.cli import data, world
from hourllava.errors import HourLlavaError

INTERRUPTED_EXIT_CODE = 130

app = typer.Typer(
    name="hourllava",
    help="Watch a video once, ask it anything, for as long as you like.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
app.add_typer(world.app, name="world")
app.add_typer(data.app, name="data")


@app.callback()
def main() -> None:
    """Watch a video once, ask it anything, for as long as you like."""


@app.command()
def version() -> None:
    """Print the version."""
    typer.echo(__version__)


def run() -> None:
    """Entry point: an error of ours becomes `error: ...` on stderr and its exit code; Ctrl-C becomes 130."""
    try:
        app()
    except HourLlavaError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(INTERRUPTED_EXIT_CODE)
