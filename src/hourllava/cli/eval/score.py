"""`hourllava eval score`: scores of kept answers."""

from pathlib import Path
from typing import Annotated

import typer

from hourllava.cli.eval import options


def score(
    answers: Annotated[
        list[Path],
        typer.Argument(
            metavar="ANSWERS",
            help="Folder of a benchmark's run; several, such as one for each seed of a training, for their mean and "
            "spread; or folders of hourllava eval world, or their answers.jsonl, scored as one set.",
        ),
    ],
    against: Annotated[Path | None, typer.Option(help="Answers of another model to the same questions.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for the scores.", show_default="the folder of the answers")
    ] = None,
    rule: options.Rule = None,
    judge: options.Judge = None,
    judge_model: options.JudgeModel = None,
) -> None:
    """Score kept answers again, without a model.

    With --against, compare two models question by question.
    """
    from hourllava.evaluation.rescore import score_again

    for line in score_again(answers, against, out, rule=rule, judge=judge, judge_model=judge_model):
        typer.echo(line)
