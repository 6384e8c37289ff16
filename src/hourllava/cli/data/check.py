"""`hourllava data check`: the problems of a file of records."""

from pathlib import Path
from typing import Annotated

import typer

from hourllava.cli import options


def check(
    file: options.Records,
    media: Annotated[Path | None, typer.Option(help="Folder of the media, or of the sources' folders.")] = None,
    fix: Annotated[Path | None, typer.Option(metavar="OUT", help="Write a copy without the problems.")] = None,
    all_: Annotated[bool, typer.Option("--all", help="Print every problem, not only the first 20 of a kind.")] = False,
) -> None:
    """Report every problem of a file of records; exit code 9 if some records have any, 6 if all do."""
    from hourllava.data.records.mend import check_and_fix

    for line in check_and_fix(file, media=media, fix=fix, shown_per_kind=None if all_ else 20):
        typer.echo(line)
