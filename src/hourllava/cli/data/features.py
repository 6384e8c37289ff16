"""`hourllava data features`: the vision tower over videos."""

from pathlib import Path
from typing import Annotated

import typer

from hourllava.cli import options


def features(
    videos: Annotated[list[Path], typer.Argument(help="Video files, and folders to search for them.")],
    model: Annotated[str, typer.Option(help="'nano', a checkpoint's folder, or its name on the Hugging Face hub.")],
    out: Annotated[Path, typer.Option(help="Folder for the features.")],
    fps: Annotated[
        float,
        typer.Option(
            help="Frames a second; the released form has its own rule.", callback=options.between(0.001, 1000)
        ),
    ] = 1.0,
    shard: Annotated[str, typer.Option(help="i/n: the i-th of n parts of the videos, i from 0.")] = "0/1",
    devices: Annotated[str | None, typer.Option(help="Such as cuda:0,cuda:1; all GPUs by default, or the CPU.")] = None,
    dtype: Annotated[str, typer.Option(help="Of the stored features: bfloat16 or int8.")] = "bfloat16",
    form: Annotated[str, typer.Option("--format", help="memory (.safetensors) or released (.pt).")] = "memory",
    decoders: Annotated[
        int | None, typer.Option(help="Videos decoded at a time for each device.", callback=options.between(1, 32))
    ] = None,
    engine: Annotated[str, typer.Option(help="local, or ray: all devices of a Ray cluster.")] = "local",
) -> None:
    """Run a checkpoint's vision tower over videos, once; continues where it was stopped. Exit code 9 if some failed."""
    from hourllava.data.features.extract import run_features

    for line in run_features(videos, model, out, fps, shard, devices, dtype, form, decoders, engine):
        typer.echo(line)
