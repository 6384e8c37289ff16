"""`hourllava data lengths`: how many tokens each shard row has."""

import typer

from hourllava.cli import options


def lengths(
    folder: options.ShardFolder,
    model: options.Model,
    media: options.RowMedia = None,
    questions: options.MeasuredQuestions = "conversation",
    history: options.MeasuredHistory = 0,
    processes: options.Processes = None,
) -> None:
    """Measure how long every row is for a model, so that training starts at once.

    Videos are opened, not decoded.
    After an interruption, run the same command again to resume.
    """
    from hourllava.data.prepare.commands import run_lengths

    for line in run_lengths(folder, model, media, questions, history, processes):
        typer.echo(line)
