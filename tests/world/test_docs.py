"""The commands that docs/world.md shows run as they stand; tests/test_docs.py runs its snippets."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import hourllava

DOC = Path(__file__).parents[2] / "docs" / "world.md"


def test_the_commands_run(tmp_path):
    commands = [line for line in DOC.read_text(encoding="utf-8").splitlines() if line.startswith("hourllava ")]
    assert len(commands) == 6
    environment = os.environ | {"PYTHONPATH": str(Path(hourllava.__file__).parents[1])}
    for command in commands:
        code = "from hourllava.cli.main import run; run()"
        done = subprocess.run(
            [sys.executable, "-c", code, *shlex.split(command)[1:]],
            cwd=tmp_path, env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
    assert (tmp_path / "out/stats/statistics.png").is_file()
    assert (tmp_path / "out/picture-shards/index.json").is_file()
