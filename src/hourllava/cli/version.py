"""`hourllava version`."""

import typer

from hourllava import __version__


def version() -> None:
    """Print the version."""
    typer.echo(__version__)
