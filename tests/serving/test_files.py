"""Uploads: forms and raw bodies, lists, ranges, deletion; what is refused leaves nothing."""

import json
import time

import pytest

from hourllava.serving.protocol import WatchFailure
from serving.conftest import raw
from serving.scripted_engine import Script

SRT = "1\n00:00:01,000 --> 00:00:02,500\nHello <i>there</i> & you\n"


def wait_for(server, file_id, status="processed"):
    deadline = time.monotonic() + 20
    while (found := server.http.get(f"/v1/files/{file_id}").json())["status"] != status:
        assert time.monotonic() < deadline, found
        time.sleep(0.01)
    return found


def uploads_of(server):
    return sorted(path.name for path in (server.folder / "uploads").iterdir())


def test_a_form_becomes_a_file_that_is_watched(server, clip):
    answer = server.http.post(
        "/v1/files", files={"file": ("a/b\\lecture.mp4", clip.read_bytes())}, data={"purpose": "vision"}
    )
    assert answer.status_code == 200
    file = answer.json()
    assert file["object"] == "file"
    assert file["bytes"] == clip.stat().st_size
    assert (file["filename"], file["purpose"]) == ("lecture.mp4", "vision")
    assert file["hourllava"]["kind"] == "video"
    wait_for(server, file["id"])
    memory = server.http.get(f"/v1/hourllava/memories/{file['hourllava']['memory_id']}").json()
    assert memory["state"] == "ready"
    assert memory["file_id"] == file["id"]
    assert memory["gaps"] == [{"start_seconds": 3.0, "end_seconds": 4.0}]
    assert server.http.get(memory["content_url"]).content == clip.read_bytes()


@pytest.mark.parametrize("order", [("file", "purpose"), ("purpose", "file")])
def test_fields_of_a_form_come_in_any_order(server, clip, order):
    parts = {
        "file": b'Content-Disposition: form-data; name="file"; filename="a.mp4"\r\n\r\n' + clip.read_bytes(),
        "purpose": b'Content-Disposition: form-data; name="purpose"\r\n\r\nvision',
    }
    body = b"".join(b"--x\r\n" + parts[name] + b"\r\n" for name in order) + b"--x--\r\n"
    answer = server.http.post("/v1/files", content=body, headers={"content-type": "multipart/form-data; boundary=x"})
    assert answer.json()["purpose"] == "vision", answer.text


def test_a_raw_body_becomes_the_same_file(server, clip):
    file = server.http.put("/v1/hourllava/videos", **raw(clip)).json()
    assert (file["filename"], file["purpose"], file["bytes"]) == ("lecture.mp4", "user_data", clip.stat().st_size)
    wait_for(server, file["id"])


def test_content_comes_in_ranges(server, clip):
    file = server.http.put("/v1/hourllava/videos", **raw(clip)).json()
    address, content = f"/v1/files/{file['id']}/content", clip.read_bytes()
    whole = server.http.get(address)
    assert (whole.status_code, whole.content) == (200, content)
    assert whole.headers["content-type"] == "video/mp4"
    assert "sandbox" in whole.headers["content-security-policy"]
    part = server.http.get(address, headers={"Range": "bytes=10-19"})
    assert (part.status_code, part.content) == (206, content[10:20])
    assert part.headers["content-range"] == f"bytes 10-19/{len(content)}"
    assert server.http.get(address, headers={"Range": "bytes=-5"}).content == content[-5:]
    beyond = server.http.get(address, headers={"Range": f"bytes={len(content)}-"})
    assert beyond.status_code == 416
    head = server.http.head(address)
    assert (head.status_code, head.headers["content-length"], head.content) == (200, str(len(content)), b"")


def test_lists_are_paged_and_deleted_files_are_gone(serve, clip):
    server = serve()
    ids = [server.http.put("/v1/hourllava/videos", **raw(clip)).json()["id"] for _ in range(3)]
    page = server.http.get("/v1/files", params={"limit": 2, "order": "asc"}).json()
    assert [file["id"] for file in page["data"]] == ids[:2]
    assert (page["has_more"], page["last_id"]) == (True, ids[1])
    rest = server.http.get("/v1/files", params={"after": ids[1], "order": "asc"}).json()
    assert [file["id"] for file in rest["data"]] == ids[2:]
    assert [file["id"] for file in server.http.get("/v1/files").json()["data"]] == ids[::-1]
    for file_id in ids:
        assert server.http.delete(f"/v1/files/{file_id}").json() == {"id": file_id, "object": "file", "deleted": True}
        assert server.http.get(f"/v1/files/{file_id}").status_code == 404
        assert server.http.get(f"/v1/files/{file_id}/content").status_code == 404
    assert server.http.get("/v1/hourllava/memories").json()["data"] == []
    assert len(server.engine.forgotten) == 1  # the three were one video
    assert uploads_of(server) == []


def test_subtitles_come_back_as_webvtt(server):
    file = server.http.put("/v1/hourllava/videos", params={"filename": "a.srt"}, content=SRT).json()
    assert (file["status"], file["hourllava"]) == ("processed", {"kind": "subtitles", "memory_id": None})
    answer = server.http.get(f"/v1/hourllava/subtitles/{file['id']}")
    assert answer.headers["content-type"] == "text/vtt; charset=utf-8"
    assert answer.text == "WEBVTT\n\n00:00:01.000 --> 00:00:02.500\nHello there &amp; you\n"


@pytest.mark.parametrize(
    ("name", "content", "code"),
    [
        ("a.mp4", b"#EXTM3U\n#EXTINF:1,\n/etc/passwd\n", "video_unreadable"),
        ("a.mp4", b"ffconcat version 1.0\nfile other.ts\n", "video_unreadable"),
        ("a.mp4", b"PK\x03\x04" + bytes(100), "video_unreadable"),
        ("a.mp4", b"", "video_unreadable"),
        ("a.mp4", b"\x89PNG\r\n\x1a\n" + bytes(50), "video_unreadable"),
        ("a.world.json", b'{"format": 1}', "video_unreadable"),
        ("a.srt", b"nothing said", "invalid_request"),
        ("a.vtt", b"\xff\xfe\x00", "invalid_request"),
    ],
)
def test_what_is_no_video_is_refused_and_leaves_nothing(server, name, content, code):
    before = uploads_of(server)
    answer = server.http.put("/v1/hourllava/videos", params={"filename": name}, content=content)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, code), answer.text
    assert str(server.folder) not in answer.text
    assert answer.json()["error"]["param"] == "file"
    assert uploads_of(server) == before


def test_a_playlist_does_not_show_another_clients_file(serve, clip):
    """By whichever name and way a playlist comes, it names a file that is really there."""
    server = serve()
    victim = server.http.put("/v1/hourllava/videos", **raw(clip)).json()
    path = server.store.path(victim["id"])
    playlists = [
        f"#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\n{path}\n#EXT-X-ENDLIST\n",
        f"ffconcat version 1.0\nfile '{path}'\n",
        f"ffconcat version 1.0\nfile '../{victim['id']}/content'\n",
        f"\n\n \ufeff#EXTM3U\n{path}\n",
        f"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nm=video 5004 RTP/AVP 96\n# {path}\n",
        f'<?xml version="1.0"?><MPD><BaseURL>file://{path}</BaseURL></MPD>',
    ]
    for text in playlists:
        for name in ("a.mp4", "a.m3u8", "a.ffconcat", "a.mpd", "a.srt"):
            answer = server.http.put("/v1/hourllava/videos", params={"filename": name}, content=text.encode())
            assert answer.status_code == 400, (name, text)
    assert uploads_of(server) == [victim["id"]]


HOSTILE = [
    "../../etc/passwd",
    "..\\..\\x",
    "/abs",
    "a\x00b",
    "\n\r\t",
    "con",
    ".",
    "..",
    "a" * 900,
    "\u202egpj.mp4",
    "é\ud7ff%2f..%2f",
    '"; x="',
    "<b>",
]


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_are_only_shown(server, clip, name):
    before = uploads_of(server)
    file = server.http.put("/v1/hourllava/videos", params={"filename": name}, content=clip.read_bytes()).json()
    assert sorted(uploads_of(server)) == sorted([*before, file["id"]])
    assert "/" not in file["filename"]
    assert "\\" not in file["filename"] or "\\x" in file["filename"] or "\\n" in file["filename"]
    assert len(file["filename"]) <= 255
    content = server.http.get(f"/v1/files/{file['id']}/content")
    assert content.content == clip.read_bytes()
    assert "\n" not in content.headers["content-disposition"]


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"", "multipart/form-data; boundary=x"),
        (b"--x--\r\n", "multipart/form-data; boundary=x"),
        (b"--x\r\nrubbish", "multipart/form-data; boundary=x"),
        (
            b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\nabc',
            "multipart/form-data; boundary=x",
        ),
        (b"{}", "application/json"),
        (b"{}", "multipart/form-data"),
        (
            b'--x\r\nContent-Disposition: form-data; name="evil"\r\n\r\nabc\r\n--x--\r\n',
            "multipart/form-data; boundary=x",
        ),
        (
            b'--x\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nfine-tune\r\n'
            b'--x\r\nContent-Disposition: form-data; name="file"\r\n\r\nabc\r\n--x--\r\n',
            "multipart/form-data; boundary=x",
        ),
        (
            b'--x\r\nContent-Disposition: form-data; name="file"\r\n\r\nabc\r\n' * 2 + b"--x--\r\n",
            "multipart/form-data; boundary=x",
        ),
        (b"--x\r\n" + b"A" * 9000 + b": b\r\n\r\n", "multipart/form-data; boundary=x"),
        (
            b'--x\r\nContent-Disposition: form-data; name="purpose"\r\n\r\n' + b"a" * 9000,
            "multipart/form-data; boundary=x",
        ),
    ],
)
def test_broken_forms_are_refused(server, content, kind):
    before = uploads_of(server)
    answer = server.http.post("/v1/files", content=content, headers={"content-type": kind})
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["message"]
    assert uploads_of(server) == before


def test_sizes_are_limited_by_the_header_and_by_the_count(serve, clip):
    server = serve(max_upload_bytes=1000)
    announced = server.http.put("/v1/hourllava/videos", params={"filename": "a.mp4"}, content=bytes(3 * 2**20))
    assert (announced.status_code, announced.json()["error"]["code"]) == (413, "upload_too_large")

    def endless():
        for _ in range(1000):
            yield bytes(10_000)

    counted = server.http.put("/v1/hourllava/videos", params={"filename": "a.mp4"}, content=endless())
    assert (counted.status_code, counted.json()["error"]["code"]) == (413, "upload_too_large")
    form = server.http.post("/v1/files", files={"file": ("a.mp4", bytes(2000))})
    assert (form.status_code, form.json()["error"]["code"]) == (413, "upload_too_large")
    assert uploads_of(server) == []


def test_bodies_that_are_no_upload_are_limited_too(serve):
    server = serve(max_json_bytes=2000)
    body = {"file_id": "x" * 3000}
    assert server.http.post("/v1/hourllava/memories", json=body).status_code == 413

    def parts():
        yield json.dumps(body).encode()

    counted = server.http.post("/v1/hourllava/memories", content=parts(), headers={"content-type": "application/json"})
    assert (counted.status_code, counted.json()["error"]["code"]) == (413, "upload_too_large")


def test_a_client_has_so_many_files_bytes_and_memories(serve, clip):
    server = serve(max_client_files=1)
    file = server.http.put("/v1/hourllava/videos", **raw(clip)).json()
    answer = server.http.put("/v1/hourllava/videos", **raw(clip))
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "too_many_files")
    server.http.delete(f"/v1/files/{file['id']}")
    assert server.http.put("/v1/hourllava/videos", **raw(clip)).status_code == 200


def test_too_many_uploads_at_once_are_told_when_to_come_again(serve, clip):
    server = serve(max_uploads=1)
    with server.http.stream("GET", "/health"):
        pass
    server.context.num_uploads = 1
    answer = server.http.put("/v1/hourllava/videos", **raw(clip))
    assert (answer.status_code, answer.json()["error"]["code"]) == (429, "queue_full")
    assert 1 <= int(answer.headers["retry-after"]) <= 120
    server.context.num_uploads = 0
    assert server.http.put("/v1/hourllava/videos", **raw(clip)).status_code == 200


def test_a_failed_video_says_why(serve, clip):
    server = serve(script=Script(watch_failure=WatchFailure("video_unreadable", "it breaks off")))
    file = server.http.put("/v1/hourllava/videos", **raw(clip)).json()
    found = wait_for(server, file["id"], "error")
    assert found["status_details"] == "it breaks off"
    memory = server.http.get(f"/v1/hourllava/memories/{file['hourllava']['memory_id']}").json()
    assert memory["error"] == {"code": "video_unreadable", "message": "it breaks off"}


def test_a_video_that_the_engine_has_no_room_for_waits(serve, clip):
    server = serve(script=Script(busy_watches=2))
    file = server.http.put("/v1/hourllava/videos", **raw(clip)).json()
    assert file["status"] == "uploaded"
    wait_for(server, file["id"])


@pytest.mark.parametrize("number", ["1_0", "%2B5", "%205", "05", "5.0", "٣", ""])
def test_numbers_of_a_query_are_written_as_in_json(server, number):
    answer = server.http.get(f"/v1/files?limit={number}")
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "limit")
    assert server.http.get("/v1/files?limit=5").status_code == 200
