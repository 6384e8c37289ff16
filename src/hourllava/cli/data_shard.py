"""`hourllava data prepare`, and its steps `shard`, `merge`, `lengths`; `verify`."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from hourllava.cli import options


class Kind(StrEnum):
    """Which columns the shards have."""

    video = "video"
    image = "image"
    images = "images"


def shard(
    records: Annotated[
        list[str], typer.Argument(help="Record files (.json, .jsonl), or one published source list (llavavideo_si).")
    ],
    out: Annotated[Path, typer.Option(help="New folder, or one of an interrupted run.")],
    media: Annotated[Path, typer.Option(help="The records' paths are relative to this folder.")],
    kind: Annotated[Kind | None, typer.Option(help="Columns; a source list knows its own.")] = None,
    root: Annotated[Path, typer.Option(help="Where the files of a source list lie.")] = Path("data"),
    sample: Annotated[str, typer.Option(help="Of each file: all, first:N%, end:N% or random:N%.")] = "all",
    part: Annotated[str, typer.Option(help="k/N: the records with number modulo N = k.")] = "0/1",
    workers: Annotated[
        int, typer.Option(help="Sub-folders; as many at a time as there are CPUs.", callback=options.between(1, 1000))
    ] = 1,
    seed: Annotated[int, typer.Option(help="Of random sampling.", callback=options.between(0, options.MAX_SEED))] = 0,
    video_suffix: Annotated[
        str | None, typer.Option(help="'.safetensors': write the path of the features, not of the video.")
    ] = None,
    size_limit_mib: Annotated[
        int, typer.Option(help="Size of a shard in MiB.", callback=options.between(1, 4095))
    ] = 64,
) -> None:
    """Write MDS shards; stopped at any moment and started again, it goes on. What cannot be used is listed."""
    from hourllava.data.prepare.commands import run_shard

    for line in run_shard(
        records,
        out,
        media,
        kind.value if kind else None,
        root,
        sample,
        part,
        workers,
        seed,
        video_suffix,
        size_limit_mib,
    ):
        typer.echo(line)


def merge(
    folders: Annotated[list[Path], typer.Argument(help="A folder with workers' sub-folders, or with --out any parts.")],
    out: Annotated[Path | None, typer.Option(help="Folder for an index over the parts; no data is copied.")] = None,
    stage: Annotated[
        str | None, typer.Option(help="s1, s2 or s3: the published parts, found in the one folder given.")
    ] = None,
    mixture: Annotated[Path | None, typer.Option(help="The stage's mixture (.json), if not the published one.")] = None,
) -> None:
    """Write one index over shards in several folders, after checking that they are there and whole."""
    from hourllava.data.prepare.commands import run_merge

    for line in run_merge(folders, out, stage, mixture):
        typer.echo(line)


def lengths(
    folder: Annotated[Path, typer.Argument(help="A folder of shards, or of a stage's streams.")],
    model: Annotated[str, typer.Option(help="'nano', a checkpoint's folder, or its name on the Hugging Face hub.")],
    media: Annotated[
        Path | None,
        typer.Option(help="The rows' video paths are relative to it; by default to the stage's own, or 'data'."),
    ] = None,
    questions: Annotated[str, typer.Option(help="conversation, or segments: each question apart.")] = "conversation",
    processes: Annotated[
        int | None,
        typer.Option(
            help="Measuring; by default one for each CPU.", callback=options.between(1, options.MAX_PROCESSES)
        ),
    ] = None,
) -> None:
    """Write how long every row is for a model: training then starts at once. Opens videos, decodes none; goes on."""
    from hourllava.data.prepare.commands import run_lengths

    for line in run_lengths(folder, model, media, questions, processes):
        typer.echo(line)


def verify(
    folder: Annotated[Path, typer.Argument(help="A folder of shards, or of a stage's streams.")],
) -> None:
    """Check every shard: there, whole, its table of samples sound, its hashes right."""
    from hourllava.data.prepare.commands import run_verify

    for line in run_verify(folder):
        typer.echo(line)


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
