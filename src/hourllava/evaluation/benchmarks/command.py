"""`hourllava eval video-mme` and the like: checks options and data, loads the model, asks and scores."""

import os
from collections.abc import Iterator
from pathlib import Path

from hourllava.errors import ConfigError, DataError
from hourllava.evaluation.benchmarks.benchmark import Benchmark
from hourllava.evaluation.benchmarks.catalogue import find_benchmark
from hourllava.evaluation.benchmarks.check import packed_lines
from hourllava.evaluation.benchmarks.folder import DataFolder
from hourllava.evaluation.benchmarks.outcome import score_run
from hourllava.evaluation.benchmarks.protocols import Protocol
from hourllava.evaluation.benchmarks.questions import QuestionTable
from hourllava.evaluation.benchmarks.raw import DataSummary, RunSettings, read_raw, run_folder
from hourllava.evaluation.benchmarks.runner import ask_all_parts, asked_by, check_outcome, parts_of
from hourllava.inference.engine import HourLlava
from hourllava.inference.memories.cache import MemoryCache
from hourllava.inference.memories.encoder import weights_digest
from hourllava.parts import parse_part

_UNLIMITED_BYTES = 2**62  # a folder given for memories keeps all: an LRU of 20 GB would keep none of a long list
_SIZE_VARIABLE = "HOURLLAVA_CACHE_BYTES"


def run_benchmark(
    name: str, data: Path, out: Path, *, model: str, protocol: str | None, split: str | None, subtitles: bool,
    shard: str, limit: int | None, memories: Path | None, judge: str | None, judge_model: str | None,
    device: str | None, dtype: str | None,
) -> Iterator[str]:  # fmt: skip
    """Run a benchmark, and score it.

    Args:
        name: of the benchmark.
        data: its data folder.
        out: a new or empty folder, or the folder of an interrupted run.
        model, device, dtype: as `HourLlava.from_pretrained`.
        protocol, split: names; None for the usual ones.
        subtitles: whether prompts hold subtitles.
        shard: "k/N" for part k of N.
        limit: ask about the first so many videos only.
        memories: folder for memories, which later runs use; None keeps none.
        judge, judge_model: address and name of a judge, for answers that no rule can score.

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
    chosen, part = benchmark.protocol(protocol), parse_part(shard, "--shard")
    folder = DataFolder(data)
    table = asked_by(benchmark.read(folder, benchmark.split(split)), chosen)
    _check_media(benchmark, table, folder, chosen, subtitles)
    engine = HourLlava.from_pretrained(model, device=device, dtype=dtype)
    settings = RunSettings(
        benchmark=benchmark.name, split=table.split, revision=table.revision, protocol=chosen.name,
        subtitles=subtitles, model=model, weights=weights_digest(engine.model), max_new_tokens=chosen.max_new_tokens,
    )  # fmt: skip
    with run_folder(out, settings, DataSummary.of(table), part):
        parts = parts_of(table, part, limit)
        tally = ask_all_parts(
            engine, parts, folder, chosen, out, subtitles=subtitles, shard=part, cache=_cache(memories)
        )
        yield tally.line()
        answers = read_raw(out)
        if answers and (part == (0, 1) or len(answers) == len(table.questions)):
            yield from score_run(out, judge_url=judge, judge_model=judge_model, data=data)
        elif answers:
            yield (
                f"{len(answers):,} of {len(table.questions):,} questions are answered so far; when all shards have "
                f"ended: hourllava eval score {out}"
            )
    check_outcome(tally, table, len(answers), out, part)


def _cache(memories: Path | None) -> MemoryCache | None:
    if memories is None:
        return None
    return MemoryCache(memories, max_bytes=None if os.environ.get(_SIZE_VARIABLE) else _UNLIMITED_BYTES)


def _check_media(
    benchmark: Benchmark, table: QuestionTable, folder: DataFolder, protocol: Protocol, subtitles: bool
) -> None:
    """Refuse a run that can ask nothing, before the model is loaded."""
    packed = [line.partition("; run: ")[2] for line in packed_lines(folder, is_complete=False)]
    hint = f"; unpack first: {' ; '.join(packed)}" if packed else f"; hourllava eval check {benchmark.name} says more"
    if not any(table.videos.values()):
        raise DataError(f"none of the {len(table.videos):,} videos of {benchmark.title} is below {folder.root}{hint}")
    if subtitles:
        if not any(one.said and not one.is_likelihood for one in benchmark.protocols.values()):
            raise ConfigError(f"{benchmark.title} has no subtitles; omit --subtitles")
        if not any(question.subtitles for question in table.questions):
            raise DataError(f"no subtitle file of {benchmark.title} is below {folder.root}{hint}")
