"""Options that the commands for public benchmarks share."""

from pathlib import Path
from typing import Annotated

import typer

from hourllava.cli.options import between

Data = Annotated[Path, typer.Argument(metavar="DATA", help="Folder of the benchmark's downloaded files.")]
Out = Annotated[Path, typer.Option(help="New or empty folder, or the folder of an interrupted run.")]
Split = Annotated[str | None, typer.Option(help="Part of the benchmark.", show_default="the usual one")]
Protocol = Annotated[
    str | None,
    typer.Option(
        help="How questions are asked: official, lmms-eval-0.7.2, lmms-eval-0.3, likelihood, or plain.",
        show_default="the usual one",
    ),
]
Subtitles = Annotated[bool, typer.Option("--subtitles", help="Put subtitles into the prompts, as the protocol says.")]
Condition = Annotated[
    str,
    typer.Option(help="What the model has seen: video, frames_only (MemAug finds the kept tokens only), or blind."),
]
Engine = Annotated[
    str, typer.Option(help="local: this process. ray: all devices of a Ray cluster, by default this machine's.")
]
Server = Annotated[
    str | None,
    typer.Option(help="Ask a model behind an OpenAI-compatible server instead of --model.", show_default="none"),
]
ServerModel = Annotated[str | None, typer.Option(help="The model's name on that server.", show_default="none")]
ServerVideos = Annotated[
    str, typer.Option(help="Address under which the server finds DATA.", show_default="file:// and the path")
]
Shard = Annotated[str, typer.Option(help="Run part k of N only, written k/N, such as 0/4; each part has whole videos.")]
Limit = Annotated[
    int | None,
    typer.Option(help="Ask about the first so many videos only.", callback=between(1, 10**9), show_default="all"),
]
Memories = Annotated[
    Path | None,
    typer.Option(help="Folder of memories to share among runs and models with one tower.", show_default="none"),
]
Judge = Annotated[
    str | None,
    typer.Option(help="Address of an OpenAI-compatible server with a judge for free answers.", show_default="none"),
]
JudgeModel = Annotated[
    str | None, typer.Option(help="The judge's name on that server.", show_default="gpt-3.5-turbo-1106")
]
Rule = Annotated[
    str | None,
    typer.Option(help="Rule that reads the raw answers of a benchmark.", show_default="that of the run's protocol"),
]
