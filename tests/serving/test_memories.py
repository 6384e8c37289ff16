"""Memories: made, followed, cancelled, shared, resumed, deleted; the media folder; pictures, moments, choices."""

import asyncio
import io
import json
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor

import httpx2
import numpy as np
import pytest
from PIL import Image

from hourllava.serving.protocol import WatchFailure
from serving.conftest import raw
from serving.scripted_engine import EVIDENCE, Script
from serving.waiting import until
from video.clips import number_of, write_clip

MEMORIES = "/v1/hourllava/memories"


def memory_of(server, memory_id):
    return server.http.get(f"{MEMORIES}/{memory_id}").json()


def ready(server, memory_id):
    return until(lambda: (memory := memory_of(server, memory_id))["state"] == "ready" and memory)


@pytest.fixture
def media(tmp_path, clip):
    folder = tmp_path / "media"
    (folder / "deep").mkdir(parents=True)
    shutil.copy(clip, folder / "deep" / "a.mp4")
    (folder / "a.srt").write_text("1\n00:00:01,000 --> 00:00:02,500\nHello\n")
    (folder / "secret.key").write_text("secret")
    shutil.copy(clip, tmp_path / "outside.mp4")
    (folder / "link.mp4").symlink_to(tmp_path / "outside.mp4")
    (folder / "inside.mp4").symlink_to("deep/a.mp4")
    return folder


def test_a_part_of_an_upload_is_a_memory_of_its_own(server, clip):
    file = server.http.put("/v1/hourllava/videos", **raw(clip)).json()
    body = {"file_id": file["id"], "start_seconds": 2, "end_seconds": 9.5, "fps": 2}
    answer = server.http.post(MEMORIES, json=body)
    assert answer.status_code == 202
    memory = answer.json()
    assert memory["object"] == "hourllava.memory"
    assert memory["id"] != file["hourllava"]["memory_id"]
    assert (memory["start_seconds"], memory["end_seconds"], memory["fps"]) == (2, 9.5, 2)
    assert server.http.post(MEMORIES, json=body).json()["id"] == memory["id"]
    found = ready(server, memory["id"])
    assert (found["frames_done"], found["duration_seconds"], found["error"]) == (30, 30.0, None)
    assert memory["id"] in [each["id"] for each in server.http.get(MEMORIES).json()["data"]]


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"start_seconds": 100}, "invalid_request"),
        ({"end_seconds": 0}, "invalid_request"),
        ({"fps": 0}, "invalid_request"),
        ({"fps": 31}, "invalid_request"),
        ({"fps": "1"}, "invalid_request"),
        ({"start_seconds": -1}, "invalid_request"),
        ({"start_seconds": 1e300}, "invalid_request"),
        ({"media_path": "a.mp4"}, "invalid_request"),
        ({"speed": 1}, "unsupported_parameter"),
        ({"file_id": "file-" + "0" * 32}, "not_found"),
        ({"file_id": "../x"}, "not_found"),
    ],
)
def test_parts_that_are_not_there_are_refused(server, clip, change, code):
    file = server.http.put("/v1/hourllava/videos", **raw(clip)).json()
    answer = server.http.post(MEMORIES, json={"file_id": file["id"], **change})
    assert (answer.status_code, answer.json()["error"]["code"]) == (404 if code == "not_found" else 400, code)


def test_changes_come_as_numbered_events(serve, clip):
    server = serve(script=Script(frame_seconds=0.005))
    memory_id = server.http.put("/v1/hourllava/videos", **raw(clip)).json()["hourllava"]["memory_id"]
    with server.http.stream("GET", f"{MEMORIES}/{memory_id}/events") as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert answer.headers["x-accel-buffering"] == "no"
        lines = [line for line in answer.iter_lines() if line and not line.startswith(":")]
    numbers = [int(line.removeprefix("id: ")) for line in lines if line.startswith("id: ")]
    states = [json.loads(line.removeprefix("data: "))["state"] for line in lines if line.startswith("data: ")]
    assert numbers == list(range(1, len(states) + 1))
    assert states[-1] == "ready"
    assert "watching" in states
    with server.http.stream("GET", f"{MEMORIES}/{memory_id}/events") as answer:  # of a memory that is ready
        assert len([line for line in answer.iter_lines() if line.startswith("data: ")]) == 1


def test_a_cancelled_watch_stays_cancelled_until_somebody_asks(serve, clip, tmp_path):
    server = serve(script=Script(frame_seconds=0.05))
    file = server.http.put("/v1/hourllava/videos", **raw(clip)).json()
    memory_id = file["hourllava"]["memory_id"]
    until(lambda: memory_of(server, memory_id)["state"] == "watching")
    assert server.http.post(f"{MEMORIES}/{memory_id}/cancel").json()["state"] == "cancelled"
    assert server.http.get(f"/v1/files/{file['id']}").json()["status"] == "error"
    assert server.http.post(f"{MEMORIES}/{memory_id}/cancel").json()["state"] == "cancelled"
    server.close()
    again = serve(folder=server.folder)
    assert memory_of(again, memory_id)["state"] == "cancelled"
    assert again.http.post(MEMORIES, json={"file_id": file["id"]}).json()["id"] == memory_id
    ready(again, memory_id)
    assert again.http.post(f"{MEMORIES}/{memory_id}/cancel").json()["state"] == "ready"


def test_what_a_dead_server_did_not_watch_is_watched_by_the_next(serve, clip):
    server = serve(script=Script(frame_seconds=0.05))
    file = server.http.put("/v1/hourllava/videos", **raw(clip)).json()
    with server.store.new_upload("half.mp4", "user_data", "") as upload:  # its memory was never made
        upload.write(clip.read_bytes())
        late = upload.commit()
    server.close()
    again = serve(folder=server.folder)
    ready(again, file["hourllava"]["memory_id"])
    until(lambda: again.http.get(f"/v1/files/{late.id}").json()["status"] == "processed")


def test_a_memory_that_two_records_share_is_forgotten_with_the_last(serve, clip):
    server = serve()
    first, second = (server.http.put("/v1/hourllava/videos", **raw(clip)).json() for _ in range(2))
    ids = [file["hourllava"]["memory_id"] for file in (first, second)]
    for memory_id in ids:
        ready(server, memory_id)
    server.http.delete(f"{MEMORIES}/{ids[0]}")
    assert server.engine.forgotten == []
    assert memory_of(server, ids[1])["state"] == "ready"
    assert server.http.delete(f"{MEMORIES}/{ids[1]}").json()["deleted"]
    assert len(server.engine.forgotten) == 1
    assert server.http.get(f"/v1/files/{first['id']}").status_code == 200  # the file stays


def test_a_memory_can_be_downloaded(server, clip):
    memory_id = server.http.put("/v1/hourllava/videos", **raw(clip)).json()["hourllava"]["memory_id"]
    ready(server, memory_id)
    answer = server.http.get(f"{MEMORIES}/{memory_id}/download")
    assert answer.content.startswith(b"memory of ")
    assert 'filename="lecture.safetensors"' in answer.headers["content-disposition"]
    until(lambda: not list(server.folder.glob(".export-*")))


def test_the_media_folder_is_listed_and_watched(serve, media, clip):
    server = serve(media_root=media)
    paths = [file["path"] for file in server.http.get("/v1/hourllava/media").json()["data"]]
    assert paths == ["a.srt", "deep/a.mp4", "inside.mp4"]
    memory = server.http.post(MEMORIES, json={"media_path": "deep/a.mp4"}).json()
    assert (memory["media_path"], memory["file_id"], memory["name"]) == ("deep/a.mp4", None, "a.mp4")
    ready(server, memory["id"])
    assert server.http.get(memory["content_url"]).content == clip.read_bytes()
    assert server.http.post(MEMORIES, json={"media_path": "deep/../inside.mp4"}).json()["id"] == memory["id"]
    (media / "deep" / "a.mp4").unlink()
    assert memory_of(server, memory["id"])["content_url"] is None
    assert server.http.get(memory["content_url"]).status_code == 404


OUTSIDE = [
    "link.mp4",
    "../outside.mp4",
    "/etc/passwd",
    "secret.key",
    "deep",
    "",
    "a\x00.mp4",
    "x" * 4000,
    "deep/../../outside.mp4",
]


def test_nothing_outside_the_media_folder_is_reached(serve, media, tmp_path):
    server = serve(media_root=media)
    for path in OUTSIDE:
        for named in ({"media_path": path}, {"url": f"media:{path}"}):
            answer = server.http.post(MEMORIES, json=named)
            assert answer.status_code == 404, (path, answer.text)
            assert str(tmp_path) not in answer.text, path
    assert server.http.get(MEMORIES).json()["data"] == []


def test_without_a_media_folder_nothing_is_named(server):
    assert server.http.get("/v1/hourllava/media").json() == {"data": []}
    assert server.http.post(MEMORIES, json={"media_path": "a.mp4"}).status_code == 404


def test_frames_are_those_of_the_second(server, tmp_path):
    path = write_clip(tmp_path / "board.mp4", num_frames=100, fps=5, width=320, height=240)
    memory_id = server.http.put("/v1/hourllava/videos", **raw(path)).json()["hourllava"]["memory_id"]
    for at, number in ((0, 0), (7.5, 37), (12.3, 61), (1e6, 99)):
        answer = server.http.get(f"{MEMORIES}/{memory_id}/frames", params={"at": at, "width": 160})
        assert answer.headers["content-type"] == "image/jpeg"
        image = Image.open(io.BytesIO(answer.content))
        assert image.size == (160, 120)
        assert number_of(np.asarray(image.resize((320, 240)))) == number
    for bad in ({"at": -1}, {"at": "nan"}, {"at": 1, "width": 5000}, {}):
        assert server.http.get(f"{MEMORIES}/{memory_id}/frames", params=bad).status_code == 400


def test_pictures_that_nobody_waits_for_are_not_drawn(serve, clip, monkeypatch):
    """Two are drawn at once; whoever leaves the queue costs nothing, so a page that is clicked through is not slow."""
    drawn, left, may_end = [], [], threading.Event()

    def draw(path, at_seconds, *_):
        drawn.append(at_seconds)
        assert may_end.wait(20)
        return b"jpeg"

    monkeypatch.setattr("hourllava.serving.drawing.jpeg_at", draw)
    server = serve()
    jpeg_at = server.context.drawing.jpeg_at

    async def noted(path, at_seconds, width):
        try:
            return await jpeg_at(path, at_seconds, width)
        except asyncio.CancelledError:
            left.append(at_seconds)
            raise

    monkeypatch.setattr(server.context.drawing, "jpeg_at", noted)
    memory_id = server.http.put("/v1/hourllava/videos", **raw(clip)).json()["hourllava"]["memory_id"]

    def get(at, seconds=20):
        return server.http.get(f"{MEMORIES}/{memory_id}/frames", params={"at": at}, timeout=seconds)

    with ThreadPoolExecutor(3) as threads:
        first = [threads.submit(get, at) for at in (1, 2)]
        until(lambda: len(drawn) == 2)
        with pytest.raises(httpx2.ReadTimeout):
            get(3, seconds=0.3)
        until(lambda: left == [3])
        last = threads.submit(get, 4)
        may_end.set()
        assert [each.result().content for each in (*first, last)] == [b"jpeg"] * 3
    assert sorted(drawn) == [1, 2, 4]


def test_a_filmstrip_is_drawn_once(serve, tmp_path):
    server = serve(script=Script(num_frames=20))
    path = write_clip(tmp_path / "board.mp4", num_frames=100, fps=5, width=320, height=240)
    memory_id = server.http.put("/v1/hourllava/videos", **raw(path)).json()["hourllava"]["memory_id"]
    ready(server, memory_id)
    strip = server.http.get(f"{MEMORIES}/{memory_id}/filmstrip").json()
    assert (strip["columns"], strip["rows"], strip["tile_width"], strip["tile_height"]) == (10, 2, 160, 120)
    assert strip["times"] == [float(second) for second in range(20)]
    sheet = Image.open(io.BytesIO(server.http.get(strip["url"]).content))
    assert sheet.size == (1600, 240)
    for number, second in enumerate(strip["times"]):
        left, top = number % 10 * 160, number // 10 * 120
        tile = sheet.crop((left, top, left + 160, top + 120)).resize((320, 240))
        assert number_of(np.asarray(tile)) == second * 5
    drawn = (server.folder / "filmstrips").stat().st_mtime_ns
    server.http.get(f"{MEMORIES}/{memory_id}/filmstrip")
    assert (server.folder / "filmstrips").stat().st_mtime_ns == drawn


def test_choose_and_find(server, clip):
    memory_id = server.http.put("/v1/hourllava/videos", **raw(clip)).json()["hourllava"]["memory_id"]
    body = {"question": "Which?", "options": ["red", "blue"], "subtitles": "00:00:01,000 --> 00:00:02,500\nHello\n"}
    choice = server.http.post(f"{MEMORIES}/{memory_id}/choose", json=body).json()
    assert (choice["option"], choice["letter"], choice["probabilities"]) == ("red", "A", [0.5, 0.5])
    assert choice["evidence"][0] == EVIDENCE[0].__dict__
    assert server.engine.asked[-1][1].subtitles[0].text == "Hello"
    found = server.http.post(f"{MEMORIES}/{memory_id}/find", json={"text": "a car", "limit": 1}).json()
    assert found == {"data": [EVIDENCE[0].__dict__]}
    for bad in ({"question": "x", "options": ["a"]}, {"question": "x", "options": ["a", " "]}, {"question": ""}):
        assert server.http.post(f"{MEMORIES}/{memory_id}/choose", json=bad).status_code == 400
    assert server.http.post(f"{MEMORIES}/mem-{'0' * 32}/find", json={"text": "x"}).status_code == 404


def test_a_video_that_is_longer_than_its_header_says_is_stopped(serve, clip):
    server = serve(max_frames=20, script=Script(frame_seconds=0.001))
    file = server.http.put("/v1/hourllava/videos", **raw(clip)).json()
    memory = until(lambda: (found := memory_of(server, file["hourllava"]["memory_id"]))["state"] == "failed" and found)
    assert memory["error"]["code"] == "video_too_long"


def test_a_video_that_is_too_long_is_refused(serve, clip):
    server = serve(max_video_seconds=5)
    answer = server.http.put("/v1/hourllava/videos", **raw(clip))
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "video_too_long")
    assert server.http.get("/v1/files").json()["data"] == []


def test_a_watch_that_is_tried_again_begins_as_queued(serve, clip):
    """The old state, cancelled or failed, is not shown any more, not even for a moment."""
    server = serve(script=Script(frame_seconds=0.05))
    file = server.http.put("/v1/hourllava/videos", **raw(clip)).json()
    memory_id = file["hourllava"]["memory_id"]
    until(lambda: memory_of(server, memory_id)["state"] == "watching")
    server.http.post(f"{MEMORIES}/{memory_id}/cancel")
    server.engine.script.frame_seconds = 0.001
    for failure in (WatchFailure("video_unreadable", "it breaks off"), None):
        server.engine.script.watch_failure = failure
        server.engine.script.busy_watches = 1
        assert server.http.post(MEMORIES, json={"file_id": file["id"]}).json()["state"] == "queued"
        with server.http.stream("GET", f"{MEMORIES}/{memory_id}/events") as answer:
            data = [line.removeprefix("data: ") for line in answer.iter_lines() if line.startswith("data: ")]
        states = [json.loads(each)["state"] for each in data]
        assert states[0] == "queued"
        assert states[-1] == ("failed" if failure else "ready")
        assert not set(states[:-1]) & {"failed", "cancelled", "ready"}
