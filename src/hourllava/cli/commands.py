"""All commands, in the order and under the headings of the help screens."""

from typing import Any

import typer
from typer.core import TyperGroup

from hourllava.cli import ask, chat, demo, export, info, mcp, serve, synth, train, version, watch
from hourllava.cli.cache import clear
from hourllava.cli.cache import list as list_
from hourllava.cli.data import check, features, group, lengths, merge, prepare, shard, show, sources, stats, verify
from hourllava.cli.eval import benchmark, score
from hourllava.cli.eval import check as eval_check
from hourllava.cli.eval import export as eval_export
from hourllava.cli.eval import make as eval_make
from hourllava.cli.eval import world as eval_world
from hourllava.cli.world import blind, make, pictures, tokenizer

ORDER = (
    "watch",
    "ask",
    "chat",
    "serve",
    "mcp",
    "demo",
    "data",
    "synth",
    "train",
    "eval",
    "export",
    "world",
    "cache",
    "info",
    "version",
)


class _InOrder(TyperGroup):
    """Shows commands in our order; Typer's own shows groups of commands last."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Names of all commands."""
        return sorted(super().list_commands(ctx), key=ORDER.index)


app = typer.Typer(
    name="hourllava",
    cls=_InOrder,
    help="Watch a video once, ask it anything, for as long as you like.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)

heading = "Watch and ask"
app.command(rich_help_panel=heading)(watch.watch)
app.command(rich_help_panel=heading)(ask.ask)
app.command(rich_help_panel=heading)(chat.chat)
app.command(rich_help_panel=heading)(serve.serve)
app.command(rich_help_panel=heading)(mcp.mcp)
app.command(rich_help_panel=heading)(demo.demo)

heading = "Prepare data, train, measure"
data_app = typer.Typer(help="Check data sets and write them as shards for training.", no_args_is_help=True)
app.add_typer(data_app, name="data", rich_help_panel=heading)
app.command(rich_help_panel=heading)(synth.synth)
app.command(rich_help_panel=heading)(train.train)
eval_app = typer.Typer(help="Measure how well a model sees, remembers and finds moments.", no_args_is_help=True)
app.add_typer(eval_app, name="eval", rich_help_panel=heading)
app.command(rich_help_panel=heading)(export.export)
world_app = typer.Typer(help="Make MarathonWorld: long videos with known answers.", no_args_is_help=True)
app.add_typer(world_app, name="world", rich_help_panel=heading)

heading = "This installation"
cache_app = typer.Typer(help="List or remove the memories of watched videos.", no_args_is_help=True)
app.add_typer(cache_app, name="cache", rich_help_panel=heading)
app.command(rich_help_panel=heading)(info.info)
app.command(rich_help_panel=heading)(version.version)

heading = "From raw files to training data"
data_app.command(rich_help_panel=heading)(sources.sources)
data_app.command(rich_help_panel=heading)(check.check)
data_app.command(rich_help_panel=heading)(prepare.prepare)
heading = "The steps of prepare, one by one"
data_app.command(rich_help_panel=heading)(group.group)
data_app.command(rich_help_panel=heading)(features.features)
data_app.command(rich_help_panel=heading)(shard.shard)
data_app.command(rich_help_panel=heading)(merge.merge)
data_app.command(rich_help_panel=heading)(lengths.lengths)
data_app.command(rich_help_panel=heading)(verify.verify)
heading = "Look at a data set"
data_app.command(rich_help_panel=heading)(stats.stats)
data_app.command(rich_help_panel=heading)(show.show)

heading = "Videos that are made here"
eval_app.command(rich_help_panel=heading)(eval_world.world)
eval_app.command("make", rich_help_panel=heading)(eval_make.make)
for name in benchmark.MADE_TITLES:
    eval_app.command(name, rich_help_panel=heading)(benchmark.benchmark_command(name))
heading = "Public benchmarks"
eval_app.command(rich_help_panel=heading)(eval_check.check)
for name in benchmark.TITLES:
    eval_app.command(name, rich_help_panel=heading)(benchmark.benchmark_command(name))
heading = "Kept answers"
eval_app.command(rich_help_panel=heading)(score.score)
eval_app.command(rich_help_panel=heading)(eval_export.export)

world_app.command()(make.make)
world_app.command()(pictures.pictures)
world_app.command()(blind.blind)
world_app.command()(tokenizer.tokenizer)

cache_app.command("list")(list_.list_entries)
cache_app.command()(clear.clear)
