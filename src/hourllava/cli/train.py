"""`hourllava train`: train a model by a recipe."""

from typing import Annotated

import typer

from hourllava.cli import options


def _list(wanted: bool) -> None:
    if wanted:
        from hourllava.training.shipped import describe_recipes

        for line in describe_recipes():
            typer.echo(line)
        raise typer.Exit


def train(
    recipe: Annotated[str, typer.Argument(metavar="RECIPE", help="YAML file, or the name of a shipped recipe.")],
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change a setting, such as batch.samples=64; repeatable."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan; load no weights.")] = False,
    gpus: Annotated[
        int | None,
        typer.Option(
            help="Processes to start on this machine; with --dry-run, to plan for.",
            callback=options.between(1, 1024),
            show_default="one, in this process",
        ),
    ] = None,
    list_: Annotated[
        bool, typer.Option("--list", help="List the shipped recipes and exit.", is_eager=True, callback=_list)
    ] = False,
) -> None:
    """Train a model by a recipe; see docs/training.md.

    After an interruption, run the same command again to resume.
    """
    from hourllava.training.command import run_train

    for line in run_train(recipe, set_ or [], dry_run=dry_run, gpus=gpus):
        typer.echo(line)
