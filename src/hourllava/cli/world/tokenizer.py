"""`hourllava world tokenizer`: the tokenizer of the nano model."""

from pathlib import Path
from typing import Annotated

import typer


def tokenizer(out: Annotated[Path, typer.Option(help="Folder for the tokenizer's files.")]) -> None:
    """Train the nano model's tokenizer on the texts of MarathonWorld."""
    from hourllava.world.making.tokenizer import write_nano_tokenizer

    typer.echo(f"{len(write_nano_tokenizer(out))} tokens")
    typer.echo(str(out))
