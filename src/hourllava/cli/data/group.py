"""`hourllava data group`: questions about one video as one record."""

from pathlib import Path
from typing import Annotated

import typer

from hourllava.cli import options


def group(
    file: options.Records,
    out: Annotated[Path, typer.Argument(metavar="OUT", help="File for the training records: .json or .jsonl.")],
    questions: Annotated[
        int,
        typer.Option(help="Maximum questions per record; conversations stay whole.", callback=options.between(1, 1000)),
    ] = 5,
    seed: Annotated[
        int,
        typer.Option(help="Seed; change it to group differently.", callback=options.between(0, options.MAX_SEED)),
    ] = 0,
) -> None:
    """Join questions about the same video into training records of several turns."""
    from hourllava.data.records.group import run_group

    for line in run_group(file, out, questions, seed):
        typer.echo(line)
