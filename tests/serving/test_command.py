"""Faults of the real server: kill -9, SIGTERM, Ctrl-C, full disks, damaged uploads. Nothing is half, lost or left."""

import contextlib
import random
import resource
import signal
import socket
import threading
import time
from pathlib import Path

import httpx2
import pytest

from fuzz.mutations import damage
from serving.command import Command, processes_of, sound, until
from serving.conftest import raw
from video.clips import write_clip

pytestmark = pytest.mark.slow
FINAL = ("ready", "failed", "cancelled")


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
        assert command.kill(signal.SIGTERM) == 0
        assert not processes_of(command)


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
        assert command.kill(signal.SIGTERM, 30) == 0
        for thread in threads:
            thread.join(10)
        assert len(endings) == 4
        assert all("shutting_down" in line or line == "data: [DONE]" for line in endings), endings
        until(lambda: not processes_of(command))
        assert "Traceback" not in command.stderr


RENAME = """
import os, signal
from pathlib import Path
rename = Path.rename
def killed(self, target):
    if self.name.endswith(".partial"):
        WHEN
        os.kill(os.getpid(), signal.SIGKILL)
    return rename(self, target)
Path.rename = killed
"""


@pytest.mark.parametrize(("when", "num_kept"), [("pass", 0), ("rename(self, target)", 1)])
def test_killed_at_a_rename_an_upload_is_there_or_not(tmp_path, when, num_kept):
    clip = write_clip(tmp_path / "a.mp4", num_frames=20, fps=10)
    with Command(tmp_path, first=RENAME.replace("WHEN", when)) as command:
        with pytest.raises(httpx2.HTTPError):
            command.http.put("/v1/hourllava/videos", **raw(clip))
        assert command.ended() == -signal.SIGKILL
    with Command(tmp_path) as command:
        files = sound(command)
        assert len(files) == num_kept
        for file in files:  # nobody had asked for its memory yet; it is watched all the same
            address = f"/v1/files/{file['id']}"
            until(lambda address=address: command.http.get(address).json()["status"] == "processed", 60)


def test_ctrl_c_is_its_usual_end(tmp_path):
    with Command(tmp_path) as command:
        assert command.kill(signal.SIGINT) == 0
        assert "Traceback" not in command.stderr


def test_a_second_ctrl_c_does_not_wait_for_answers(tmp_path):
    body = {"stream": True, "max_tokens": 4000, "messages": [{"role": "user", "content": "x"}]}
    with Command(tmp_path) as command, contextlib.ExitStack() as streams:
        body["model"] = command.http.get("/v1/models").json()["data"][0]["id"]
        for _ in range(8):  # together they take seconds
            answer = streams.enter_context(command.http.stream("POST", "/v1/chat/completions", json=body))
            assert answer.status_code == 200
        command.send_signal(signal.SIGINT)
        until(lambda: refuses(command))
        assert command.kill(signal.SIGINT) == 130
        until(lambda: not processes_of(command))


def refuses(command):
    """Whether it takes no connection any more."""
    try:
        socket.create_connection(("127.0.0.1", httpx2.URL(command.url).port), timeout=5).close()
    except ConnectionError:
        return True
    return False


LIMIT = """
import resource, signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
"""


def test_a_full_disk_refuses_and_goes_on(tmp_path):
    """A file can have 200 kB: too little for one upload, and for the memory of another."""
    clip = write_clip(tmp_path / "a.mp4", num_frames=36_000, fps=10, width=32, height=32)
    small = write_clip(tmp_path / "b.mp4", num_frames=20, fps=10)
    assert clip.stat().st_size > 200_000 > small.stat().st_size
    with Command(tmp_path, first=LIMIT) as command:
        refused = command.http.put("/v1/hourllava/videos", **raw(clip))
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "storage_full")
        assert sound(command) == []
        file = command.http.put("/v1/hourllava/videos", **raw(small)).json()
        address = f"/v1/files/{file['id']}"
        until(lambda: command.http.get(address).json()["status"] != "uploaded", 60)
        assert len(sound(command)) == 1
        assert command.kill(signal.SIGTERM) == 0


def rss_bytes(pid):
    """Resident memory of a process."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * resource.getpagesize()


def test_250_damaged_uploads_are_refused_or_watched(tmp_path):
    originals = [write_clip(tmp_path / "a.mp4", num_frames=60, fps=10).read_bytes()]
    for name, codec in (("a.mkv", "libx264"), ("a.avi", "mpeg4"), ("a.ts", "mpeg2video"), ("a.webm", "libvpx")):
        originals.append(write_clip(tmp_path / name, num_frames=30, fps=10, codec=codec).read_bytes())
    rng = random.Random(7)
    states, before = {}, None
    with Command(tmp_path) as command:
        for number in range(250):
            answer = command.http.put(
                "/v1/hourllava/videos", params={"filename": "a.mp4"}, content=damage(rng.choice(originals), rng)
            )
            assert answer.status_code in (200, 400), answer.text
            if answer.status_code == 400:
                state = answer.json()["error"]["code"]
                assert str(tmp_path) not in answer.text
            else:
                address = f"/v1/hourllava/memories/{answer.json()['hourllava']['memory_id']}"
                memory = until(lambda at=address: (it := command.http.get(at).json())["state"] in FINAL and it, 60)
                state = memory["state"]
                if memory["error"] is not None:
                    state = memory["error"]["code"]
                    assert str(tmp_path) not in memory["error"]["message"]
            states[state] = states.get(state, 0) + 1
            before = rss_bytes(command.pid) if number == 50 else before
        grown_bytes = rss_bytes(command.pid) - before
        print(f"250 damaged uploads: {states}; the server grew by {grown_bytes / 1e6:.1f} MB over the last 199")
        assert set(states) <= {"ready", "video_unreadable", "video_too_long", "too_many_pixels", "too_many_streams"}
        assert states["ready"] > 50
        assert states["video_unreadable"] > 20
        assert grown_bytes < 100e6
        sound(command)
        assert command.kill(signal.SIGTERM) == 0
        assert not processes_of(command)
