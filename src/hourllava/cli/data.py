"""`hourllava data`: look at data sets, and write them as shards."""

from pathlib import Path
from typing import Annotated

import typer

from hourllava.cli.data_shard import merge, shard

app = typer.Typer(help="Data sets: statistics, pictures and shards.", no_args_is_help=True)


@app.callback()
def data() -> None:
    """Data sets: statistics, pictures and shards."""


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


app.command()(shard)
app.command()(merge)
