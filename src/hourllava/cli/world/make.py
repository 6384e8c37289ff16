"""`hourllava world make`: videos with questions."""

from pathlib import Path
from typing import Annotated

import typer

from hourllava.cli import options


def make(
    out: Annotated[Path, typer.Option(help="New or empty folder, or one of an interrupted run.")],
    videos: Annotated[int, typer.Option(help="How many videos.", callback=options.between(1, 1_000_000))] = 40,
    minutes: Annotated[str, typer.Option(help="Length of a video, as a range (3-60) or one number.")] = "3-60",
    seed: options.WorldSeed = 0,
    split: Annotated[str, typer.Option(help="train or test: other objects, phrasings and seeds.")] = "train",
    difficulty: Annotated[str, typer.Option(help="easy, normal, hard or dense.")] = "normal",
    needles: Annotated[
        int | None,
        typer.Option(help="Cards per video; default: one per event, at least 4.", callback=options.between(0, 1000)),
    ] = None,
    painted: Annotated[
        bool, typer.Option("--painted", help="Objects in colours without a name, named by their shapes.")
    ] = False,
    per_task: Annotated[
        int, typer.Option(help="Questions per video, task and format.", callback=options.between(1, 100))
    ] = 3,
    formats: Annotated[str, typer.Option(help="Questions: open, choice, or both.")] = "both",
    tasks: Annotated[str, typer.Option(help="Names of tasks, with commas between them, or all.")] = "all",
    size_pixels: Annotated[
        int, typer.Option(help="Width and height of the videos.", callback=options.between(64, 2048))
    ] = 256,
    container: Annotated[str, typer.Option(help="mp4, webm, or reference: rendered when read.")] = "mp4",
    questions: Annotated[
        int,
        typer.Option(
            help="Most questions of a training record, all about one video.", callback=options.between(1, 1000)
        ),
    ] = 1,
    captions: Annotated[
        int,
        typer.Option(
            help="Descriptions of each video among its questions, at most.", callback=options.between(0, 1000)
        ),
    ] = 0,
    tables: Annotated[bool, typer.Option(help="Write questions.parquet and captions.jsonl too.")] = True,
    processes: Annotated[
        int,
        typer.Option(help="How many videos are made at a time.", callback=options.between(1, options.MAX_PROCESSES)),
    ] = 2,
) -> None:
    """Make videos, scripts, captions, questions and training records in VideoMarathon's folders."""
    from hourllava.world.making.make import make_settings, make_world

    settings = make_settings(
        videos, minutes, seed, split, difficulty, needles, per_task, formats, size_pixels, container, questions,
        captions, tables, tasks, painted,
    )  # fmt: skip
    make_world(settings, out, processes)
    typer.echo(str(out))
