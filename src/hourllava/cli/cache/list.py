"""`hourllava cache list`: the memories in the cache."""

import json

import typer

from hourllava.cli import options


def list_entries(as_json: options.Json = False) -> None:
    """List the memories in the cache, the last used first."""
    import dataclasses

    from hourllava.clock import format_clock
    from hourllava.inference.memories.cache import MemoryCache

    entries = MemoryCache().entries()
    if as_json:
        typer.echo(json.dumps([dataclasses.asdict(entry) for entry in entries]))
        return
    for entry in entries:
        duration = format_clock(entry.duration_seconds)
        typer.echo(f"{entry.num_bytes / 1e6:9.1f} MB  {duration}  {entry.num_frames:6d} frames  {entry.source_name}")
