"""The chain of commands that makes nano: its data commands run in small, its trainings are those of the recipes."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from hourllava.data.mds_reader import MdsDataset
from hourllava.training.recipe import load_recipe

CHAIN = Path(__file__).parents[2] / "src/hourllava/recipes/hourllava-nano/chain.sh"


def write_command(path, text):
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


def test_the_chain_makes_what_its_recipes_read(tmp_path):
    commands = tmp_path / "bin"
    commands.mkdir()
    log = tmp_path / "log"
    # What loads torch is only noted: measuring lengths, training.
    write_command(
        commands / "hourllava",
        f'[ "$2" = lengths ] && {{ echo "$@" >> {log}; touch "$3/lengths.json"; exit; }}\n'
        f'exec {sys.executable} -m hourllava "$@"',
    )
    write_command(commands / "torchrun", f'echo "$@" >> {log}')
    environment = os.environ | {
        "PATH": f"{commands}:{os.environ['PATH']}", "SHARE": "2000", "PROCESSES": "1", "GPUS": "2",
    }  # fmt: skip
    for _ in range(2):  # the second time everything is there
        log.unlink(missing_ok=True)
        done = subprocess.run(
            [shutil.which("bash"), CHAIN, "--set", "seed=1"],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
    trained = [line.split() for line in log.read_text().splitlines() if "train" in line.split()]
    assert [line[-3:] for line in trained] == [
        [f"recipes/hourllava-nano/s{stage}.yaml", "--set", "seed=1"] for stage in range(4)
    ]
    assert all(line[:3] == ["--standalone", "--nproc-per-node", "2"] for line in trained)
    for stage in range(4):
        data = load_recipe(f"recipes/hourllava-nano/s{stage}.yaml").data
        for stream in data.streams:
            rows = MdsDataset(str(tmp_path / stream.folder))
            assert len(rows) > 0
            if rows.has_column("video").all():
                assert (tmp_path / data.media / rows.row(0, ["video"])["video"]).is_file()
