"""`hourllava data stats`: figures and tables of a data set."""

from pathlib import Path
from typing import Annotated

import typer


def stats(
    source: Annotated[
        Path, typer.Argument(metavar="SOURCE", help="Folder with jsons/, or a .json, .jsonl or .parquet file.")
    ],
    out: Annotated[Path, typer.Option(help="Folder for the figures and tables.")] = Path("stats"),
    name: Annotated[
        str | None, typer.Option(help="Name of the data set in the figures.", show_default="the file's")
    ] = None,
) -> None:
    """Draw figures of a data set (PNG, SVG) and write its tables (Markdown, JSON)."""
    from hourllava.data.records.statistics_report import write_statistics

    for line in write_statistics(source, out, name):
        typer.echo(line)
