"""The commands that docs/world.md shows run as they stand; tests/test_docs.py runs its snippets."""

import shlex
from pathlib import Path

from typer.testing import CliRunner

from hourllava import plotting
from hourllava.cli.main import app

DOC = Path(__file__).parents[2] / "docs" / "world.md"


def test_the_commands_run(tmp_path, monkeypatch):
    commands = [line for line in DOC.read_text(encoding="utf-8").splitlines() if line.startswith("hourllava ")]
    assert any(command.startswith("hourllava world make") for command in commands)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(plotting, "_DPI", 20)
    for command in commands:
        here = ["--processes", "1"] if command.startswith("hourllava world") else []
        result = CliRunner().invoke(app, [*shlex.split(command)[1:], *here])
        assert result.exit_code == 0, (command, result.output, result.exception)
    assert (tmp_path / "out/stats/statistics.png").is_file()
    assert (tmp_path / "out/picture-shards/index.json").is_file()
