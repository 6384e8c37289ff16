"""Killing `watch` at any moment leaves a cache that works."""

import random
import subprocess
import time
from pathlib import Path

import pytest

from forking import run_hourllava, start_hourllava
from video.clips import write_clip

NUM_KILLS = 50


def processes_with(text):
    """Processes whose environment or command names a text."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if text.encode() in (entry / "environ").read_bytes():
                    found.append(int(entry.name))
            except OSError:  # gone, or another user's
                continue
    return found


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="looks for processes in /proc")
def test_kill_at_random_moments(tmp_path):
    clip = write_clip(tmp_path / "long.mp4", num_frames=3000, fps=10)
    cache = tmp_path / "cache"
    start = time.monotonic()
    expected = run_hourllava("ask", clip, "Why?", "--max-new-tokens", 4, cache=cache)
    whole_seconds = time.monotonic() - start
    assert expected.returncode == 0, expected.stderr
    run_hourllava("cache", "clear", cache=cache)
    chance = random.Random(0)
    finished = 0
    for _ in range(NUM_KILLS):
        with start_hourllava("watch", clip, cache=cache) as process:
            try:
                finished += process.wait(timeout=chance.uniform(0, whole_seconds)) == 0
                run_hourllava("cache", "clear", cache=cache)  # what is finished is not watched again
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
    assert finished < NUM_KILLS
    deadline = time.monotonic() + 10
    while processes_with(str(cache)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not processes_with(str(cache))
    again = run_hourllava("ask", clip, "Why?", "--max-new-tokens", 4, cache=cache)
    assert (again.returncode, again.stdout) == (0, expected.stdout), again.stderr
    entries = list((cache / "hourllava" / "memories").glob("*.safetensors"))
    assert len(entries) == 1
