"""`hourllava world blind`: how far guessing gets."""

from typing import Annotated

import typer

from hourllava.cli import options


def blind(
    videos: Annotated[
        int,
        typer.Option(help="Videos to learn from; as many are tested.", callback=options.between(2, 1_000_000)),
    ] = 500,
    per_task: options.PerTask = 4,
    test_split: Annotated[str, typer.Option(help="Split to test on: test, or train with other seeds.")] = "test",
) -> None:
    """Measure how far guessing gets on multiple choice without watching.

    The result is a Markdown table in percent.
    """
    from hourllava.world.making.blind import blind_table

    typer.echo(blind_table(videos, per_task, test_split))
