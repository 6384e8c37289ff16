"""`hourllava demo`: an hour of generated video, watched and asked about."""

from pathlib import Path
from typing import Annotated

import typer

from hourllava.cli import options


def demo(
    seed: Annotated[
        int | None,
        typer.Option(
            help="Seed of the video; the same seed gives the same video.",
            callback=options.between(0, options.MAX_SEED),
            show_default="a new one",
        ),
    ] = None,
    minutes: Annotated[
        float, typer.Option(help="Length of the video, in minutes.", callback=options.between(1, 1440))
    ] = 60,
    out: Annotated[Path, typer.Option(help="Folder for the video and the sheet of evidence.")] = Path("out/demo"),
    model: options.Model = "nano",
) -> None:
    """Make a video with known answers, watch it, and ask ten questions."""
    from hourllava.evaluation.demo import run_demo

    run_demo(seed, minutes, out, model, typer.echo)
