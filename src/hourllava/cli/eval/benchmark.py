"""`hourllava eval video-mme` and all other public benchmarks: one command each, with the same options."""

from collections.abc import Callable

import typer

from hourllava.cli import options as shared
from hourllava.cli.eval import options

TITLES = {
    "video-mme": "Ask a model the questions of Video-MME.",
    "tempcompass": "Ask a model the questions of TempCompass.",
    "longvideobench": "Ask a model the questions of LongVideoBench.",
    "lvbench": "Ask a model the questions of LVBench.",
    "mlvu": "Ask a model the questions of MLVU.",
    "egoschema": "Ask a model the questions of EgoSchema.",
    "cg-bench": "Ask a model the questions of CG-Bench.",
    "hourvideo": "Ask a model the questions of HourVideo.",
}
"""By name, what the help says. A test compares the names with those of the benchmarks."""
MADE_TITLES = {
    "marathonworld": "Ask a model the questions of a folder of hourllava world make.",
    "marathonworld-1": "Ask a model the questions of a frozen release of MarathonWorld.",
    "needles": "Ask a model about one letter card per video, at even depths.",
}
"""The same for those that are made here."""

_HELP = """{title}

Each video is watched once. docs/public-benchmarks.md says which files are needed, and which protocol to quote.
After an interruption, run the same command again to resume.
"""


def benchmark_command(name: str) -> Callable[..., None]:
    """The command of one benchmark."""

    def command(
        data: options.Data,
        out: options.Out,
        model: shared.Model = "nano",
        protocol: options.Protocol = None,
        split: options.Split = None,
        subtitles: options.Subtitles = False,
        condition: options.Condition = "video",
        shard: options.Shard = "0/1",
        limit: options.Limit = None,
        memories: options.Memories = None,
        judge: options.Judge = None,
        judge_model: options.JudgeModel = None,
        device: shared.Device = None,
        dtype: shared.Dtype = None,
        engine: options.Engine = "local",
        server: options.Server = None,
        server_model: options.ServerModel = None,
        server_videos: options.ServerVideos = "",
    ) -> None:
        from hourllava.evaluation.benchmarks.command import RunOptions, run_benchmark

        chosen = RunOptions(
            model=model, device=device, dtype=dtype, protocol=protocol, split=split, subtitles=subtitles,
            condition=condition, shard=shard, limit=limit, memories=memories, judge=judge, judge_model=judge_model,
            engine=engine, server=server, server_model=server_model, server_videos=server_videos,
        )  # fmt: skip
        for line in run_benchmark(name, data, out, chosen):
            typer.echo(line)

    command.__doc__ = _HELP.format(title=(TITLES | MADE_TITLES)[name])
    return command
