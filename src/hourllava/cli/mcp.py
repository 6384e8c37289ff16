"""`hourllava mcp`: the model as tools of an agent that starts this command."""

from pathlib import Path
from typing import Annotated

import typer

from hourllava.cli import options
from hourllava.errors import ConfigError


def mcp(
    media_root: Annotated[Path, typer.Option(help="Folder whose videos the agent may watch.", file_okay=False)],
    model: options.Model = "nano",
    store: Annotated[
        Path | None, typer.Option(help="Folder for memories.", show_default="hourllava/store in the user's cache")
    ] = None,
    device: options.Device = None,
    dtype: options.Dtype = None,
) -> None:
    """Give an agent tools that watch and answer, over stdin and stdout (MCP).

    The agent's program starts this command and ends it. Nothing but the protocol is written to stdout.
    """
    try:
        from hourllava.serving.stdio import serve_stdio
    except ModuleNotFoundError as error:
        raise ConfigError(f"the tools need {error.name}; install hourllava[mcp]") from error
    from hourllava.folders import user_cache_folder

    folder = store or user_cache_folder("store")
    if folder is None:
        raise ConfigError("this user has no home folder; give --store")
    if not media_root.is_dir():
        raise ConfigError(f"{media_root} is no folder; give the folder of your videos")
    serve_stdio(model, folder, media_root, device=device, dtype=dtype)
