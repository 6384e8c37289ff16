"""`hourllava data show`: one shard row as the model sees it."""

from typing import Annotated

import typer

from hourllava.cli import options


def show(
    folder: options.ShardFolder,
    number: Annotated[int, typer.Argument(metavar="N", help="Number of the row; the first is 0.")],
    model: options.Model = "nano",
    media: options.RowMedia = None,
    questions: options.MeasuredQuestions = "conversation",
    history: options.MeasuredHistory = 0,
    labels: Annotated[str, typer.Option(help="Supervised tokens, as in the recipe: answers or llava.")] = "answers",
) -> None:
    """Show one row as the model sees it: prompt, supervised tokens, frames."""
    from hourllava.data.prepare.show import show_row

    lines = show_row(folder, number, model=model, media=media, questions=questions, history=history, labels=labels)
    for line in lines:
        typer.echo(line)
