"""`hourllava data shard`: records as MDS shards."""

from pathlib import Path
from typing import Annotated

import typer

from hourllava.cli import options


def shard(
    records: Annotated[
        list[str],
        typer.Argument(metavar="FILE", help="Record files (.json, .jsonl), or one published source list by name."),
    ],
    out: Annotated[Path, typer.Option(help="New folder, or the folder of an interrupted run.")],
    media: Annotated[Path, typer.Option(help="Folder that the paths in the records start from.")],
    kind: Annotated[
        str | None, typer.Option(help="Media of a record: video, image or images.", show_default="the source list's")
    ] = None,
    root: Annotated[Path, typer.Option(help="Folder of the source list's files.")] = Path("data"),
    sample: Annotated[str, typer.Option(help="Share of each file: all, first:N%, end:N% or random:N%.")] = "all",
    part: Annotated[str, typer.Option(help="k/N takes every N-th record from number k on; k starts at 0.")] = "0/1",
    workers: Annotated[
        int,
        typer.Option(
            help="Sub-folders to write, as many at the same time as there are cores.", callback=options.between(1, 1000)
        ),
    ] = 1,
    seed: Annotated[
        int, typer.Option(help="Seed of --sample random:N%.", callback=options.between(0, options.MAX_SEED))
    ] = 0,
    video_suffix: Annotated[
        str | None,
        typer.Option(
            help="Name feature files with this ending, such as .safetensors, in place of videos.", show_default="videos"
        ),
    ] = None,
    size_limit_mib: Annotated[
        int, typer.Option(help="Maximum size of a shard, in MiB.", callback=options.between(1, 4095))
    ] = 64,
) -> None:
    """Write records as MDS shards, and list the records that cannot be used.

    After an interruption, run the same command again to resume.
    """
    from hourllava.data.prepare.commands import run_shard

    for line in run_shard(
        records,
        out,
        media_root=media,
        kind=kind,
        records_root=root,
        sample=sample,
        part=part,
        num_workers=workers,
        seed=seed,
        video_suffix=video_suffix,
        size_limit_mib=size_limit_mib,
    ):
        typer.echo(line)
