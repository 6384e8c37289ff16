"""`hourllava export`: a checkpoint as a folder for the Hugging Face hub."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class Layout(StrEnum):
    """How tensors and configuration are named."""

    ours = "ours"
    released = "released"


def export(
    checkpoint: Annotated[
        str, typer.Argument(metavar="CHECKPOINT", help="A checkpoint's folder, or its name on the Hugging Face hub.")
    ],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="New folder.")],
    layout: Annotated[
        Layout, typer.Option(help="Names of the tensors: ours, or those of jylins/hourllava-*.")
    ] = Layout.ours,
) -> None:
    """Write a checkpoint as a folder that is ready for the Hugging Face hub.

    It holds weights, configuration, tokenizer, recipe and model card.
    """
    from hourllava.training.export import export_model

    export_model(checkpoint, out, released=layout is Layout.released)
    typer.echo(str(out))
