"""From a run's folder to its scores: `hourllava eval score`, and the end of a run.

OUT/scores.json   scores with intervals, and everything that is needed to understand them
OUT/table.md      the same for people
OUT/page.html     every question, with options, answer, moments and evidence
OUT/scores.png    a bar for each group; only if matplotlib is installed
OUT/needles.png   for needles, the map of lengths and depths
"""

import importlib.util
import json
import logging
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hourllava.errors import ConfigError, DataError
from hourllava.evaluation.benchmarks.benchmark import Benchmark
from hourllava.evaluation.benchmarks.catalogue import find_benchmark
from hourllava.evaluation.benchmarks.judge import DEFAULT_JUDGE, JUDGED_NAME, JudgeClient
from hourllava.evaluation.benchmarks.page import page_of
from hourllava.evaluation.benchmarks.raw import (
    RunSettings,
    read_failures,
    read_raw,
    read_settings,
    read_summary,
)
from hourllava.evaluation.benchmarks.report import headline, report_of
from hourllava.evaluation.benchmarks.scoring import Scored, compare_runs, score_answers, scores_of
from hourllava.files import replacing

SCORES_NAME, TABLE_NAME, PAGE_NAME, FIGURE_NAME = "scores.json", "table.md", "page.html", "scores.png"
NEEDLES_NAME = "needles.png"

_log = logging.getLogger(__name__)


def score_run(
    run: Path,
    *,
    rule: str | None = None,
    judge_url: str | None = None,
    judge_model: str | None = None,
    against: Path | None = None,
    out: Path | None = None,
    data: Path | None = None,
) -> Iterator[str]:
    """Score the raw answers of a run, and write scores, table and page.

    Args:
        run: the run's folder.
        rule: name of the rule that reads the answers; None: that of the run's protocol.
        judge_url, judge_model: of a judge for answers that no rule can score; without an address they are left out.
        against: folder of another run, to compare with.
        out: folder of the results; by default the run's.
        data: the benchmark's data folder, for links to the videos.

    Yields:
        lines for the user.

    Raises:
        ConfigError: there is no such rule, the judge refuses, or `out` cannot be written.
        DataError: the run has no answers, is damaged, or cannot be compared with the other.
    """
    settings, summary = read_settings(run), read_summary(run)
    benchmark = find_benchmark(settings.benchmark)
    scored, name, judge = scored_run(run, rule, judge_url, judge_model)
    scores: dict[str, Any] = scores_of(benchmark, scored, summary)
    answered = {one.question.id for one in scored}
    failures = Counter(failure.reason for failure in read_failures(run) if failure.id not in answered)
    scores = {
        "format": 1, "settings": settings.model_dump(mode="json"), "rule": name,
        "judge": judge.model if judge else None, "versions": sorted({one.raw.version for one in scored}),
        "headline_is": benchmark.headline, **scores, "failures": dict(failures), "notes": list(summary.notes),
    }  # fmt: skip
    if against is not None:
        scores["against"] = _compared(benchmark, settings, name, scored, against, judge_url, judge_model)
    yield from _write(benchmark, settings, scores, scored, out or run, data)
    if judge is not None and judge.num_failed:
        yield f"the judge failed on {judge.num_failed:,} answers, which are not scored: {judge.last_failure}"


def scored_run(
    run: Path, rule: str | None = None, judge_url: str | None = None, judge_model: str | None = None
) -> tuple[list[Scored], str, JudgeClient | None]:
    """The verdicts on the answers of a run.

    Args:
        run, rule, judge_url, judge_model: as `score_run`.

    Returns:
        the verdicts, the name of the rule, and the judge.

    Raises:
        ConfigError, DataError: as `score_run`.
    """
    settings = read_settings(run)
    benchmark = find_benchmark(settings.benchmark)
    name = rule or benchmark.protocol(settings.protocol).rule
    judge = _judge(run, judge_url, judge_model)
    answers = read_raw(run)
    if not answers:
        raise DataError(f"{run} holds no answers yet; let hourllava eval {benchmark.name} run")
    return score_answers(answers, benchmark.rule(name), judge), name, judge


def _judge(run: Path, url: str | None, model: str | None) -> JudgeClient | None:
    if url is None:
        if model is not None:
            raise ConfigError("--judge-model names a judge without an address; give --judge, too")
        return None
    return JudgeClient(url, model or DEFAULT_JUDGE, run / JUDGED_NAME)


def _compared(
    benchmark: Benchmark, settings: RunSettings, rule: str, scored: list[Scored], against: Path,
    judge_url: str | None, judge_model: str | None,
) -> dict[str, Any]:  # fmt: skip
    """The differences from another run, whose answers are read by the same rule."""
    others = read_settings(against)
    if (others.benchmark, others.split) != (settings.benchmark, settings.split):
        raise DataError(
            f"{against} is a run of {others.benchmark} ({others.split}), not of {settings.benchmark} "
            f"({settings.split}); compare runs of one benchmark and split"
        )
    theirs, _, _ = scored_run(against, rule, judge_url, judge_model)
    return {**compare_runs(benchmark, scored, theirs), "settings": others.model_dump(mode="json")}


def _write(
    benchmark: Benchmark, settings: RunSettings, scores: dict[str, Any], scored: list[Scored], out: Path,
    data: Path | None,
) -> Iterator[str]:  # fmt: skip
    protocol = benchmark.protocol(settings.protocol)
    table = report_of(benchmark, protocol, settings, scores, scored[0].raw.prompt)
    said = headline(benchmark, scores)
    title = f"{benchmark.title}: {settings.model}, {settings.protocol}"
    # Links to videos lead from the page to the data folder, wherever both are moved together.
    linked = None if data is None else Path(os.path.relpath(data, out))
    try:
        out.mkdir(parents=True, exist_ok=True)
        for name, text in (
            (SCORES_NAME, json.dumps(scores, indent=1) + "\n"),
            (TABLE_NAME, table),
            (PAGE_NAME, "".join(page_of(title, said, scored, linked))),
        ):
            with replacing(out / name) as temporary:
                temporary.write_text(text, encoding="utf-8")
            yield str(out / name)
        yield from write_figures(benchmark, title, scores, scored, out)
    except OSError as error:
        raise ConfigError(f"{out} cannot be written: {error.strerror}; use a folder you may write to") from error
    yield said.replace("**", "")


def write_figures(
    benchmark: Benchmark, title: str, scores: dict[str, Any], scored: list[Scored], out: Path
) -> Iterator[str]:
    """Draw the scores; yields the paths of the pictures. Without matplotlib, a warning says how to get it."""
    if importlib.util.find_spec("matplotlib") is None:
        _log.warning("the figure needs matplotlib: pip install 'hourllava[world]', then hourllava eval score %s", out)
        return
    from hourllava.evaluation.benchmarks.figures import draw_needles, draw_scores
    from hourllava.plotting import save_figure

    yield str(save_figure(draw_scores(benchmark, title, scores), out / FIGURE_NAME))
    if needles := [one for one in scored if one.right is not None and "depth" in one.question.groups]:
        yield str(save_figure(draw_needles(title, needles), out / NEEDLES_NAME))
