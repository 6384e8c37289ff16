"""`hourllava data`: look at data sets."""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="Data sets: statistics and pictures.", no_args_is_help=True)


@app.callback()
def data() -> None:
    """Data sets: statistics and pictures."""


@app.command()
def stats(
    source: Annotated[Path, typer.Argument(help="A folder with jsons/, or a .json, .jsonl or .parquet file.")],
    out: Annotated[Path, typer.Option(help="Folder for the pictures and tables.")] = Path("stats"),
    name: Annotated[str, typer.Option(help="What the data set is called in pictures.")] = "MarathonWorld",
) -> None:
    """Draw the data set's figures (PNG, SVG) and write its tables (Markdown, JSON)."""
    from hourllava.data.stats import write_statistics

    for line in write_statistics(source, out, name):
        typer.echo(line)
