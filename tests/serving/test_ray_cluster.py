"""`hourllava serve --replicas 2` on a real cluster of this machine: homes, full queues, a killed replica, the end."""

import asyncio
import concurrent.futures
import contextlib
import itertools
import os
import re
import signal
from pathlib import Path

import httpx2
import pytest

from forking import COMMAND, environment, start_python
from hourllava.errors import CheckpointError
from serving.command import Command, processes_of, until
from serving.conftest import raw
from video.clips import write_clip

pytest.importorskip("ray")
pytestmark = pytest.mark.slow

NUM_VIDEOS, ROUNDS = 6, 4


@pytest.fixture(scope="module")
def command(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cluster")
    config = folder / "limits.yaml"
    config.write_text("drain_seconds: 5\nmax_client_questions: 10000\n")
    options = ("--replicas", 2, "--config", config)
    with Command(folder, *options, seconds=240, HOME=str(folder), RAY_ADDRESS="") as running:
        running.http.timeout = 120
        yield running
        running.kill()


def replicas_of(command):
    """(process id, number) of the replicas that live."""
    found = []
    for process in processes_of(command):
        with contextlib.suppress(OSError):
            words = Path(f"/proc/{process}/cmdline").read_bytes().decode(errors="replace")
            if number := re.search(r"ServeReplica:hourllava-(\d+)", words):
                found.append((process, int(number[1])))
    return found


def figures_of(command):
    lines = re.findall(r"^hourllava:(\w+) ([\d.e+]+)$", command.http.get("/metrics").text, flags=re.MULTILINE)
    return {name: float(value) for name, value in lines}


def uploaded(command, path):
    file = command.http.put("/v1/hourllava/videos", **raw(path))
    file.raise_for_status()
    return file.json()["hourllava"]["memory_id"]


def watched(command, memory_id, seconds=120):
    def final():
        memory = command.http.get(f"/v1/hourllava/memories/{memory_id}").json()
        assert memory["state"] not in ("failed", "cancelled"), memory
        return memory if memory["state"] == "ready" else None

    return until(final, seconds)


def asked(command, memory_id, max_tokens=4):
    body = {
        "model": command.http.get("/v1/models").json()["data"][0]["id"],
        "messages": [{"role": "user", "content": "What is on the desk?"}],
        "max_tokens": max_tokens,
        "hourllava": {"memory_id": memory_id},
    }
    return command.http.post("/v1/chat/completions", json=body)


def test_questions_go_to_the_replica_with_the_memory(command, tmp_path):
    ids = []
    for number in range(NUM_VIDEOS):
        ids.append(uploaded(command, write_clip(tmp_path / f"{number}.mp4", num_frames=40 + number, fps=10)))
    for memory_id in ids:
        watched(command, memory_id)
        assert asked(command, memory_id).status_code == 200  # reads the memory from the disk
    before = figures_of(command)
    with concurrent.futures.ThreadPoolExecutor(4) as threads:
        answers = list(threads.map(lambda memory_id: asked(command, memory_id), ids * ROUNDS))
    assert {answer.status_code for answer in answers} == {200}
    after = figures_of(command)
    queries = after["mm_cache_queries"] - before["mm_cache_queries"]
    hits = after["mm_cache_hits"] - before["mm_cache_hits"]
    print(f"affinity: {hits:.0f} of {queries:.0f} questions about {NUM_VIDEOS} videos found the memory at hand")
    assert (hits, queries) == (NUM_VIDEOS * ROUNDS,) * 2
    assert after["replicas"] == 2
    texts = {memory_id: set() for memory_id in ids}
    for memory_id, answer in zip(ids * ROUNDS, answers):
        texts[memory_id].add(answer.json()["choices"][0]["message"]["content"])
    assert all(len(each) == 1 for each in texts.values())


def test_a_replica_killed_in_mid_watch_costs_its_frames_only(command, tmp_path):
    long = write_clip(tmp_path / "long.mp4", num_frames=72_000, fps=10, width=32, height=32)
    memory_id = uploaded(command, long)
    address = f"/v1/hourllava/memories/{memory_id}"
    until(lambda: command.http.get(address).json()["frames_done"] > 100, 60)
    before = replicas_of(command)
    assert sorted(number for _, number in before) == [0, 1]
    # The one that watches has children that decode.
    busy = [process for process, _ in before if children(process)]
    assert len(busy) == 1
    os.kill(busy[0], signal.SIGKILL)
    memory = until(lambda: (it := command.http.get(address).json())["attempt"] == 2 and it, 60)
    assert memory["state"] in ("queued", "watching", "ready")
    assert watched(command, memory_id)["frames_done"] == 7200
    assert asked(command, memory_id).status_code == 200
    until(lambda: figures_of(command)["replicas"] == 2, 120)  # Ray has started it again
    assert busy[0] not in [process for process, _ in replicas_of(command)]


def children(process):
    return [
        child for task in Path(f"/proc/{process}/task").iterdir() for child in (task / "children").read_text().split()
    ]


def test_an_answer_of_a_killed_replica_fails_by_name(command, tmp_path):
    memory_id = uploaded(command, write_clip(tmp_path / "a.mp4", num_frames=50, fps=10))
    watched(command, memory_id)
    model = command.http.get("/v1/models").json()["data"][0]["id"]
    body = {
        **{"model": model, "max_tokens": 4000, "stream": True, "hourllava": {"memory_id": memory_id}},
        "messages": [{"role": "user", "content": "x"}],
    }
    with command.http.stream("POST", "/v1/chat/completions", json=body) as answer:
        lines = answer.iter_lines()
        until(lambda: '"content":"' in next(lines).replace('"content":""', ""))
        for process, _ in replicas_of(command):
            os.kill(process, signal.SIGKILL)
        last = [line for line in lines if line.startswith("data: ")][-1]
    assert "replica_lost" in last
    refused = asked(command, memory_id)
    if refused.status_code != 200:  # none is there again
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "replica_lost")
    until(lambda: figures_of(command)["replicas"] == 2, 120)
    assert asked(command, memory_id).status_code == 200


def test_a_full_queue_reaches_the_client(command, tmp_path):
    """A replica takes 256 questions that wait, here for a video that waits, too; others are told when to come again."""
    long = write_clip(tmp_path / "long.mp4", num_frames=36_000, fps=10, width=32, height=32).read_bytes()
    files = [
        command.http.put("/v1/hourllava/videos", params={"filename": f"{number}.mp4"}, content=long + bytes(number))
        for number in range(1, 6)
    ]
    ids = [file.json()["hourllava"]["memory_id"] for file in files]
    addresses = [f"/v1/hourllava/memories/{memory_id}" for memory_id in ids]
    until(lambda: figures_of(command)["num_requests_waiting"] == 0)
    assert command.http.get(addresses[-1]).json()["state"] == "queued"  # each replica watches two
    body = {
        **{"model": command.http.get("/v1/models").json()["data"][0]["id"], "hourllava": {"memory_id": ids[-1]}},
        "messages": [{"role": "user", "content": "x"}],
    }

    async def ask_all():
        limits = httpx2.Limits(max_connections=None)
        async with httpx2.AsyncClient(base_url=command.url, timeout=120, limits=limits) as client:
            asks = [asyncio.create_task(client.post("/v1/chat/completions", json=body)) for _ in range(280)]
            refused = [await ask for ask in itertools.islice(asyncio.as_completed(asks), 24)]
            for address in reversed(addresses):
                await client.post(f"{address}/cancel")
            return refused, await asyncio.gather(*asks)

    refused, answers = asyncio.run(ask_all())
    for answer in refused:
        assert (answer.status_code, answer.json()["error"]["code"]) == (429, "queue_full")
        assert 1 <= int(answer.headers["retry-after"]) <= 120
    codes = [answer.json()["error"]["code"] for answer in answers]
    assert (codes.count("queue_full"), codes.count("cancelled")) == (24, 256)


def test_sigterm_ends_the_server_and_its_cluster(command):
    assert command.kill(signal.SIGTERM, 120) == 0
    until(lambda: not processes_of(command), 60)
    assert "Traceback" not in command.stderr


def test_a_model_that_cannot_be_loaded_ends_the_command(tmp_path):
    options = ("--replicas", 2, "--model", tmp_path / "missing", "--store", tmp_path / "store", "--port", 0)
    variables = environment(tmp_path / "cache", HOME=str(tmp_path), RAY_ADDRESS="")
    with start_python(COMMAND, "serve", *options, env=variables) as process:
        assert process.wait(240) == CheckpointError.exit_code
        last = process.stderr.strip().splitlines()[-1]
    assert last.startswith("error: ")
    assert str(tmp_path / "missing") in last
