"""`hourllava data prepare`: all steps of a stage."""

from pathlib import Path
from typing import Annotated

import typer

from hourllava.cli import options


def prepare(
    stage: Annotated[str, typer.Option(help="Of the mixture: s1, s2 or s3 of the published one.")],
    root: Annotated[Path, typer.Option(help="Folder of all data sets.")] = Path("data"),
    out: Annotated[Path | None, typer.Option(help="By default VideoMarathon/sharding in the root.")] = None,
    mixture: Annotated[Path | None, typer.Option(help="A mixture (.json) in place of the published one.")] = None,
    model: Annotated[
        str | None, typer.Option(help="Checkpoint: makes features that are wanted, and measures lengths.")
    ] = None,
    questions: Annotated[str, typer.Option(help="Of the lengths: conversation, or segments.")] = "conversation",
    video_suffix: Annotated[
        str, typer.Option(help="Feature files: .safetensors, .int8.safetensors or .pt (the release's).")
    ] = ".safetensors",
    devices: Annotated[str | None, typer.Option(help="Such as cuda:0,cuda:1; all GPUs by default, or the CPU.")] = None,
    decoders: Annotated[
        int | None, typer.Option(help="Videos decoded at a time for each device.", callback=options.between(1, 32))
    ] = None,
    processes: Annotated[
        int | None,
        typer.Option(
            help="Measuring; by default one for each CPU.", callback=options.between(1, options.MAX_PROCESSES)
        ),
    ] = None,
) -> None:
    """From raw files to a stage's shards: check, group, features, shards, streams, lengths. Stopped, it goes on."""
    from hourllava.data.prepare.stage import PrepareSettings, prepare_stage

    settings = PrepareSettings.of(
        stage, root, out, mixture, model, questions, video_suffix, devices, decoders, processes
    )
    for line in prepare_stage(settings):
        typer.echo(line)
