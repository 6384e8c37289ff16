"""`hourllava eval check`: what of a public benchmark is there."""

from typing import Annotated

import typer

from hourllava.cli.eval import options


def check(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A benchmark, such as video-mme.")],
    data: options.Data,
    split: options.Split = None,
) -> None:
    """Say what of a benchmark's files is there, and what is missing.

    No video is opened. Archives that are still packed are named, with the command that unpacks them.
    """
    from hourllava.evaluation.benchmarks.check import check_data

    for line in check_data(name, data, split):
        typer.echo(line)
