"""`hourllava eval video-mme` and the like: checks options and data, loads the model, asks and scores."""

import functools
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from hourllava.cluster import cluster_devices
from hourllava.errors import ConfigError, DataError
from hourllava.evaluation.benchmarks.asking import Asking, engine_for
from hourllava.evaluation.benchmarks.benchmark import Benchmark
from hourllava.evaluation.benchmarks.catalogue import find_benchmark
from hourllava.evaluation.benchmarks.check import packed_lines
from hourllava.evaluation.benchmarks.cluster import WorkerPlan, answers_of_cluster
from hourllava.evaluation.benchmarks.folder import DataFolder
from hourllava.evaluation.benchmarks.outcome import score_run
from hourllava.evaluation.benchmarks.questions import QuestionTable
from hourllava.evaluation.benchmarks.raw import SERVED, DataSummary, RunSettings, read_raw, run_folder
from hourllava.evaluation.benchmarks.runner import (
    AnswerAll,
    answers_of_model,
    ask_all_parts,
    asked_by,
    check_outcome,
    parts_of,
)
from hourllava.evaluation.benchmarks.served import ServedModel, answers_of_server
from hourllava.evaluation.scores import Condition
from hourllava.inference.engine import HourLlava
from hourllava.inference.memories.cache import MemoryCache
from hourllava.inference.memories.encoder import weights_digest
from hourllava.model.devices import usable_dtype
from hourllava.parts import parse_part

_UNLIMITED_BYTES = 2**62  # a folder given for memories keeps all: an LRU of 20 GB would keep none of a long list
_SIZE_VARIABLE = "HOURLLAVA_CACHE_BYTES"
ENGINES = ("local", "ray")


@dataclass(frozen=True)
class RunOptions:
    """The options of a run.

    Attributes:
        model, device, dtype: as `HourLlava.from_pretrained`.
        protocol, split: names; None for the usual ones.
        subtitles: whether prompts hold subtitles.
        condition: what the model sees, see `asking`.
        shard: "k/N" for part k of N.
        limit: ask about the first so many videos only.
        memories: folder for memories, which later runs use; None keeps none.
        judge, judge_model: address and name of a judge, for answers that no rule can score.
        engine: "local" asks in this process, "ray" on all devices of a Ray cluster.
        server, server_model, server_videos: of a model behind a server, in place of `model`; see `served`.
    """

    model: str = "nano"
    device: str | None = None
    dtype: str | None = None
    protocol: str | None = None
    split: str | None = None
    subtitles: bool = False
    condition: str = "video"
    shard: str = "0/1"
    limit: int | None = None
    memories: Path | None = None
    judge: str | None = None
    judge_model: str | None = None
    engine: str = "local"
    server: str | None = None
    server_model: str | None = None
    server_videos: str = ""


def run_benchmark(name: str, data: Path, out: Path, options: RunOptions) -> Iterator[str]:
    """Run a benchmark, and score it.

    Args:
        name: of the benchmark.
        data: its data folder.
        out: a new or empty folder, or the folder of an interrupted run.
        options: of the run.

    Yields:
        lines for the user.

    Raises:
        ConfigError: an option is not allowed, or `out` holds another run.
        DataError: there are no questions or no videos.
        PartlyDoneError: some questions could not be asked; raised after the last line.
        VideoError, InputError: none could.
        Also all errors of `HourLlava.from_pretrained`.
    """
    benchmark = find_benchmark(name)
    asking, part = _asking(benchmark, options), parse_part(options.shard, "--shard")
    split = benchmark.split(options.split)
    if benchmark.make is not None:
        benchmark.make(data, split)
    folder = DataFolder(data)
    table = asked_by(benchmark.read(folder, split), asking.protocol)
    _check_media(benchmark, table, folder, asking)
    answer_all, model, weights = _model(benchmark, folder, asking, options)
    settings = RunSettings(
        benchmark=benchmark.name, split=table.split, revision=table.revision, protocol=asking.protocol.name,
        subtitles=options.subtitles, condition=asking.condition, model=model, weights=weights,
        max_new_tokens=asking.protocol.max_new_tokens,
    )  # fmt: skip
    with run_folder(out, settings, DataSummary.of(table), part):
        tally = ask_all_parts(answer_all, parts_of(table, part, options.limit), out, shard=part)
        yield tally.line()
        answers = read_raw(out)
        if answers and (part == (0, 1) or len(answers) == len(table.questions)):
            yield from score_run(out, judge_url=options.judge, judge_model=options.judge_model, data=data)
        elif answers:
            yield (
                f"{len(answers):,} of {len(table.questions):,} questions are answered so far; when all shards have "
                f"ended: hourllava eval score {out}"
            )
    check_outcome(tally, table, len(answers), out, part)


def _asking(benchmark: Benchmark, options: RunOptions) -> Asking:
    """How the options ask, if they go together."""
    protocol = benchmark.protocol(options.protocol)
    conditions: tuple[Condition, ...] = get_args(Condition)
    condition = next((one for one in conditions if one == options.condition), None)
    if condition is None:
        raise ConfigError(f"--condition is {options.condition!r}; use one of: {', '.join(conditions)}")
    if options.engine not in ENGINES:
        raise ConfigError(f"--engine is {options.engine!r}; use one of: {', '.join(ENGINES)}")
    if options.subtitles and condition == "blind":
        raise ConfigError(
            "--subtitles are chosen by the video, which --condition blind leaves out; omit one of the two"
        )
    if (options.server is None) != (options.server_model is None):
        raise ConfigError("--server and --server-model go together; give both or none")
    if options.server is not None:
        refused = {
            "--subtitles": options.subtitles, "--memories": options.memories is not None,
            "--engine ray": options.engine == "ray", "--protocol likelihood": protocol.is_likelihood,
            "--condition frames_only": condition == "frames_only",
        }  # fmt: skip
        if named := [option for option, is_given in refused.items() if is_given]:
            raise ConfigError(
                f"{named[0]} needs the model itself, and --server has only its answers; omit one of the two"
            )
    return Asking(protocol, options.subtitles, condition)


def _model(benchmark: Benchmark, folder: DataFolder, asking: Asking, options: RunOptions) -> tuple[AnswerAll, str, str]:
    """What answers the questions, its name, and a digest of its weights."""
    data = folder.root
    if options.server is not None and options.server_model is not None:
        server = ServedModel(options.server, options.server_model, options.server_videos)
        return functools.partial(answers_of_server, server, data, asking), options.server_model, SERVED
    is_local = options.engine == "local"
    device = options.device if is_local else "cpu"  # here only the model's identity is needed
    dtype = options.dtype if is_local else usable_dtype(options.dtype, cluster_devices()[0][0])
    engine = HourLlava.from_pretrained(options.model, device=device, dtype=dtype)
    weights = weights_digest(engine.model)
    asked = engine_for(engine, asking.condition)
    max_bytes = None if os.environ.get(_SIZE_VARIABLE) else _UNLIMITED_BYTES
    if not is_local:
        plan = WorkerPlan(
            options.model, dtype, benchmark.name, asking.protocol.name, asking.subtitles, asking.condition, data,
            options.memories, max_bytes,
        )  # fmt: skip
        engine.close()
        return functools.partial(answers_of_cluster, plan), options.model, weights
    cache = None if options.memories is None else MemoryCache(options.memories, max_bytes=max_bytes)
    return functools.partial(answers_of_model, asked, data, asking, cache), options.model, weights


def _check_media(benchmark: Benchmark, table: QuestionTable, folder: DataFolder, asking: Asking) -> None:
    """Refuse a run that can ask nothing, before the model is loaded."""
    packed = [line.partition("; run: ")[2] for line in packed_lines(folder, is_complete=False)]
    hint = f"; unpack first: {' ; '.join(packed)}" if packed else f"; hourllava eval check {benchmark.name} says more"
    if not any(table.videos.values()) and asking.condition != "blind":
        raise DataError(f"none of the {len(table.videos):,} videos of {benchmark.title} is below {folder.root}{hint}")
    if asking.subtitles:
        if not any(one.said and not one.is_likelihood for one in benchmark.protocols.values()):
            raise ConfigError(f"{benchmark.title} has no subtitles; omit --subtitles")
        if not any(question.subtitles for question in table.questions):
            raise DataError(f"no subtitle file of {benchmark.title} is below {folder.root}{hint}")
