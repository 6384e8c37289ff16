"""The scripts that make nano and its ablations: data commands run in small, what they make is what recipes read."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from hourllava.data.mds.reader import MdsDataset
from hourllava.training.recipe import load_recipe

ROOT = Path(__file__).parents[2]
CHAIN = ROOT / "src/hourllava/recipes/hourllava-nano/chain.sh"
ABLATIONS = ROOT / "benchmarks/nano-ablations.sh"


def write_command(path, text):
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


@pytest.fixture
def run_script(tmp_path):
    """Runs a script with a thousandth of the data; what loads torch is only noted in `log`: measuring, training."""
    commands = tmp_path / "bin"
    commands.mkdir()
    log = tmp_path / "log"
    write_command(
        commands / "hourllava",
        f'[ "$2" = lengths ] && {{ echo "$@" >> {log}; touch "$3/lengths.json"; exit; }}\n'
        f'exec {sys.executable} -m hourllava "$@"',
    )
    write_command(commands / "torchrun", f'echo "$@" >> {log}')
    environment = os.environ | {"PATH": f"{commands}:{os.environ['PATH']}", "PROCESSES": "1"}

    def run(script, *arguments, **settings):
        log.unlink(missing_ok=True)
        command = [shutil.which("bash"), script, *arguments]
        done = subprocess.run(command, cwd=tmp_path, env=environment | settings, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return log.read_text().splitlines() if log.exists() else []

    return run


def check_stream(root, folder, media):
    """Its first row's video is there; returns the row."""
    rows = MdsDataset(str(root / folder))
    assert len(rows) > 0
    row = rows.row(0)
    if "video" in row:
        assert (root / media / row["video"]).is_file()
    return row


def test_the_chain_makes_what_its_recipes_read(tmp_path, run_script):
    for _ in range(2):  # the second time everything is there
        noted = run_script(CHAIN, "--set", "seed=1", SHARE="2000", GPUS="2")
    trained = [line.split() for line in noted if "train" in line.split()]
    assert [line[-3:] for line in trained] == [
        [f"recipes/hourllava-nano/s{stage}.yaml", "--set", "seed=1"] for stage in range(4)
    ]
    assert all(line[:3] == ["--standalone", "--nproc-per-node", "2"] for line in trained)
    for stage in range(4):
        data = load_recipe(f"recipes/hourllava-nano/s{stage}.yaml").data
        for stream in data.streams:
            check_stream(tmp_path, stream.folder, data.media)


@pytest.mark.slow
def test_ablations_have_the_data_that_their_plan_reads(tmp_path, run_script):
    measured = run_script(ABLATIONS, SHARE="600", DATA="only")
    assert run_script(ABLATIONS, SHARE="600", DATA="only") == []  # everything is there
    plan = yaml.safe_load(ABLATIONS.with_suffix(".yaml").read_text())
    (recipe,) = plan["recipes"]
    data = load_recipe(recipe).data
    streams = [{"folder": stream.folder} for stream in data.streams]
    streams += [stream for variant in plan["variants"] for stream in variant.get("set", {}).get("data.streams", [])]
    assert len(streams) == 5 * 5
    for stream in streams:
        row = check_stream(tmp_path, stream["folder"], data.media)
        name, number, *in_one = Path(stream["folder"]).name.split("-")
        questions = len(row["text"]["conversations"]) // 2
        assert 1 <= questions <= int(number), name
        (line,) = [line for line in measured if line.split()[2] == stream["folder"]]
        assert f"--questions {'conversation' if in_one else 'segments'} " in line
