"""`hourllava eval score`: scores of kept answers."""

from pathlib import Path
from typing import Annotated

import typer


def score(
    answers: Annotated[
        list[Path],
        typer.Argument(
            metavar="ANSWERS", help="Folders of hourllava eval world, or their answers.jsonl; scored as one set."
        ),
    ],
    against: Annotated[Path | None, typer.Option(help="Answers of another model to the same questions.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for the scores.", show_default="the folder of the answers")
    ] = None,
) -> None:
    """Score kept answers again, without a model.

    With --against, compare two models question by question.
    """
    from hourllava.evaluation.results import run_score

    for line in run_score(answers, against, out):
        typer.echo(line)
