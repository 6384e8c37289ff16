"""`hourllava data shard`: records as MDS shards."""

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
