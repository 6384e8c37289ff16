"""`hourllava data verify`: whether shards are whole."""

from pathlib import Path
from typing import Annotated

import typer


def verify(
    folder: Annotated[Path, typer.Argument(help="A folder of shards, or of a stage's streams.")],
) -> None:
    """Check every shard: there, whole, its table of samples sound, its hashes right."""
    from hourllava.data.prepare.commands import run_verify

    for line in run_verify(folder):
        typer.echo(line)
