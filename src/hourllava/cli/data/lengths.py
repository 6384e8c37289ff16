"""`hourllava data lengths`: how long rows are."""

from pathlib import Path
from typing import Annotated

import typer

from hourllava.cli import options


def lengths(
    folder: Annotated[Path, typer.Argument(help="A folder of shards, or of a stage's streams.")],
    model: Annotated[str, typer.Option(help="'nano', a checkpoint's folder, or its name on the Hugging Face hub.")],
    media: Annotated[
        Path | None,
        typer.Option(help="The rows' video paths are relative to it; by default to the stage's own, or 'data'."),
    ] = None,
    questions: Annotated[str, typer.Option(help="conversation, or segments: each question apart.")] = "conversation",
    processes: Annotated[
        int | None,
        typer.Option(
            help="Measuring; by default one for each CPU.", callback=options.between(1, options.MAX_PROCESSES)
        ),
    ] = None,
) -> None:
    """Write how long every row is for a model: training then starts at once. Opens videos, decodes none; goes on."""
    from hourllava.data.prepare.commands import run_lengths

    for line in run_lengths(folder, model, media, questions, processes):
        typer.echo(line)
