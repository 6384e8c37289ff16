"""`hourllava eval make`: benchmarks that are made, not downloaded."""

from pathlib import Path
from typing import Annotated

import typer

from hourllava.cli import options as shared
from hourllava.cli.eval import options


def make(
    name: Annotated[str, typer.Argument(metavar="NAME", help="marathonworld-1 or needles.")],
    data: Annotated[Path, typer.Argument(metavar="DATA", help="Folder for the videos and questions.")],
    split: options.Split = None,
    container: Annotated[
        str, typer.Option(help="reference (drawn when it is watched), mp4 or webm (for other programs).")
    ] = "reference",
    minutes: Annotated[
        str | None, typer.Option(help="Lengths of needle videos, such as 60,120.", show_default="1,5,15,30,60")
    ] = None,
    depths: Annotated[
        int | None,
        typer.Option(help="Needle videos of each length.", callback=shared.between(1, 1000), show_default="10"),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(
            help="Another seed gives other needles.", callback=shared.between(0, shared.MAX_SEED), show_default="0"
        ),
    ] = None,
    processes: Annotated[
        int, typer.Option(help="Processes that make video files.", callback=shared.between(1, 1024))
    ] = 2,
) -> None:
    """Make the videos and questions of a benchmark, and its task for lmms-eval.

    The commands that ask make references by themselves; this one also makes files for other programs.
    After an interruption, run the same command again to resume.
    """
    from hourllava.evaluation.benchmarks.making import make_data

    lines = make_data(
        name, data, split=split, container=container, minutes=minutes, depths=depths, seed=seed, processes=processes
    )  # fmt: skip
    for line in lines:
        typer.echo(line)
