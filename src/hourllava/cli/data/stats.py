"""`hourllava data stats`: figures and tables of a data set."""

from pathlib import Path
from typing import Annotated

import typer


def stats(
    source: Annotated[Path, typer.Argument(help="A folder with jsons/, or a .json, .jsonl or .parquet file.")],
    out: Annotated[Path, typer.Option(help="Folder for the pictures and tables.")] = Path("stats"),
    name: Annotated[str | None, typer.Option(help="What it is called in pictures; by default as its file.")] = None,
) -> None:
    """Draw the data set's figures (PNG, SVG) and write its tables (Markdown, JSON)."""
    from hourllava.data.records.statistics_report import write_statistics

    for line in write_statistics(source, out, name):
        typer.echo(line)
