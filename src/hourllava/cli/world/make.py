"""`hourllava world make`: videos with questions."""

from typing import Annotated

import typer

from hourllava.cli import options


def make(
    out: options.WorldOut,
    videos: Annotated[int, typer.Option(help="Number of videos.", callback=options.between(1, 1_000_000))] = 40,
    minutes: Annotated[str, typer.Option(help="Length of a video in minutes: a range or one number.")] = "3-60",
    seed: options.WorldSeed = 0,
    split: options.Split = "train",
    difficulty: Annotated[str, typer.Option(help="Difficulty: easy, normal, hard or dense.")] = "normal",
    needles: Annotated[
        int | None,
        typer.Option(
            help="Cards per video, each shown for seconds.",
            callback=options.between(0, 1000),
            show_default="one per event, at least 4",
        ),
    ] = None,
    painted: Annotated[
        bool, typer.Option("--painted", help="Give objects colours without names; questions name their shapes.")
    ] = False,
    per_task: options.PerTask = 3,
    formats: options.Formats = "both",
    tasks: Annotated[str, typer.Option(help="Names of tasks, separated by commas, or all.")] = "all",
    size_pixels: Annotated[
        int, typer.Option(help="Width and height of the videos, in pixels.", callback=options.between(64, 2048))
    ] = 256,
    container: Annotated[str, typer.Option(help="mp4, webm, or reference (drawn when it is watched).")] = "mp4",
    questions: Annotated[
        int, typer.Option(help="Maximum questions per training record.", callback=options.between(1, 1000))
    ] = 1,
    captions: Annotated[
        int, typer.Option(help="Maximum descriptions of a video in the records.", callback=options.between(0, 1000))
    ] = 0,
    tables: Annotated[bool, typer.Option(help="Also write questions.parquet and captions.jsonl.")] = True,
    processes: options.WorldProcesses = 2,
) -> None:
    """Make videos with scripts, captions, questions and training records.

    The folders are laid out as VideoMarathon's.
    After an interruption, run the same command again to resume.
    """
    from hourllava.world.making.make import make_settings, make_world

    settings = make_settings(
        videos=videos,
        minutes=minutes,
        seed=seed,
        split=split,
        difficulty=difficulty,
        needles=needles,
        per_task=per_task,
        formats=formats,
        size_pixels=size_pixels,
        container=container,
        questions=questions,
        captions=captions,
        tables=tables,
        tasks=tasks,
        painted=painted,
    )
    make_world(settings, out, processes)
    typer.echo(str(out))
