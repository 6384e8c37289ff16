"""`hourllava cache`: the memories that were kept."""

import json

import typer

from hourllava.cli import options

app = typer.Typer(help="List or clear the memories of videos that were watched.", no_args_is_help=True)


@app.command("list")
def list_entries(as_json: options.Json = False) -> None:
    """List the memories in the cache, the last used first."""
    import dataclasses

    from hourllava.clock import format_clock
    from hourllava.inference.cache import MemoryCache

    entries = sorted(MemoryCache().entries(), key=lambda entry: -entry.last_used)
    if as_json:
        typer.echo(json.dumps([dataclasses.asdict(entry) for entry in entries]))
        return
    for entry in entries:
        duration = format_clock(entry.duration_seconds)
        typer.echo(f"{entry.num_bytes / 1e6:9.1f} MB  {duration}  {entry.num_frames:6d} frames  {entry.source_name}")


@app.command()
def clear() -> None:
    """Remove all memories from the cache."""
    from hourllava.inference.cache import MemoryCache

    typer.echo(f"freed {MemoryCache().clear() / 1e6:.1f} MB")
