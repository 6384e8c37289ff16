"""`hourllava data sources`: where data comes from."""

from pathlib import Path
from typing import Annotated

import typer

from hourllava.cli import options


def sources(
    root: Annotated[Path, typer.Option(help="Folder of all data sets.")] = Path("data"),
    records: Annotated[Path | None, typer.Option(help="Verify that the media these records name are there.")] = None,
    media: Annotated[Path | None, typer.Option(help="Where: by default VideoMarathon/videos in the root.")] = None,
    report: Annotated[Path | None, typer.Option(help="What was found (.jsonl); beside the records by default.")] = None,
    processes: Annotated[
        int | None, typer.Option(help="Files opened at a time.", callback=options.between(1, options.MAX_PROCESSES))
    ] = None,
) -> None:
    """List where data comes from and must lie; with --records, open all media (exit code 9 if some are not well)."""
    from hourllava.data.records.sources import describe_sources

    for line in describe_sources(root, records, media, report, processes):
        typer.echo(line)
