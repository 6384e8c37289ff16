"""`hourllava eval score`: kept answers, scored again."""

from pathlib import Path
from typing import Annotated

import typer


def score(
    answers: Annotated[
        list[Path], typer.Argument(help="Folder of `hourllava eval world`, or its answers.jsonl; several are one set.")
    ],
    against: Annotated[Path | None, typer.Option(help="Answers of another model to the same questions.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for the scores; that of the answers by default.")] = None,
) -> None:
    """Score kept answers again, without a model; --against compares two models question by question."""
    from hourllava.evaluation.results import run_score

    for line in run_score(answers, against, out):
        typer.echo(line)
