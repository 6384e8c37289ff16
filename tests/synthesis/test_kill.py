"""Runs that are killed at any moment, and then go on, leave the bytes of a run that was not."""

import os
import random
import signal
import subprocess
import time

import pytest
import yaml

from forking import run_hourllava, start_hourllava
from synthesis.model_server import CONTENT, TRANSPORT, ModelServer
from synthesis.runs import FAST, MODEL, final_files, synthesise, write_world
from synthesis.scoring import rows_of

NUM_KILLS = 30
FEW = {"questions": {"per_task": 1, "tasks": ["Object Attribute", "Temporal Order", "Overall Summarization"]}}


@pytest.mark.slow
def test_killed_at_thirty_moments(tmp_path):
    videos, settings = tmp_path / "videos", tmp_path / "settings.yaml"
    scripts = write_world(videos, (60, 64))
    settings.write_text(yaml.safe_dump(FEW | {"server": {"concurrency": 4}}))
    chance, kills = random.Random(0), 0
    with ModelServer(scripts, latency_seconds=0.02) as server:
        command = ["synth", videos, "--captioner", f"{MODEL}@{server.address}", "--writer", f"{MODEL}@{server.address}",
                   "--verifier", f"other-model@{server.address}", "--settings", settings]  # fmt: skip
        begin = time.monotonic()
        whole = run_hourllava(*command, "--out", tmp_path / "whole" / "data", cache=tmp_path)
        seconds = time.monotonic() - begin
        assert whole.returncode == 0, whole.stderr
        out = tmp_path / "killed" / "data"  # of the same name, which is the card's title
        while kills < NUM_KILLS:
            with start_hourllava(*command, "--out", out, cache=tmp_path) as process:
                try:
                    process.wait(timeout=chance.uniform(0, seconds / 2))
                except subprocess.TimeoutExpired:
                    os.killpg(process.pid, signal.SIGKILL)
                    process.wait()
                    kills += 1
                else:  # it was faster: once more from the beginning
                    out.rename(tmp_path / f"finished-{kills}-{time.monotonic_ns()}")
        again = run_hourllava(*command, "--out", out, cache=tmp_path)
        assert again.returncode == 0, again.stderr
    assert final_files(out) == final_files(tmp_path / "whole" / "data")


@pytest.fixture(scope="module")
def clean(tmp_path_factory):
    """Folder and scripts of two short videos, settings, and the folder of a run without faults."""
    root = tmp_path_factory.mktemp("clean")
    scripts = write_world(root / "videos", (60, 64))
    settings = FAST | FEW | {"server": {"timeout_seconds": 1.0}}
    with ModelServer(scripts) as server:
        assert synthesise(root / "videos", root / "data", server.address, settings=settings).error is None
    return root / "videos", scripts, settings, root / "data"


def failed_items(out):
    """Ids of the items that were given up, and those of which a task was."""
    rows = [row for path in (out / "stages").glob("*.jsonl") for row in rows_of(path)]
    return [row["id"] for row in rows if row["status"] == "error" or row["value"].get("failed_tasks")]


@pytest.mark.slow
@pytest.mark.parametrize("fault", [*TRANSPORT, *CONTENT, "all"])
def test_every_kind_of_fault_at_ten_percent(fault, clean, tmp_path):
    """Nothing is lost but what was given up, nothing is doubled, and all else is as in a clean run."""
    videos, scripts, settings, whole = clean
    faults = dict.fromkeys((*TRANSPORT, *CONTENT) if fault == "all" else [fault], 0.1)
    out = tmp_path / "data"  # the card's title is the folder's name
    with ModelServer(scripts, faults=faults, seed=4) as server:
        synthesise(videos, out, server.address, settings=settings)
        assert server.counts.faults.total() > 0
    failed = failed_items(out)
    ours, theirs = final_files(out), final_files(whole)
    if not failed:
        assert [name for name in theirs if ours.get(name) != theirs[name]] == ["synth.json"]  # it names the server
    early = [name for name in failed if " clip " in name or " event " in name or name.endswith(".world.json")]
    mine, clean_rows = (rows_of(folder / "jsons" / "questions.jsonl") for folder in (out, whole))
    assert len({row["question_id"] for row in mine}) == len(mine)
    for video in {row["video"] for row in clean_rows}:
        if not any(video in name for name in early):  # else all that follows is about other captions
            lost = tuple(name.replace(" ", "-") for name in failed if video in name)
            expected = [row for row in clean_rows if row["video"] == video and not row["question_id"].startswith(lost)]
            assert [row for row in mine if row["video"] == video] == expected
