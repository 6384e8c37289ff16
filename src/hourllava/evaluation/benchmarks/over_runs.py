"""Several runs of one benchmark, such as those of one training with several seeds: mean, spread and interval over runs.

    OUT/runs.json, OUT/runs.md

The interval is Student's t over the runs' own figures. It says how far another seed of the same training may be; it
does not say how far other videos may be, for which each run's own table has an interval. With two runs it is 12.7
standard errors wide.
"""

import json
import math
import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from hourllava.errors import ConfigError, DataError
from hourllava.evaluation.benchmarks.catalogue import find_benchmark
from hourllava.evaluation.benchmarks.outcome import scored_run
from hourllava.evaluation.benchmarks.raw import RunSettings, read_settings, read_summary
from hourllava.evaluation.benchmarks.scoring import scores_of
from hourllava.evaluation.intervals import t_quantile
from hourllava.evaluation.report import markdown_table
from hourllava.files import replacing

RUNS_NAME, RUNS_TABLE_NAME = "runs.json", "runs.md"
_SAME = ("benchmark", "split", "revision", "protocol", "subtitles", "condition", "fps", "max_new_tokens")


def score_runs(
    runs: Sequence[Path], out: Path, *, rule: str | None, judge_url: str | None, judge_model: str | None
) -> Iterator[str]:
    """Score several runs, and write their mean and spread.

    Args:
        runs: folders of runs that differ in their model only.
        out: folder for the results.
        rule, judge_url, judge_model: as `outcome.score_run`.

    Yields:
        the paths of the files.

    Raises:
        DataError: the runs differ in more than their model, or a run has no answers.
        ConfigError: `out` cannot be written.
    """
    settings = [read_settings(run) for run in runs]
    _check_same(runs, settings)
    benchmark = find_benchmark(settings[0].benchmark)
    scores = []
    for run in runs:
        scored, name, _ = scored_run(run, rule, judge_url, judge_model)
        scores.append(scores_of(benchmark, scored, read_summary(run)))
    cells = {"headline": spread([one["headline"]["accuracy"] for one in scores])}
    for axis in ("all", *benchmark.axes):
        for group in scores[0]["axes"][axis]:
            cells[f"{axis}: {group}"] = spread([one["axes"][axis][group]["accuracy"] for one in scores])
    found = {
        "format": 1, "rule": name, "settings": [one.model_dump(mode="json") for one in settings],
        "answered": [one["counts"]["answered"] for one in scores], "cells": cells,
    }  # fmt: skip
    table = _table(benchmark.title, runs, settings, scores, cells)
    try:
        out.mkdir(parents=True, exist_ok=True)
        for file, text in ((RUNS_NAME, json.dumps(found, indent=1) + "\n"), (RUNS_TABLE_NAME, table)):
            with replacing(out / file) as temporary:
                temporary.write_text(text, encoding="utf-8")
            yield str(out / file)
    except OSError as error:
        raise ConfigError(f"{out} cannot be written: {error.strerror}; use a folder you may write to") from error


def _check_same(runs: Sequence[Path], settings: Sequence[RunSettings]) -> None:
    for run, other in zip(runs[1:], settings[1:]):
        for field in _SAME:
            if getattr(other, field) != getattr(settings[0], field):
                raise DataError(
                    f"{run} has {field} {getattr(other, field)!r}, {runs[0]} has {getattr(settings[0], field)!r}; runs "
                    "that are scored together may differ in their model only"
                )


def spread(shares: Sequence[float | None]) -> dict[str, Any]:
    """`shares`, their `mean`, `standard_deviation`, and `low` and `high` of the interval; None if one is unknown."""
    known = [share for share in shares if share is not None]
    cell: dict[str, Any] = {"shares": list(shares), "mean": None, "standard_deviation": None, "low": None, "high": None}
    if len(known) < len(shares) or len(known) < 2:
        return cell
    mean, deviation = statistics.fmean(known), statistics.stdev(known)
    half = t_quantile(len(known) - 1) * deviation / math.sqrt(len(known))
    return cell | {"mean": mean, "standard_deviation": deviation, "low": mean - half, "high": mean + half}


def _table(
    title: str, runs: Sequence[Path], settings: Sequence[RunSettings], scores: Sequence[dict[str, Any]],
    cells: dict[str, dict[str, Any]],
) -> str:  # fmt: skip
    first = settings[0]
    how = f"{first.split}, protocol {first.protocol}, subtitles {'yes' if first.subtitles else 'no'}, {first.condition}"
    heads = ["run", "model", "weights", "answered", "%"]
    rows = [
        [
            str(run), one.model, one.weights[:12], f"{score['counts']['answered']:,}",
            _percent(score["headline"]["accuracy"]),
        ]
        for run, one, score in zip(runs, settings, scores)
    ]  # fmt: skip
    means = [
        [
            name.replace("|", "\\|"), _percent(cell["mean"]), _percent(cell["standard_deviation"]),
            "-" if cell["mean"] is None else f"{_percent(cell['low'])} to {_percent(cell['high'])}",
        ]
        for name, cell in cells.items()
    ]  # fmt: skip
    note = (
        "Percentages of right answers. The interval is Student's t over the runs: another seed of the same training. "
        "How far other videos may be, each run's own table says."
    )
    parts = [f"# {title}: {len(runs)} runs", how, markdown_table(heads, rows), note]
    parts.append(markdown_table(["", "mean", "standard deviation", "95 % over runs"], means))
    return "\n\n".join(parts) + "\n"


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f}"
