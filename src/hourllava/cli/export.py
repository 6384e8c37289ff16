"""`hourllava export`: a checkpoint as a folder to give away."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class Layout(StrEnum):
    """How tensors and configuration are named."""

    ours = "ours"
    released = "released"


def export(
    checkpoint: Annotated[str, typer.Argument(help="Folder of a checkpoint, or its name on the Hugging Face hub.")],
    out: Annotated[Path, typer.Argument(help="New folder.")],
    layout: Annotated[Layout, typer.Option(help="ours, or the one of jylins/hourllava-*.")] = Layout.ours,
) -> None:
    """Write a folder that is ready for the hub: weights, configuration, tokenizer, recipe, model card."""
    from hourllava.training.export import export_model

    export_model(checkpoint, out, released=layout is Layout.released)
    typer.echo(str(out))
