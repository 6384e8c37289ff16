"""`hourllava watch`: watch a video and keep its memory."""

import json
from pathlib import Path
from typing import Annotated

import typer

from hourllava.cli import options


def watch(
    file: options.File,
    model: options.Model = "nano",
    fps: options.Fps = 1.0,
    from_: options.From = "0",
    to: options.To = None,
    save: Annotated[
        Path | None, typer.Option(help="File for the memory (.safetensors).", show_default="the cache only")
    ] = None,
    as_json: options.Json = False,
    no_cache: options.NoCache = False,
    device: options.Device = None,
    dtype: options.Dtype = None,
    allow_network: options.AllowNetwork = False,
    allow_playlists: options.AllowPlaylists = False,
) -> None:
    """Watch a video and save its memory.

    Afterwards, ask and chat find the memory in the cache.
    """
    from hourllava.cli.session import describe_memory, open_memory

    _, memory = open_memory(
        file,
        model,
        device=device,
        dtype=dtype,
        fps=fps,
        start=from_,
        end=to,
        use_cache=not no_cache,
        allow_network=allow_network,
        allow_playlists=allow_playlists,
    )
    if save is not None:
        memory.save(save)
    typer.echo(json.dumps(describe_memory(memory, file)) if as_json else str(memory))
    if not as_json:
        for gap in describe_memory(memory, file)["gaps"]:
            typer.echo(f"gap: {gap['start_seconds']:.1f} s - {gap['end_seconds']:.1f} s: {gap['reason']}", err=True)
