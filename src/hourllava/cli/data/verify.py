"""`hourllava data verify`: whether shards are whole."""

import typer

from hourllava.cli import options


def verify(folder: options.ShardFolder) -> None:
    """Check that every shard is there and undamaged: size, table of samples, hashes."""
    from hourllava.data.prepare.commands import run_verify

    for line in run_verify(folder):
        typer.echo(line)
