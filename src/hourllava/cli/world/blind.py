"""`hourllava world blind`: how far guessing gets."""

from typing import Annotated

import typer

from hourllava.cli import options


def blind(
    videos: Annotated[
        int,
        typer.Option(help="Videos to learn from, and as many to be tested on.", callback=options.between(2, 1_000_000)),
    ] = 500,
    per_task: Annotated[int, typer.Option(help="Questions per video and task.", callback=options.between(1, 100))] = 4,
    test_split: Annotated[str, typer.Option(help="test, or train: other seeds of the split learnt from.")] = "test",
) -> None:
    """Print how far guessing gets on multiple choice without watching, as a Markdown table in percent."""
    from hourllava.world.making.blind import blind_table

    typer.echo(blind_table(videos, per_task, test_split))
