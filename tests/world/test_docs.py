"""What docs/world.md shows runs as it stands."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import hourllava

DOC = Path(__file__).parents[2] / "docs" / "world.md"


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", DOC.read_text(encoding="utf-8"), re.DOTALL)


def test_the_commands_run(tmp_path):
    commands = [line for block in blocks("bash") for line in block.splitlines() if line.startswith("hourllava ")]
    assert len(commands) == 2
    environment = os.environ | {"PYTHONPATH": str(Path(hourllava.__file__).parents[1])}
    for command in commands:
        code = "from hourllava.cli.main import run; run()"
        done = subprocess.run(
            [sys.executable, "-c", code, *shlex.split(command)[1:]],
            cwd=tmp_path, env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
    assert (tmp_path / "out/stats/statistics.png").is_file()


def test_the_snippets_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    snippets = blocks("python")
    assert len(snippets) == 2
    for snippet in snippets:
        names: dict[str, object] = {}
        exec(snippet, names)
    assert (tmp_path / "world.mp4").stat().st_size > 10_000


def test_the_pictures_are_there():
    for name in re.findall(r"\]\((images/.*?)\)", DOC.read_text(encoding="utf-8")):
        assert (DOC.parent / name).is_file()
