"""`hourllava data`: look at data sets, mend them, make features of their videos, write them as shards."""

from pathlib import Path
from typing import Annotated

import typer

from hourllava.cli import options
from hourllava.cli.data_shard import lengths, merge, prepare, shard, verify

app = typer.Typer(help="Data sets: check, prepare, look at.", no_args_is_help=True)

Records = Annotated[Path, typer.Argument(help="Training records or questions: .json (a list), .jsonl or .parquet.")]


@app.callback()
def data() -> None:
    """Data sets: check, prepare, look at."""


@app.command()
def stats(
    source: Annotated[Path, typer.Argument(help="A folder with jsons/, or a .json, .jsonl or .parquet file.")],
    out: Annotated[Path, typer.Option(help="Folder for the pictures and tables.")] = Path("stats"),
    name: Annotated[str | None, typer.Option(help="What it is called in pictures; by default as its file.")] = None,
) -> None:
    """Draw the data set's figures (PNG, SVG) and write its tables (Markdown, JSON)."""
    from hourllava.data.records.statistics_report import write_statistics

    for line in write_statistics(source, out, name):
        typer.echo(line)


@app.command()
def check(
    file: Records,
    media: Annotated[Path | None, typer.Option(help="Folder of the media, or of the sources' folders.")] = None,
    fix: Annotated[Path | None, typer.Option(metavar="OUT", help="Write a copy without the problems.")] = None,
    all_: Annotated[bool, typer.Option("--all", help="Print every problem, not only the first 20 of a kind.")] = False,
) -> None:
    """Report every problem of a file of records; exit code 9 if some records have any, 6 if all do."""
    from hourllava.data.records.mend import check_and_fix

    for line in check_and_fix(file, media=media, fix=fix, shown_per_kind=None if all_ else 20):
        typer.echo(line)


@app.command()
def sources(
    root: Annotated[Path, typer.Option(help="Folder of all data sets.")] = Path("data"),
    records: Annotated[Path | None, typer.Option(help="Verify that the media these records name are there.")] = None,
    media: Annotated[Path | None, typer.Option(help="Where: by default VideoMarathon/videos in the root.")] = None,
    report: Annotated[Path | None, typer.Option(help="What was found (.jsonl); beside the records by default.")] = None,
    processes: Annotated[
        int | None, typer.Option(help="Files opened at a time.", callback=options.between(1, options.MAX_PROCESSES))
    ] = None,
) -> None:
    """List where data comes from and must lie; with --records, open all media (exit code 9 if some are not well)."""
    from hourllava.data.records.sources import describe_sources

    for line in describe_sources(root, records, media, report, processes):
        typer.echo(line)


@app.command()
def group(
    file: Records,
    out: Annotated[Path, typer.Argument(help="Training records: .json or .jsonl.")],
    questions: Annotated[
        int,
        typer.Option(
            help="Most questions in a record; conversations are never cut.", callback=options.between(1, 1000)
        ),
    ] = 5,
    seed: Annotated[
        int,
        typer.Option(help="Another one puts other questions together.", callback=options.between(0, options.MAX_SEED)),
    ] = 0,
) -> None:
    """Join questions about one video into training records of several turns."""
    from hourllava.data.records.group import run_group

    for line in run_group(file, out, questions, seed):
        typer.echo(line)


@app.command()
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


for command in (prepare, shard, merge, lengths, verify):
    app.command()(command)
