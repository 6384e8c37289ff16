"""`hourllava world tokenizer`: the nano model's tokenizer."""

from pathlib import Path
from typing import Annotated

import typer


def tokenizer(out: Annotated[Path, typer.Option(help="Folder for the tokenizer's files.")]) -> None:
    """Train the nano model's tokenizer on the world's text; the shipped one was made so."""
    from hourllava.world.making.tokenizer import write_nano_tokenizer

    typer.echo(f"{len(write_nano_tokenizer(out))} tokens")
    typer.echo(str(out))
