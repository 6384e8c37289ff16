"""`hourllava data features`: the vision tower, once for every video."""

from pathlib import Path
from typing import Annotated

import typer

from hourllava.cli import options


def features(
    videos: Annotated[list[Path], typer.Argument(metavar="VIDEO", help="Video files, or folders to search for them.")],
    model: options.Model,
    out: Annotated[Path, typer.Option(help="Folder for the feature files.")],
    fps: Annotated[
        float,
        typer.Option(help="Frames per second; format released chooses its own.", callback=options.between(0.001, 1000)),
    ] = 1.0,
    shard: Annotated[str, typer.Option(help="i/n takes every n-th video from number i on; i starts at 0.")] = "0/1",
    devices: options.Devices = None,
    dtype: Annotated[str, typer.Option(help="Type of the stored features: bfloat16 or int8.")] = "bfloat16",
    form: Annotated[str, typer.Option("--format", help="memory (.safetensors) or released (.pt).")] = "memory",
    decoders: options.Decoders = None,
    engine: Annotated[str, typer.Option(help="local, or ray to use all devices of a Ray cluster.")] = "local",
) -> None:
    """Run a checkpoint's vision tower over videos and save the features.

    After an interruption, run the same command again to resume.
    The exit code is 9 if some videos failed.
    """
    from hourllava.data.features.extract import run_features

    for line in run_features(
        videos,
        model=model,
        out=out,
        fps=fps,
        shard=shard,
        devices=devices,
        dtype=dtype,
        form=form,
        decoders=decoders,
        engine=engine,
    ):
        typer.echo(line)
