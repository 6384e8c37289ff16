"""`hourllava world pictures`: images and texts with questions."""

from typing import Annotated

import typer

from hourllava.cli import options


def pictures(
    out: options.WorldOut,
    images: Annotated[
        int, typer.Option(help="Number of records with one image.", callback=options.between(0, 10_000_000))
    ] = 1000,
    multi_images: Annotated[
        int, typer.Option(help="Number of records with two to five images.", callback=options.between(0, 10_000_000))
    ] = 1000,
    texts: Annotated[
        int, typer.Option(help="Number of records without an image.", callback=options.between(0, 10_000_000))
    ] = 1000,
    questions: Annotated[
        int, typer.Option(help="Maximum questions per record with images.", callback=options.between(1, 20))
    ] = 5,
    seed: options.WorldSeed = 0,
    split: options.Split = "train",
    size_pixels: Annotated[
        int, typer.Option(help="Width and height of the images, in pixels.", callback=options.between(16, 2048))
    ] = 64,
    processes: options.WorldProcesses = 2,
) -> None:
    """Make training records with questions about images, sets of images and texts."""
    from hourllava.world.making.pictures import make_picture_settings, make_pictures

    settings = make_picture_settings(
        images=images,
        multi_images=multi_images,
        texts=texts,
        questions=questions,
        seed=seed,
        split=split,
        size_pixels=size_pixels,
    )
    make_pictures(settings, out, processes)
    typer.echo(str(out))
