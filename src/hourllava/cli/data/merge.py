"""`hourllava data merge`: one index over shards in several folders."""

from pathlib import Path
from typing import Annotated

import typer

from hourllava.cli import options


def merge(
    folders: Annotated[
        list[Path],
        typer.Argument(metavar="FOLDER", help="Folders with one sub-folder per worker; with --out, any shard folders."),
    ],
    out: Annotated[
        Path | None, typer.Option(help="Folder for one index over all of them.", show_default="an index in each")
    ] = None,
    stage: Annotated[
        str | None, typer.Option(help="Merge this stage's parts (s1, s2 or s3), found in the one folder given.")
    ] = None,
    mixture: options.MixtureFile = None,
) -> None:
    """Write one index over shards in several folders; no data is copied.

    It is an error if shards are missing or damaged.
    """
    from hourllava.data.prepare.commands import run_merge

    for line in run_merge(folders, out, stage, mixture):
        typer.echo(line)
