"""What goes wrong around a server: bombs, full disks, idle streams, and its end with streams open."""

import contextlib
import functools
import resource
import socket
import struct
import threading
import time
from fractions import Fraction
from pathlib import Path

import httpx2
import openai
import pytest

from serving import waiting
from serving.conftest import sdk
from serving.scripted_engine import Script
from video.clips import write_clip

until = functools.partial(waiting.until, seconds=20.0)

MODEL = "hourllava-scripted"


def put(server, content, name="a.mp4"):
    return server.http.put("/v1/hourllava/videos", params={"filename": name}, content=content)


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
