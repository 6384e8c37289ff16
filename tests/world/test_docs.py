"""The commands that docs/world.md shows run; tests/test_docs.py runs its snippets."""

import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from hourllava import plotting
from hourllava.cli.main import app

DOC = Path(__file__).parents[2] / "docs" / "world.md"


FEWER = {
    "world make": ["--videos", "2", "--minutes", "0.5"],
    "world pictures": ["--images", "2", "--multi-images", "2", "--texts", "2"],
}


@pytest.mark.parametrize("fewer", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_the_commands_run(tmp_path, monkeypatch, fewer):
    """In the fast tier, they make fewer videos and pictures."""
    commands = [line for line in DOC.read_text(encoding="utf-8").splitlines() if line.startswith("hourllava ")]
    assert any(command.startswith("hourllava world make") for command in commands)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(plotting, "_DPI", 20)
    for command in commands:
        words = shlex.split(command)[1:]
        here = ["--processes", "1"] if words[0] == "world" else []
        here += FEWER.get(" ".join(words[:2]), []) if fewer else []
        result = CliRunner().invoke(app, [*words, *here])
        assert result.exit_code == 0, (command, result.output, result.exception)
    assert (tmp_path / "out/stats/statistics.png").is_file()
    assert (tmp_path / "out/picture-shards/index.json").is_file()
