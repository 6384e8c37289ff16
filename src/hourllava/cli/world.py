"""`hourllava world`: make MarathonWorld videos with questions, and measure blind guessing."""

from pathlib import Path
from typing import Annotated

import typer

from hourllava.cli import options

Seed = Annotated[
    int, typer.Option(help="The same seed gives the same data set.", callback=options.between(0, options.MAX_SEED))
]

app = typer.Typer(help="MarathonWorld: long videos whose answers are known.", no_args_is_help=True)


@app.command()
def make(
    out: Annotated[Path, typer.Option(help="New or empty folder, or one of an interrupted run.")],
    videos: Annotated[int, typer.Option(help="How many videos.", callback=options.between(1, 1_000_000))] = 40,
    minutes: Annotated[str, typer.Option(help="Length of a video, as a range (3-60) or one number.")] = "3-60",
    seed: Seed = 0,
    split: Annotated[str, typer.Option(help="train or test: other objects, phrasings and seeds.")] = "train",
    difficulty: Annotated[str, typer.Option(help="easy, normal, hard or dense.")] = "normal",
    needles: Annotated[
        int | None,
        typer.Option(help="Cards per video; default: one per event, at least 4.", callback=options.between(0, 1000)),
    ] = None,
    painted: Annotated[
        bool, typer.Option("--painted", help="Objects in colours without a name, named by their shapes.")
    ] = False,
    per_task: Annotated[
        int, typer.Option(help="Questions per video, task and format.", callback=options.between(1, 100))
    ] = 3,
    formats: Annotated[str, typer.Option(help="Questions: open, choice, or both.")] = "both",
    tasks: Annotated[str, typer.Option(help="Names of tasks, with commas between them, or all.")] = "all",
    size_pixels: Annotated[
        int, typer.Option(help="Width and height of the videos.", callback=options.between(64, 2048))
    ] = 256,
    container: Annotated[str, typer.Option(help="mp4, webm, or reference: rendered when read.")] = "mp4",
    questions: Annotated[
        int,
        typer.Option(
            help="Most questions of a training record, all about one video.", callback=options.between(1, 1000)
        ),
    ] = 1,
    captions: Annotated[
        int,
        typer.Option(
            help="Descriptions of each video among its questions, at most.", callback=options.between(0, 1000)
        ),
    ] = 0,
    tables: Annotated[bool, typer.Option(help="Write questions.parquet and captions.jsonl too.")] = True,
    processes: Annotated[
        int,
        typer.Option(help="How many videos are made at a time.", callback=options.between(1, options.MAX_PROCESSES)),
    ] = 2,
) -> None:
    """Make videos, scripts, captions, questions and training records in VideoMarathon's folders."""
    from hourllava.world.making.make import make_settings, make_world

    settings = make_settings(
        videos, minutes, seed, split, difficulty, needles, per_task, formats, size_pixels, container, questions,
        captions, tables, tasks, painted,
    )  # fmt: skip
    make_world(settings, out, processes)
    typer.echo(str(out))


@app.command()
def pictures(
    out: Annotated[Path, typer.Option(help="New or empty folder, or one of an interrupted run.")],
    images: Annotated[
        int, typer.Option(help="Records about one image.", callback=options.between(0, 10_000_000))
    ] = 1000,
    multi_images: Annotated[
        int, typer.Option(help="Records about two to five images.", callback=options.between(0, 10_000_000))
    ] = 1000,
    texts: Annotated[
        int, typer.Option(help="Records without an image.", callback=options.between(0, 10_000_000))
    ] = 1000,
    questions: Annotated[
        int, typer.Option(help="Most questions of a record with images.", callback=options.between(1, 20))
    ] = 5,
    seed: Seed = 0,
    split: Annotated[str, typer.Option(help="train or test: other objects, phrasings and seeds.")] = "train",
    size_pixels: Annotated[
        int, typer.Option(help="Width and height of the images.", callback=options.between(16, 2048))
    ] = 64,
    processes: Annotated[
        int,
        typer.Option(help="How many records are made at a time.", callback=options.between(1, options.MAX_PROCESSES)),
    ] = 2,
) -> None:
    """Make images, sets of images and texts with questions, as training records."""
    from hourllava.world.making.pictures import make_picture_settings, make_pictures

    make_pictures(
        make_picture_settings(images, multi_images, texts, questions, seed, split, size_pixels), out, processes
    )
    typer.echo(str(out))


@app.command()
def blind(
    videos: Annotated[
        int,
        typer.Option(help="Videos to learn from, and as many to be tested on.", callback=options.between(2, 1_000_000)),
    ] = 500,
    per_task: Annotated[int, typer.Option(help="Questions per video and task.", callback=options.between(1, 100))] = 4,
    test_split: Annotated[str, typer.Option(help="test, or train: other seeds of the split learnt from.")] = "test",
) -> None:
    """Print how far guessing gets on multiple choice without watching, as a Markdown table in percent."""
    from hourllava.world.making.blind import blind_table

    typer.echo(blind_table(videos, per_task, test_split))


@app.command()
def tokenizer(out: Annotated[Path, typer.Option(help="Folder for the tokenizer's files.")]) -> None:
    """Train the nano model's tokenizer on the world's text; the shipped one was made so."""
    from hourllava.world.making.tokenizer import write_nano_tokenizer

    typer.echo(f"{len(write_nano_tokenizer(out))} tokens")
    typer.echo(str(out))
