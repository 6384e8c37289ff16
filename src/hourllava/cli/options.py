"""Options that several commands share."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from hourllava.errors import ConfigError

MAX_SEED = 2**63 - 1  # the largest seed that every generator takes
MAX_PROCESSES = 256


def between(low: float, high: float) -> Callable[[typer.CallbackParam, float | None], float | None]:
    """A callback that refuses numbers outside a range in one line; it refuses `nan`, too, which Typer's `min` takes."""

    def check(param: typer.CallbackParam, value: float | None) -> float | None:
        if value is not None and not low <= value <= high:
            raise ConfigError(f"--{(param.name or '').replace('_', '-')} is {value}; use {low} to {high}")
        return value

    return check


# A video, and the model that watches it.
File = Annotated[
    str, typer.Argument(metavar="FILE", help="Video, folder of frames, saved memory, or - for standard input.")
]
Model = Annotated[str, typer.Option(help="nano, a checkpoint's folder, or its name on the Hugging Face hub.")]
Fps = Annotated[float, typer.Option(help="Frames per second to watch.", callback=between(0.001, 1000))]
From = Annotated[str, typer.Option("--from", help="Where to start, in seconds or h:mm:ss, as a player shows it.")]
To = Annotated[str | None, typer.Option("--to", help="Where to stop, in seconds or h:mm:ss.", show_default="the end")]
NoCache = Annotated[bool, typer.Option("--no-cache", help="Neither read nor write the cache of memories.")]
Device = Annotated[
    str | None,
    typer.Option(help="Device of the model: cpu, cuda, cuda:1, ...", show_default="a GPU if there is one"),
]
Dtype = Annotated[
    str | None,
    typer.Option(help="Type of the weights: float32 or bfloat16.", show_default="bfloat16 on a GPU, else float32"),
]
AllowNetwork = Annotated[bool, typer.Option("--allow-network", help="Let FILE be an http or https address.")]
AllowPlaylists = Annotated[
    bool, typer.Option("--allow-playlists", help="Let FILE be a playlist, which names other files.")
]

# Questions and answers.
Subtitles = Annotated[
    str | None, typer.Option(help="Subtitle file (.srt or .vtt); the model reads the lines near its evidence.")
]
SubtitlesEncoding = Annotated[
    str | None, typer.Option(help="Encoding of the subtitle file, such as windows-1251.", show_default="detected")
]
MaxNewTokens = Annotated[int, typer.Option(help="Maximum length of an answer, in tokens.", callback=between(1, 32768))]
Temperature = Annotated[
    float,
    typer.Option(help="Randomness of the answer; 0 always takes the likeliest token.", callback=between(0, 100)),
]
Seed = Annotated[
    int, typer.Option(help="Seed of the random draws at a temperature above 0.", callback=between(0, MAX_SEED))
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON; docs/commands.md describes the fields.")]

# Data sets.
Records = Annotated[
    Path, typer.Argument(metavar="FILE", help="Training records or questions: .json (a list), .jsonl or .parquet.")
]
Root = Annotated[Path, typer.Option(help="Folder of all data sets.")]
MixtureFile = Annotated[
    Path | None, typer.Option(help="Mixture of data sets (.json).", show_default="the published one")
]
ShardFolder = Annotated[Path, typer.Argument(metavar="FOLDER", help="Folder of shards, or of a prepared stage.")]
RowMedia = Annotated[
    Path | None,
    typer.Option(help="Folder that the videos' paths start from.", show_default="the stage's, else data"),
]
MeasuredQuestions = Annotated[
    str, typer.Option(help="How training will ask: conversation (all in one), or segments (one by one).")
]
MeasuredHistory = Annotated[
    int,
    typer.Option(help="With segments: maximum earlier questions in front of a question.", callback=between(0, 1000)),
]
Devices = Annotated[
    str | None, typer.Option(help="Devices to use, such as cuda:0,cuda:1.", show_default="all GPUs, or the CPU")
]
Decoders = Annotated[
    int | None,
    typer.Option(
        help="Videos decoded at the same time, per device.",
        callback=between(1, 32),
        show_default="the device's share of the cores",
    ),
]
Processes = Annotated[
    int | None,
    typer.Option(help="Processes to use.", callback=between(1, MAX_PROCESSES), show_default="one per core"),
]

# MarathonWorld.
WorldOut = Annotated[Path, typer.Option(help="New or empty folder, or the folder of an interrupted run.")]
WorldSeed = Annotated[int, typer.Option(help="Seed; the same seed gives the same data.", callback=between(0, MAX_SEED))]
WorldProcesses = Annotated[int, typer.Option(help="Processes to use.", callback=between(1, MAX_PROCESSES))]
Split = Annotated[str, typer.Option(help="train or test; they differ in objects, phrasings and seeds.")]
PerTask = Annotated[int, typer.Option(help="Questions per video, task and format.", callback=between(1, 100))]
Formats = Annotated[str, typer.Option(help="Formats of the questions: open, choice or both.")]
