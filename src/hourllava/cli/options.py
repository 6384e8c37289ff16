"""Options that several commands share."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from hourllava.errors import ConfigError

MAX_SEED = 2**63 - 1  # what every generator takes
MAX_PROCESSES = 256


def between(low: float, high: float) -> Callable[[typer.CallbackParam, float | None], float | None]:
    """A callback that refuses numbers outside a range in one line, and `nan`, which Typer's own `min` lets through."""

    def check(param: typer.CallbackParam, value: float | None) -> float | None:
        if value is not None and not low <= value <= high:
            raise ConfigError(f"--{(param.name or '').replace('_', '-')} is {value}; use {low} to {high}")
        return value

    return check


File = Annotated[
    str, typer.Argument(metavar="FILE", help="Video, - for standard input, folder of frames, or a saved memory.")
]
Model = Annotated[str, typer.Option(help="'nano', a checkpoint's folder, or its name on the Hugging Face hub.")]
Fps = Annotated[float, typer.Option(help="Frames a second to watch.", callback=between(0.001, 1000))]
From = Annotated[str, typer.Option("--from", help="Watch from here, as a player shows the time: seconds or h:mm:ss.")]
To = Annotated[str | None, typer.Option("--to", help="Watch up to here: seconds or h:mm:ss.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, as docs/commands.md describes it.")]
NoCache = Annotated[bool, typer.Option("--no-cache", help="Neither use nor fill the cache of memories.")]
Device = Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, ...; a GPU if there is one.")]
Dtype = Annotated[str | None, typer.Option(help="float32 or bfloat16.")]
AllowNetwork = Annotated[bool, typer.Option("--allow-network", help="Let FILE be an http(s) address.")]
AllowPlaylists = Annotated[
    bool, typer.Option("--allow-playlists", help="Let FILE be a playlist, which names other files.")
]
Subtitles = Annotated[str | None, typer.Option(help="Subtitle file (.srt, .vtt) to read along.")]
SubtitlesEncoding = Annotated[
    str | None, typer.Option(help="Encoding of the subtitle file, such as windows-1251; found out by default.")
]
MaxNewTokens = Annotated[int, typer.Option(help="Most tokens of an answer.", callback=between(1, 32768))]
Temperature = Annotated[
    float,
    typer.Option(help="0: always the likeliest token; higher: more chance.", callback=between(0, 100)),
]
Seed = Annotated[int, typer.Option(help="Of chance, if there is any.", callback=between(0, MAX_SEED))]
Records = Annotated[Path, typer.Argument(help="Training records or questions: .json (a list), .jsonl or .parquet.")]
WorldSeed = Annotated[int, typer.Option(help="The same seed gives the same data set.", callback=between(0, MAX_SEED))]
