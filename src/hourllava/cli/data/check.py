"""`hourllava data check`: problems of a file of records."""

from pathlib import Path
from typing import Annotated

import typer

from hourllava.cli import options


def check(
    file: options.Records,
    media: Annotated[
        Path | None, typer.Option(help="Folder of the media, to check that they exist.", show_default="not checked")
    ] = None,
    fix: Annotated[Path | None, typer.Option(metavar="OUT", help="Write a copy without the problems.")] = None,
    all_: Annotated[bool, typer.Option("--all", help="Print every problem, not just 20 of each kind.")] = False,
) -> None:
    """Report every problem in a file of records.

    The exit code is 9 if some records have problems, 6 if all have.
    """
    from hourllava.data.records.mend import check_and_fix

    for line in check_and_fix(file, media=media, fix=fix, shown_per_kind=None if all_ else 20):
        typer.echo(line)
