"""`hourllava eval export`: kept answers in the forms of other programs."""

from pathlib import Path
from typing import Annotated

import typer

from hourllava.cli.eval import options


def export(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a benchmark's run.")],
    form: Annotated[
        str, typer.Option(help="lmms-eval, vlmevalkit, submission (of the benchmark's own script), or all.")
    ] = "all",
    out: Annotated[Path | None, typer.Option(help="Folder for the files.", show_default="RUN/export")] = None,
    rule: options.Rule = None,
    judge: options.Judge = None,
    judge_model: options.JudgeModel = None,
) -> None:
    """Write the answers of a run in the forms of other programs, without a model.

    docs/other-harnesses.md says what each form holds, and which benchmark has which.
    """
    from hourllava.evaluation.benchmarks.export.command import export_run, parse_forms

    lines = export_run(
        run, forms=parse_forms(form), rule=rule, judge_url=judge, judge_model=judge_model, out=out
    )  # fmt: skip
    for line in lines:
        typer.echo(line)
