"""The commands of docs/preparing-data.md run, on MarathonWorld."""

import re
import shlex
import shutil
from pathlib import Path

from typer.testing import CliRunner

from hourllava.cli.main import app
from hourllava.data.stream import iterate_entries
from hourllava.errors import DataError
from hourllava.inference.memory import Memory
from hourllava.world.make import make_settings, make_world

DOC = Path(__file__).parents[2] / "docs" / "preparing-data.md"


def test_the_commands_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    settings = make_settings(2, "0.2", 0, "train", "easy", None, 1, 64, "mp4")
    make_world(settings, Path("data/VideoMarathon"), 1)
    shutil.copy("data/VideoMarathon/jsons/videomarathon.json", "in.json")
    blocks = re.findall(r"^```sh\n(.*?)^```", DOC.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    commands = [line for block in blocks for line in block.splitlines() if line.startswith("hourllava data ")]
    ours = [line for line in commands if line.split()[2] in ("sources", "check", "group", "features")]
    assert len(ours) >= 5
    for command in ours:
        arguments = shlex.split(command.replace("jylins/hourllava-qwen25-3b-s2", "nano"))[1:]
        result = CliRunner().invoke(app, arguments)
        assert result.exit_code == 0, (command, result.output, result.exception)
    grouped = [entry.value for entry in iterate_entries(Path("grouped.json"))]
    questions = [entry.value for entry in iterate_entries(Path("in.json"))]
    assert sum(len(record["conversations"]) // 2 for record in grouped) == len(questions)
    features = sorted(Path("data/VideoMarathon/features").rglob("*.safetensors"))
    assert [len(Memory.load(path)) for path in features] == [12, 12]
    found = CliRunner().invoke(
        app, ["data", "sources", "--records", "in.json", "--media", "data/VideoMarathon/videos"]
    )  # fmt: skip
    assert found.stdout.startswith("2 found, 0 missing, 0 unreadable")
    next(Path("data/VideoMarathon/videos").rglob("*.mp4")).unlink()
    found = CliRunner().invoke(app, ["data", "check", "in.json", "--media", "data/VideoMarathon/videos"])
    assert isinstance(found.exception, DataError)  # printed as one line by hourllava.cli.main.run, with exit code 6
    assert "media missing" in found.output
