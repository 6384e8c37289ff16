"""Running the command in a process of its own, as a user does."""

import os
import subprocess
import sys
from pathlib import Path

COMMAND = [sys.executable, "-c", "from hourllava.cli.main import run; run()"]


def environment(cache: Path) -> dict[str, str]:
    return {**os.environ, "XDG_CACHE_HOME": str(cache), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}


def hourllava(*arguments: object, cache: Path, stdin: str = "", **options) -> subprocess.CompletedProcess[str]:
    """Run `hourllava` with these arguments."""
    return subprocess.run(
        [*COMMAND, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        input=stdin,
        env=environment(cache),
        **options,
    )
