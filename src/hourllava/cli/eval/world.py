"""`hourllava eval world`: questions about held-out videos."""

from pathlib import Path
from typing import Annotated

import typer

from hourllava.cli import options


def world(
    out: Annotated[Path, typer.Option(help="New or empty folder, or one of an interrupted run.")],
    model: options.Model = "nano",
    videos: Annotated[
        int, typer.Option(help="How many; with --needles, of each length.", callback=options.between(1, 1_000_000))
    ] = 40,
    minutes: Annotated[
        str, typer.Option(help="A range (3-60) or one number; with --needles also several: 5,60.")
    ] = "3-60",
    per_task: Annotated[
        int, typer.Option(help="Questions per video, task and format.", callback=options.between(1, 100))
    ] = 1,
    seed: Annotated[int, typer.Option(help="Of the videos.", callback=options.between(0, options.MAX_SEED))] = 0,
    formats: Annotated[str, typer.Option(help="Questions: open, choice, or both.")] = "both",
    container: Annotated[str, typer.Option(help="reference (drawn when watched), mp4 or webm.")] = "reference",
    world: Annotated[Path | None, typer.Option(help="Ask about this folder of `hourllava world make`.")] = None,
    needles: Annotated[bool, typer.Option("--needles", help="One letter card per video, at even depths.")] = False,
    baselines: Annotated[bool, typer.Option(help="Also ask with kept frames only, and blind.")] = True,
    memory_share: Annotated[
        float, typer.Option(help="Of the frames that MemAug finds in the memory.", callback=options.between(0, 1))
    ] = 1.0,
    forgetting: Annotated[str | None, typer.Option(help="Temporal forgetting, if another than trained with.")] = None,
    memories: Annotated[
        Path | None, typer.Option(help="Folder of memories, for models with the same vision tower: watched once.")
    ] = None,
    device: options.Device = None,
    dtype: options.Dtype = None,
) -> None:
    """Ask about held-out MarathonWorld videos: all 22 tasks, or letter cards; see docs/evaluation.md."""
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
