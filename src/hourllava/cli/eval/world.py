"""`hourllava eval world`: questions about MarathonWorld videos."""

from pathlib import Path
from typing import Annotated

import typer

from hourllava.cli import options


def world(
    out: options.WorldOut,
    model: options.Model = "nano",
    videos: Annotated[
        int,
        typer.Option(help="Number of videos; with --needles, per length.", callback=options.between(1, 1_000_000)),
    ] = 40,
    minutes: Annotated[
        str, typer.Option(help="Length of a video in minutes: a range or one number; with --needles a list (5,60).")
    ] = "3-60",
    per_task: options.PerTask = 1,
    seed: options.WorldSeed = 0,
    formats: options.Formats = "both",
    container: Annotated[str, typer.Option(help="mp4, webm, or reference (drawn when it is watched).")] = "reference",
    world: Annotated[
        Path | None, typer.Option(help="Folder of hourllava world make to ask about.", show_default="new videos")
    ] = None,
    needles: Annotated[
        bool, typer.Option("--needles", help="Ask about one letter card per video, at even depths.")
    ] = False,
    baselines: Annotated[bool, typer.Option(help="Also ask with the kept frames only, and without a video.")] = True,
    memory_share: Annotated[
        float, typer.Option(help="Share of the frames that MemAug finds in the memory.", callback=options.between(0, 1))
    ] = 1.0,
    forgetting: Annotated[
        str | None, typer.Option(help="Temporal forgetting to use.", show_default="as the model was trained")
    ] = None,
    memories: Annotated[
        Path | None,
        typer.Option(help="Folder of memories to share among models with one vision tower.", show_default="none"),
    ] = None,
    device: options.Device = None,
    dtype: options.Dtype = None,
) -> None:
    """Ask a model about MarathonWorld videos that training does not see.

    The questions cover all 22 tasks; with --needles, letter cards.
    See docs/evaluation.md.
    After an interruption, run the same command again to resume.
    """
    from hourllava.evaluation.command import run_world_evaluation

    for line in run_world_evaluation(
        out,
        model=model,
        videos=videos,
        minutes=minutes,
        per_task=per_task,
        seed=seed,
        formats=formats,
        container=container,
        world=world,
        needles=needles,
        baselines=baselines,
        memory_share=memory_share,
        forgetting=forgetting,
        memories=memories,
        device=device,
        dtype=dtype,
    ):
        typer.echo(line)
