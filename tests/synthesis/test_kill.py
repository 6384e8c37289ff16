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
    scripts = write_world(videos, (60, 64, 70))
    settings.write_text(yaml.safe_dump(FEW | {"server": {"concurrency": 4}}))
    chance, kills = random.Random(0), 0
    with ModelServer(scripts, latency_seconds=0.02) as server:
        command = ["synth", videos, "--captioner", f"{MODEL}@{server.address}", "--writer", f"{MODEL}@{server.address}",
                   "--verifier", f"other-model@{server.address}", "--settings", settings]  # fmt: skip
        begin = time.monotonic()
        whole = run_hourllava(*command, "--out", tmp_path / "whole", cache=tmp_path)
        seconds = time.monotonic() - begin
        assert whole.returncode == 0, whole.stderr
        out = tmp_path / "killed"
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
    assert final_files(out) == final_files(tmp_path / "whole")


@pytest.mark.slow
@pytest.mark.parametrize("fault", [*TRANSPORT, *CONTENT, "all"])
def test_every_kind_of_fault_at_ten_percent(fault, tmp_path):
    """Nothing is lost but what was given up, nothing is doubled, and nothing is there that was not in a clean run."""
    videos = tmp_path / "videos"
    scripts = write_world(videos, (60, 64, 70))
    settings = FAST | FEW | {"server": {"timeout_seconds": 1.0}}
    with ModelServer(scripts) as server:
        synthesise(videos, tmp_path / "clean", server.address, settings=settings)
    faults = dict.fromkeys((*TRANSPORT, *CONTENT) if fault == "all" else [fault], 0.1)
    with ModelServer(scripts, faults=faults, seed=4) as server:
        synthesise(videos, tmp_path / "faulty", server.address, settings=settings)
        assert server.counts.faults.total() > 0
    errors = [
        row
        for path in (tmp_path / "faulty" / "stages").glob("*.jsonl")
        for row in rows_of(path)
        if row["status"] == "error" or row["value"].get("failed_tasks")
    ]
    clean, faulty = (rows_of(tmp_path / name / "jsons" / "questions.jsonl") for name in ("clean", "faulty"))
    assert len({row["question_id"] for row in faulty}) == len(faulty)
    for video in {row["video"] for row in clean}:
        ours, theirs = ([row for row in rows if row["video"] == video] for rows in (faulty, clean))
        failed = [row["id"] for row in errors if video in row["id"]]
        assert ours == theirs or failed
        if not any(" clip " in name or " event " in name or name.endswith(video) for name in failed):
            assert all(row in theirs for row in ours)
