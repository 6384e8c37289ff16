"""`hourllava data sources`: where data comes from, and whether it is here."""

from pathlib import Path
from typing import Annotated

import typer

from hourllava.cli import options


def sources(
    root: options.Root = Path("data"),
    records: Annotated[Path | None, typer.Option(help="Records whose media are checked.")] = None,
    media: Annotated[
        Path | None, typer.Option(help="Folder of these media.", show_default="VideoMarathon/videos in --root")
    ] = None,
    report: Annotated[
        Path | None, typer.Option(help="File for the result of each (.jsonl).", show_default="beside the records")
    ] = None,
    processes: Annotated[
        int | None,
        typer.Option(
            help="Files to open at the same time.",
            callback=options.between(1, options.MAX_PROCESSES),
            show_default="one per core",
        ),
    ] = None,
) -> None:
    """List where data sets come from and where they must lie.

    With --records, open all media that the records name.
    The exit code is 9 if some are missing, unreadable or of another length.
    """
    from hourllava.data.records.sources import describe_sources

    for line in describe_sources(root, records, media, report, processes):
        typer.echo(line)
