"""What goes wrong around a server: bombs, full disks, idle streams, kills, and its end with streams open."""

import contextlib
import hashlib
import random
import resource
import signal
import socket
import struct
import threading
import time
from fractions import Fraction
from pathlib import Path

import httpx2
import openai
import pytest

from conftest import tiny_checkpoint
from forking import start_hourllava
from fuzz.mutations import damage
from running import is_left
from serving.conftest import raw, sdk
from serving.scripted_engine import Script
from video.clips import write_clip

MODEL = "hourllava-scripted"


def put(server, content, name="a.mp4"):
    return server.http.put("/v1/hourllava/videos", params={"filename": name}, content=content)


def until(condition, seconds=20.0):
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return found


# ---------------------------------------------------------------------------------------------------------------- bombs


def gif(width, height):
    return b"GIF89a" + struct.pack("<HH", width, height) + b"\x80\0\0" + bytes(6) + b"\x2c" + bytes(4) + struct.pack(
        "<HH", width, height
    ) + b"\0\x02\x02\x44\x01\0\x3b"  # fmt: skip


def test_pictures_that_are_too_large_are_refused(server):
    for width, height in ((65535, 65535), (1, 65535), (40_000, 40_000), (8000, 8000)):
        answer = put(server, gif(width, height), "a.gif")
        assert answer.status_code == 400 or width * height <= 8192 * 4320, (width, height, answer.text)


def test_a_wide_line_is_a_video_too(server, tmp_path):
    path = write_clip(tmp_path / "line.mkv", num_frames=2, width=16_000, height=2, codec="ffv1")
    assert put(server, path.read_bytes()).status_code == 200


def test_a_video_of_a_day_is_refused_and_one_of_a_million_frames_a_second_is_not(server, tmp_path):
    day = write_clip(tmp_path / "day.mp4", 30, 25, times=[n * 3000.0 for n in range(30)], time_base=Fraction(1, 1000))
    answer = put(server, day.read_bytes())
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "video_too_long")
    fast = write_clip(
        tmp_path / "fast.mp4", 500, 25, times=[n / 10**6 for n in range(500)], time_base=Fraction(1, 10**6)
    )
    assert put(server, fast.read_bytes()).status_code == 200


def test_the_same_bytes_and_the_same_time_are_one_watch(serve, clip):
    server = serve(script=Script(frame_seconds=0.01))
    answers = []
    threads = [threading.Thread(target=lambda: answers.append(put(server, clip.read_bytes()).json())) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({answer["id"] for answer in answers}) == 6
    assert len(server.engine._tasks) == 1


# ----------------------------------------------------------------------------------------------------------------- disk


def test_a_full_disk_is_told_and_not_tried_again(serve, clip):
    server = serve(min_free_bytes=1 << 60)
    with sdk(server, max_retries=2) as client, pytest.raises(openai.InternalServerError) as caught:
        client.files.create(file=clip, purpose="user_data")
    assert (caught.value.status_code, caught.value.code) == (503, "storage_full")
    assert caught.value.response.headers["x-should-retry"] == "false"
    assert caught.value.request.headers["x-stainless-retry-count"] == "0"
    assert list((server.folder / "uploads").iterdir()) == []
    server.store.min_free_bytes = 0
    assert put(server, clip.read_bytes()).status_code == 200


# -------------------------------------------------------------------------------------------------------------- streams


def test_200_idle_streams(serve, clip):
    server = serve(ping_seconds=0.2, script=Script(frame_seconds=30))
    memory_id = put(server, clip.read_bytes()).json()["hourllava"]["memory_id"]
    port = int(server.url.rpartition(":")[2])
    head = f"GET /v1/hourllava/memories/{memory_id}/events HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
    with contextlib.ExitStack() as on_end:
        streams = [on_end.enter_context(socket.create_connection(("127.0.0.1", port))) for _ in range(200)]
        for each in streams:
            each.sendall(head)
        for each in streams:
            got = b""
            while b"data: " not in got or b": ping" not in got:
                got += each.recv(10_000)
        assert server.context.num_streams == 200
        assert server.http.get("/health").status_code == 200
        assert "hourllava:open_streams 200.0" in server.http.get("/metrics").text
    until(lambda: server.context.num_streams == 0)


def test_streams_have_a_limit(serve, clip):
    server = serve(max_streams=1, script=Script(frame_seconds=30))
    memory_id = put(server, clip.read_bytes()).json()["hourllava"]["memory_id"]
    address = f"/v1/hourllava/memories/{memory_id}/events"
    with server.http.stream("GET", address) as first:
        lines = first.iter_lines()  # kept: its end would close the stream
        next(lines)
        answer = server.http.get(address)
        assert (answer.status_code, answer.json()["error"]["code"]) == (429, "queue_full")
        body = {"model": MODEL, "stream": True, "input": "x"}
        assert server.http.post("/v1/responses", json=body).status_code == 429
    until(lambda: server.context.num_streams == 0)
    assert server.context.questions == {}


def test_a_question_that_waits_is_told_of_the_end(serve):
    server = serve(drain_seconds=0.2, script=Script(["x"], piece_seconds=30))
    body = {"model": MODEL, "messages": [{"role": "user", "content": "x"}]}
    threading.Timer(0.3, server.stop).start()
    answer = server.http.post("/v1/chat/completions", json=body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "shutting_down")


def test_followers_of_a_memory_leave_at_once_when_the_server_ends(serve, clip):
    server = serve(drain_seconds=20, script=Script(frame_seconds=30))
    memory_id = put(server, clip.read_bytes()).json()["hourllava"]["memory_id"]
    start = time.monotonic()
    with server.http.stream("GET", f"/v1/hourllava/memories/{memory_id}/events") as stream:
        server.stop()
        text = "".join(stream.iter_text())
    assert "shutting_down" in text
    assert time.monotonic() - start < 15


# ---------------------------------------------------------------------------------------------------- the real command


class Command:
    """`hourllava serve` with a tiny model, in a process of its own."""

    def __init__(self, folder: Path, *options: object) -> None:
        self._process = start_hourllava(
            *("serve", "--port", 0, "--model", tiny_checkpoint(), "--device", "cpu", "--store", folder / "store"),
            *options,
            cache=folder / "cache",
        )
        self.mark = str(folder / "cache")
        until(lambda: "http://" in self._process.stdout or self._process.poll() is not None, 60)
        assert self._process.poll() is None, self._process.stderr
        self.url = self._process.stdout.split()[0]
        self.http = httpx2.Client(base_url=self.url, timeout=30)
        self.uploads = folder / "store" / "uploads"

    def kill(self, number=signal.SIGKILL, seconds=60):
        self._process.send_signal(number)
        return self._process.wait(seconds)

    @property
    def stderr(self):
        return self._process.stderr

    def __enter__(self):
        return self

    def __exit__(self, *arguments):
        self.http.close()
        self._process.__exit__(*arguments)


def processes_of(command):
    """Processes that the command, or one that it started, has begun."""
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and command.mark.encode() in (entry / "environ").read_bytes():
                found.append(int(entry.name))
    return [process for process in found if is_left(process)]


def sound(command):
    """Every file that is listed is whole, and nothing else lies beside them."""
    files = command.http.get("/v1/files", params={"limit": 1000}).json()["data"]
    for file in files:
        content = command.http.get(f"/v1/files/{file['id']}/content").content
        assert len(content) == file["bytes"]
        record = (command.uploads / file["id"] / "record.json").read_text()
        assert hashlib.sha256(content).hexdigest() in record
    assert {path.name for path in command.uploads.iterdir()} == {file["id"] for file in files}
    return files


@pytest.mark.slow
def test_killed_amid_uploads_and_renames_nothing_is_half(tmp_path):
    clip = write_clip(tmp_path / "a.mp4", num_frames=20, fps=10).read_bytes()
    rng = random.Random(0)
    kept = 0
    for _ in range(6):
        with Command(tmp_path) as command:
            kept = len(sound(command))
            ended = threading.Event()

            def upload(command=command, ended=ended):
                with contextlib.suppress(httpx2.HTTPError):
                    while not ended.is_set():
                        command.http.put("/v1/hourllava/videos", params={"filename": "a.mp4"}, content=clip)

            threads = [threading.Thread(target=upload) for _ in range(3)]
            for thread in threads:
                thread.start()
            time.sleep(rng.uniform(0.2, 1.5))
            assert command.kill() == -signal.SIGKILL
            ended.set()
            for thread in threads:
                thread.join()
            until(lambda command=command: not processes_of(command))
    with Command(tmp_path) as command:
        assert len(sound(command)) >= kept > 0


@pytest.mark.slow
def test_killed_amid_a_watch_the_next_server_watches_it(tmp_path):
    clip = write_clip(tmp_path / "a.mp4", num_frames=36_000, fps=10, width=32, height=32)
    with Command(tmp_path) as command:
        file = command.http.put("/v1/hourllava/videos", **raw(clip)).json()
        address = f"/v1/hourllava/memories/{file['hourllava']['memory_id']}"
        until(lambda: command.http.get(address).json()["frames_done"] > 100)
        assert command.http.get(address).json()["state"] == "watching"
        command.kill()
        until(lambda: not processes_of(command))
    with Command(tmp_path) as command:
        sound(command)
        memory = until(lambda: (found := command.http.get(address).json())["state"] == "ready" and found, 120)
        assert memory["frames_done"] == 3600
        assert command.kill(signal.SIGTERM) in (0, -signal.SIGTERM)
        assert not processes_of(command)


@pytest.mark.slow
def test_sigterm_with_streams_open(tmp_path):
    config = tmp_path / "limits.yaml"
    config.write_text("drain_seconds: 1\n")
    clip = write_clip(tmp_path / "a.mp4", num_frames=36_000, fps=10, width=32, height=32)
    with Command(tmp_path, "--config", config) as command:
        model = command.http.get("/v1/models").json()["data"][0]["id"]
        memory_id = command.http.put("/v1/hourllava/videos", **raw(clip)).json()["hourllava"]["memory_id"]
        body = {"model": model, "stream": True, "max_tokens": 4000, "messages": [{"role": "user", "content": "x"}]}
        endings, begun = [], threading.Barrier(5)

        def read(method, path, body):
            with command.http.stream(method, path, json=body) as answer:
                lines = answer.iter_lines()
                next(lines)
                begun.wait(60)
                endings.append([line for line in lines if line][-1])

        readers = [("POST", "/v1/chat/completions", body)] * 3
        readers.append(("GET", f"/v1/hourllava/memories/{memory_id}/events", None))
        threads = [threading.Thread(target=read, args=reader) for reader in readers]
        for thread in threads:
            thread.start()
        begun.wait(60)
        assert command.kill(signal.SIGTERM, 30) in (0, -signal.SIGTERM)
        for thread in threads:
            thread.join(10)
        assert len(endings) == 4
        assert all("shutting_down" in line or line == "data: [DONE]" for line in endings), endings
        until(lambda: not processes_of(command))
        assert "Traceback" not in command.stderr


@pytest.mark.slow
def test_damaged_uploads_are_taken_or_refused_and_leave_nothing(serve, clip, tmp_path):
    server = serve(max_client_files=10**6)
    originals = [clip.read_bytes()]
    for name, codec in (("a.mkv", "libx264"), ("a.avi", "mpeg4"), ("a.ts", "mpeg2video"), ("a.webm", "libvpx")):
        originals.append(write_clip(tmp_path / name, num_frames=30, fps=10, codec=codec).read_bytes())
    rng = random.Random(0)
    kept, num_refused = set(), 0
    for _ in range(250):
        answer = put(server, damage(rng.choice(originals), rng))
        assert answer.status_code in (200, 400), answer.text
        if answer.status_code == 200:
            kept.add(answer.json()["id"])
        else:
            num_refused += 1
            assert answer.json()["error"]["code"] in ("video_unreadable", "video_too_long"), answer.text
            assert str(tmp_path) not in answer.text
    print(f"250 damaged uploads: {len(kept)} taken, {num_refused} refused")
    assert {path.name for path in (server.folder / "uploads").iterdir()} == kept
    assert num_refused > 20
    assert len(kept) > 20


def test_the_limit_of_open_files_is_an_answer_and_no_end(serve, clip):
    """A connection that finds no descriptor waits, or its upload is refused; then all is well again."""
    server = serve()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = len(list(Path("/proc/self/fd").iterdir()))
    resource.setrlimit(resource.RLIMIT_NOFILE, (used + 2, hard))
    try:
        with contextlib.suppress(httpx2.HTTPError, OSError):
            assert put(server, clip.read_bytes()).status_code in (400, 500, 503)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert put(server, clip.read_bytes()).status_code == 200
