"""The commands of docs/preparing-data.md and docs/data.md run, on MarathonWorld and a few generated pictures."""

import json
import re
import shlex
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from conftest import tiny_checkpoint
from data.mixed_world import MIXTURE, NUM_VIDEOS, save, turns
from hourllava.cli.main import app
from hourllava.data.mds.reader import MdsDataset
from hourllava.data.mds.writer import ShardWriter
from hourllava.data.prepare.mixtures import published_mixture
from hourllava.data.records.reading import iterate_entries
from hourllava.errors import PartlyDoneError
from hourllava.inference.memories.memory import Memory

DOCS = Path(__file__).parents[3] / "docs"


def blocks(name, language):
    text = (DOCS / name).read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)


def commands(name):
    lines = [line for block in blocks(name, "sh") for line in block.splitlines()]
    return [shlex.split(line.replace("jylins/hourllava-qwen25-3b-s2", str(tiny_checkpoint())))[1:] for line in lines]


def invoke(arguments):
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, (arguments, result.output, result.exception)
    return result.stdout


@pytest.fixture
def data(raw, tmp_path, monkeypatch):
    """The current folder holds the data folder of the documents."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(raw, "data")
    shutil.copy("data/VideoMarathon/jsons/videomarathon.json", "in.json")


def test_the_steps_of_preparing(data):
    ours = [line for line in commands("preparing-data.md") if line[1] in ("sources", "check", "group", "features")]
    assert len(ours) >= 5
    for arguments in ours:
        invoke(arguments)
    grouped = [entry.value for entry in iterate_entries(Path("grouped.json"))]
    questions = [entry.value for entry in iterate_entries(Path("in.json"))]
    assert sum(len(record["conversations"]) // 2 for record in grouped) == len(questions)
    features = sorted(Path("data/VideoMarathon/features").rglob("*.safetensors"))
    assert [len(Memory.load(path)) for path in features] == [12] * NUM_VIDEOS
    found = CliRunner().invoke(
        app, ["data", "sources", "--records", "in.json", "--media", "data/VideoMarathon/videos"]
    )  # fmt: skip
    assert found.stdout.startswith("2 found, 0 missing, 0 unreadable")
    next(Path("data/VideoMarathon/videos").rglob("*.mp4")).unlink()
    found = CliRunner().invoke(app, ["data", "check", "in.json", "--media", "data/VideoMarathon/videos"])
    assert isinstance(
        found.exception, PartlyDoneError
    )  # printed as one line by hourllava.cli.main.run, with exit code 9
    assert "media missing" in found.output


def test_all_of_it_in_one_command(data):
    (shown,) = [block for block in blocks("preparing-data.md", "json") if "stages" in json.loads(block)]
    Path("mixture.json").write_text(shown)
    ours = [line for line in commands("preparing-data.md") if line[1] in ("prepare", "lengths", "verify")]
    assert [line[1] for line in ours] == ["prepare", "prepare", "prepare", "prepare", "verify", "lengths"]
    for arguments in ours:
        if "prepare" in arguments and "--mixture" not in arguments:  # the published lists are too long for a test
            Path("data/small.json").write_text(json.dumps(MIXTURE))
            arguments = [*arguments, "--mixture", "data/small.json"]
        invoke([*arguments, *(["--devices", "cpu"] if "prepare" in arguments else [])])
    for folder in ("data/mine/hourllava_s3", "data/VideoMarathon/sharding/hourllava_s3"):
        listing = json.loads(Path(folder, "streams.json").read_text())
        assert all(MdsDataset(Path(folder, stream["folder"])).lengths_settings() for stream in listing["streams"])
        assert Path(folder, listing["media_root"]).resolve() == Path("data").resolve()


def test_the_steps_of_shards(data):
    for path in published_mixture().source("llavavideo_si").files:
        records = [{"id": f"{path}-{k}", "conversations": turns("Why?", marks=0)} for k in range(2)]
        save(Path("data", path), records)
    for part in published_mixture().stage("s3").parts:
        with ShardWriter(Path("shards", part.folder), {"a": "str"}, hashes=["sha1"]) as writer:
            writer.write({"a": part.folder})
    ours = commands("data.md")
    assert [line[1] for line in ours] == ["shard", "shard", "merge", "verify"]
    for arguments in ours:
        text = shlex.join(arguments).replace("--workers 32", "--workers 2").replace("--workers 8", "--workers 2")
        if "llavavideo_si_part3" in text:
            shutil.rmtree("shards/llavavideo_si_part3")
        invoke(shlex.split(text))
    assert len(MdsDataset(Path("shards/vm"))) == len(json.loads(Path("in.json").read_text()))
    assert len(MdsDataset([Path("shards/s3/0"), Path("shards/s3/1")])) > len(published_mixture().stage("s3").parts)
