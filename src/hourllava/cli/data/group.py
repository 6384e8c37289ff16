"""`hourllava data group`: questions about one video as one record."""

from pathlib import Path
from typing import Annotated

import typer

from hourllava.cli import options


def group(
    file: options.Records,
    out: Annotated[Path, typer.Argument(help="Training records: .json or .jsonl.")],
    questions: Annotated[
        int,
        typer.Option(
            help="Most questions in a record; conversations are never cut.", callback=options.between(1, 1000)
        ),
    ] = 5,
    seed: Annotated[
        int,
        typer.Option(help="Another one puts other questions together.", callback=options.between(0, options.MAX_SEED)),
    ] = 0,
) -> None:
    """Join questions about one video into training records of several turns."""
    from hourllava.data.records.group import run_group

    for line in run_group(file, out, questions, seed):
        typer.echo(line)
