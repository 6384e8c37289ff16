"""`hourllava cache clear`: room on the disk."""

import typer


def clear() -> None:
    """Remove all memories from the cache."""
    from hourllava.inference.memories.cache import MemoryCache

    typer.echo(f"freed {MemoryCache().clear() / 1e6:.1f} MB")
