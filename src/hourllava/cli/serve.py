"""`hourllava serve`: a server for any OpenAI client, with a page for people."""

from pathlib import Path
from typing import Annotated

import typer

from hourllava.cli import options
from hourllava.errors import ConfigError


def serve(
    model: options.Model = "nano",
    host: Annotated[str, typer.Option(help="Address to listen at; 0.0.0.0 for all of this machine.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port; 0 takes a free one.", callback=options.between(0, 65535))] = 8000,
    store: Annotated[
        Path | None,
        typer.Option(help="Folder for uploads and memories.", show_default="hourllava/store in the user's cache"),
    ] = None,
    media_root: Annotated[
        Path | None, typer.Option(help="Folder whose videos clients may name.", show_default="none")
    ] = None,
    keys: Annotated[
        Path | None, typer.Option(help="File with lines NAME KEY; then every client needs a key.", show_default="none")
    ] = None,
    allow_host: Annotated[
        list[str] | None, typer.Option(help="Name of this server beside localhost and IP addresses.")
    ] = None,
    cors_origin: Annotated[
        list[str] | None, typer.Option(help="Origin of other web pages that may use the server.")
    ] = None,
    allow_url: Annotated[
        list[str] | None, typer.Option(help="Host that videos may be fetched from; * for all.")
    ] = None,
    public_url: Annotated[str, typer.Option(help="Address that clients see, if a proxy hides this one.")] = "",
    config: Annotated[
        Path | None, typer.Option(help="YAML file of limits; docs/serving.md lists them.", show_default="none")
    ] = None,
    replicas: Annotated[
        int | None,
        typer.Option(
            help="Processes of a Ray cluster that hold the model.",
            show_default="this process holds it",
            callback=options.between(1, 1000),
        ),
    ] = None,
    device: options.Device = None,
    dtype: options.Dtype = None,
) -> None:
    """Serve the model: an OpenAI-compatible API, and a page.

    Whoever reaches the server may use it, unless --keys is given. It ends on Ctrl-C or SIGTERM.
    """
    try:
        from hourllava.serving.config import load_settings
        from hourllava.serving.start import serve as serve_model
    except ModuleNotFoundError as error:
        raise ConfigError(f"the server needs {error.name}; install hourllava[serve]") from error
    from hourllava.folders import user_cache_folder

    settings = load_settings(
        config,
        keys,
        media_root=media_root,
        allowed_hosts=tuple(allow_host or ()),
        cors_origins=tuple(cors_origin or ()),
        allow_url_hosts=tuple(allow_url or ()),
        public_url=public_url,
    )
    folder = store or user_cache_folder("store")
    if folder is None:
        raise ConfigError("this user has no home folder; give --store")
    serve_model(
        model,
        folder,
        settings,
        host=host,
        port=port,
        num_replicas=replicas,
        device=device,
        dtype=dtype,
        say=typer.echo,
    )
