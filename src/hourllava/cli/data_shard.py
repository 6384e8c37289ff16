"""`hourllava data shard` and `hourllava data merge`: records -> MDS shards -> one index."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


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
    workers: Annotated[int, typer.Option(help="Sub-folders; as many at a time as there are CPUs.")] = 1,
    seed: Annotated[int, typer.Option(help="Of random sampling.")] = 0,
    video_suffix: Annotated[
        str | None, typer.Option(help="'.safetensors': write the path of the features, not of the video.")
    ] = None,
    size_limit_mib: Annotated[int, typer.Option(help="Size of a shard in MiB.")] = 64,
) -> None:
    """Write MDS shards; stopped at any moment and started again, it goes on. What cannot be used is listed."""
    from hourllava.data.shard_run import run_shard

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
) -> None:
    """Write one index over shards in several folders, after checking that they are there and whole."""
    from hourllava.data.shard_run import run_merge

    for line in run_merge(folders, out, stage):
        typer.echo(line)
