"""`hourllava train`: train by a recipe."""

from typing import Annotated

import typer

from hourllava.cli import options


def train(
    recipe: Annotated[str, typer.Argument(metavar="RECIPE", help="A YAML file, or a shipped one: recipes/...")],
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change a setting: batch.samples=64.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Tell what would be done; load no weights.")] = False,
    gpus: Annotated[
        int | None,
        typer.Option(
            callback=options.between(1, 1024), help="Processes to start on this machine; with --dry-run, to plan for."
        ),
    ] = None,
) -> None:
    """Train by a recipe; the same command goes on where a run was stopped. See docs/training.md."""
    from hourllava.training.command import run_train

    for line in run_train(recipe, set_ or [], dry_run=dry_run, gpus=gpus):
        typer.echo(line)
