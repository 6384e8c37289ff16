"""`hourllava data prepare`: all steps from raw files to the shards of a stage."""

from pathlib import Path
from typing import Annotated

import typer

from hourllava.cli import options


def prepare(
    stage: Annotated[str, typer.Option(help="Stage of the mixture; s1, s2 or s3 of the published one.")],
    root: options.Root = Path("data"),
    out: Annotated[
        Path | None, typer.Option(help="Folder for the stages.", show_default="VideoMarathon/sharding in --root")
    ] = None,
    mixture: options.MixtureFile = None,
    model: Annotated[
        str | None,
        typer.Option(help="Checkpoint that makes missing features and measures lengths.", show_default="neither"),
    ] = None,
    questions: options.MeasuredQuestions = "conversation",
    video_suffix: Annotated[
        str, typer.Option(help="Feature files: .safetensors, .int8.safetensors, or the release's .pt.")
    ] = ".safetensors",
    devices: options.Devices = None,
    decoders: options.Decoders = None,
    processes: options.Processes = None,
) -> None:
    """Prepare a stage of training in one go, from raw files to measured shards.

    It checks records, groups questions, makes features, writes shards and streams, and measures lengths.
    After an interruption, run the same command again to resume.
    """
    from hourllava.data.prepare.stage import PrepareSettings, prepare_stage

    settings = PrepareSettings.of(
        stage=stage,
        root=root,
        out=out,
        mixture=mixture,
        model=model,
        questions=questions,
        video_suffix=video_suffix,
        devices=devices,
        decoders=decoders,
        processes=processes,
    )
    for line in prepare_stage(settings):
        typer.echo(line)
