"""`hourllava info`: versions, devices, models and cache."""

import json
from typing import Annotated

import typer

from hourllava.cli import options


def info(
    model: Annotated[list[str] | None, typer.Option(help="Another model to describe; repeatable.")] = None,
    as_json: options.Json = False,
) -> None:
    """Show versions, devices, models and the cache of memories."""
    from hourllava.cli.session import describe_installation

    described = describe_installation(["nano", *(model or [])])
    if as_json:
        typer.echo(json.dumps(described))
        return
    for name, version in described["versions"].items():
        typer.echo(f"{name:<14}{version}")
    for number, device in enumerate(described["devices"]):
        typer.echo(f"{'' if number else 'devices':<14}{device}")
    for number, (name, text) in enumerate(described["models"].items()):
        typer.echo(f"{'' if number else 'models':<14}{name}: {text}")
    cache = described["cache"]
    size = f"{cache['num_bytes'] / 1e9:.2f} of at most {cache['max_bytes'] / 1e9:.0f} GB"
    if cache["folder"] is None:
        typer.echo(f"{'cache':<14}none: this user has no home folder")
        return
    typer.echo(f"{'cache':<14}{cache['num_memories']} memories, {size}, in {cache['folder']}")
