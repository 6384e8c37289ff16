"""`hourllava eval score`: tells the answers of a benchmark's run from those of MarathonWorld, and scores them again."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from hourllava.errors import ConfigError
from hourllava.evaluation.benchmarks.outcome import score_run
from hourllava.evaluation.benchmarks.over_runs import score_runs
from hourllava.evaluation.benchmarks.raw import RUN_NAME
from hourllava.evaluation.results import run_score


def score_again(
    answers: Sequence[Path], against: Path | None, out: Path | None, *, rule: str | None, judge: str | None,
    judge_model: str | None,
) -> Iterator[str]:  # fmt: skip
    """Score kept answers again.

    Args:
        answers: the folder of a benchmark's run, or one of its files; several, for their mean and spread; or what
            `results.run_score` takes.
        against: answers of another model.
        out: folder for the results; by default that of the answers.
        rule, judge, judge_model: as `outcome.score_run`; only for a benchmark's run.

    Yields:
        lines for the user.

    Raises:
        ConfigError: an option that these answers do not have.
        Also all errors of `score_run`, `score_runs` and `run_score`.
    """
    folders = [path if path.is_dir() else path.parent for path in answers]
    runs = [folder for folder in folders if (folder / RUN_NAME).exists()]
    if not runs:
        given = {"--rule": rule, "--judge": judge, "--judge-model": judge_model}
        if named := [name for name, value in given.items() if value is not None]:
            raise ConfigError(f"{named[0]} is for runs of benchmarks; {answers[0]} holds no {RUN_NAME}")
        return run_score(answers, against, out)
    if len(answers) > 1:
        if len(runs) < len(answers) or against is not None or out is None:
            raise ConfigError(
                f"{len(answers)} sets of answers can be scored together if all are runs of a benchmark, with --out and "
                "without --against"
            )
        return score_runs(runs, out, rule=rule, judge_url=judge, judge_model=judge_model)
    return score_run(runs[0], rule=rule, judge_url=judge, judge_model=judge_model, against=against, out=out)
