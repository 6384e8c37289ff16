"""Puts the commands together."""

from collections.abc import Callable

import typer

from hourllava import __version__
from hourllava.cli import ask, chat, demo, export, info, train, watch
from hourllava.cli.cache import clear
from hourllava.cli.cache import list as list_
from hourllava.cli.data import check, features, group, lengths, merge, prepare, shard, sources, stats, verify
from hourllava.cli.eval import score
from hourllava.cli.eval import world as eval_world
from hourllava.cli.world import blind, make, pictures, tokenizer

app = typer.Typer(
    name="hourllava",
    help="Watch a video once, ask it anything, for as long as you like.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
command: Callable[..., None]
for command in (demo.demo, watch.watch, ask.ask, chat.chat, train.train, export.export, info.info):
    app.command()(command)

cache_app = typer.Typer(help="List or clear the memories of videos that were watched.", no_args_is_help=True)
cache_app.command("list")(list_.list_entries)
cache_app.command()(clear.clear)

world_app = typer.Typer(help="MarathonWorld: long videos whose answers are known.", no_args_is_help=True)
for command in (make.make, pictures.pictures, blind.blind, tokenizer.tokenizer):
    world_app.command()(command)

data_app = typer.Typer(help="Data sets: check, prepare, look at.", no_args_is_help=True)
for command in (
    stats.stats, check.check, sources.sources, group.group, features.features, prepare.prepare, shard.shard,
    merge.merge, lengths.lengths, verify.verify,
):  # fmt: skip
    data_app.command()(command)

eval_app = typer.Typer(help="Benchmarks: how well a model sees, remembers and finds again.", no_args_is_help=True)
for command in (score.score, eval_world.world):
    eval_app.command()(command)

app.add_typer(cache_app, name="cache")
app.add_typer(world_app, name="world")
app.add_typer(data_app, name="data")
app.add_typer(eval_app, name="eval")


@app.command()
def version() -> None:
    """Print the version."""
    typer.echo(__version__)
