"""`hourllava synth`: from videos to a data set."""

from pathlib import Path
from typing import Annotated

import typer

from hourllava.cli import options


def synth(
    videos: Annotated[list[Path], typer.Argument(metavar="VIDEO", help="Video files, or folders to search for them.")],
    out: Annotated[Path, typer.Option(help="New or empty folder, or the folder of an earlier run.")],
    captioner: Annotated[
        str | None, typer.Option(help="Model for clips: MODEL@ADDRESS, hourllava:NAME, or world.")
    ] = None,
    writer: Annotated[str | None, typer.Option(help="Model for events and questions: MODEL@ADDRESS, or world.")] = None,
    verifier: Annotated[
        str | None, typer.Option(help="Another model that checks the questions.", show_default="none")
    ] = None,
    settings: Annotated[Path | None, typer.Option(help="Settings (.yaml).", show_default="ours")] = None,
    prompts: Annotated[Path | None, typer.Option(help="Folder of prompts in place of ours.")] = None,
    sources: Annotated[Path | None, typer.Option(help="Addresses and licences of videos (.jsonl).")] = None,
    until: Annotated[
        str,
        typer.Option(
            help="Last stage: clips, captions, events, event_captions, summaries, questions, checks or records."
        ),
    ] = "records",
    retry_errors: Annotated[
        bool, typer.Option("--retry-errors", help="Try again what earlier runs have given up.")
    ] = False,
    limit: Annotated[
        int | None,
        typer.Option(help="Only so many videos.", callback=options.between(1, 10**9), show_default="all"),
    ] = None,
    shard: Annotated[str, typer.Option(help="i/n takes every n-th video from number i on; i starts at 0.")] = "0/1",
    form: Annotated[
        str, typer.Option("--format", help="training, or videomarathon to write the published columns, too.")
    ] = "training",
    max_tokens: Annotated[
        int | None,
        typer.Option(help="Stop when so many are used.", callback=options.between(1, 10**15), show_default="no limit"),
    ] = None,
    max_cost: Annotated[
        float | None,
        typer.Option(
            help="Stop at this cost, by the prices in the settings.",
            callback=options.between(0, 10**9),
            show_default="no limit",
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only estimate requests, tokens and cost; ask no model.")
    ] = False,
) -> None:
    """Make questions about your videos with models that caption and write.

    Clips are described, events found, questions written and checked.
    After an interruption, run the same command again to resume.
    The exit code is 9 if items were given up, or the budget is spent.
    """
    from hourllava.synthesis.command import SynthOptions, run_synth
    from hourllava.synthesis.estimate import run_estimate
    from hourllava.synthesis.job import Cast

    given = SynthOptions(
        videos=videos,
        out=out,
        cast=Cast(captioner, writer, verifier),
        settings=settings,
        prompts=prompts,
        terms=sources,
        until=until,
        retry_errors=retry_errors,
        limit=limit,
        part=shard,
        form=form,
        max_tokens=max_tokens,
        max_cost=max_cost,
    )
    for line in run_estimate(given) if dry_run else run_synth(given):
        typer.echo(line)
