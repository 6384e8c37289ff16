"""`hourllava world pictures`: images and texts with questions."""

from pathlib import Path
from typing import Annotated

import typer

from hourllava.cli import options


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
    seed: options.WorldSeed = 0,
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
