"""`hourllava data merge`: one index over several folders."""

from pathlib import Path
from typing import Annotated

import typer


def merge(
    folders: Annotated[list[Path], typer.Argument(help="A folder with workers' sub-folders, or with --out any parts.")],
    out: Annotated[Path | None, typer.Option(help="Folder for an index over the parts; no data is copied.")] = None,
    stage: Annotated[
        str | None, typer.Option(help="s1, s2 or s3: the published parts, found in the one folder given.")
    ] = None,
    mixture: Annotated[Path | None, typer.Option(help="The stage's mixture (.json), if not the published one.")] = None,
) -> None:
    """Write one index over shards in several folders, after checking that they are there and whole."""
    from hourllava.data.prepare.commands import run_merge

    for line in run_merge(folders, out, stage, mixture):
        typer.echo(line)
