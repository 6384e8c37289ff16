"""The door: keys, Host, Origin, CORS, owners, signed addresses, slow clients, headers, the end."""

import contextlib
import socket
import time

import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr, ValidationError

from hourllava.serving.access import SignedAddresses, host_is_known, origin_is_known, owner_of_key
from hourllava.serving.settings import ServeSettings
from serving.conftest import raw, sdk
from serving.live import live
from serving.scripted_engine import Script

KEYS = {"ann": "a" * 16, "bob": "b" * 16}
NO_FILE, NO_MEMORY = "file-" + "0" * 32, "mem-" + "0" * 32
BELOW_A_MEMORY = ("events", "content", "download", "filmstrip", "filmstrip.jpg", "frames?at=1")
OPEN = ["/health", "/ready"]


@pytest.fixture(scope="module")
def closed(tmp_path_factory):
    with live(tmp_path_factory.mktemp("closed"), keys=KEYS) as running:
        yield running


def with_key(name):
    return {"Authorization": f"Bearer {KEYS[name]}"}


def paths_of(server):
    """Every address of the schema, with its methods."""
    for path, methods in server.app.openapi()["paths"].items():
        for method in methods:
            yield (
                method.upper(),
                path.replace("{file_id}", "file-" + "0" * 32).replace("{memory_id}", "mem-" + "0" * 32),
            )


def test_without_a_key_only_health_is_open(closed):
    seen = 0
    for method, path in [*paths_of(closed), ("GET", "/openapi.json"), ("GET", "/nowhere"), ("POST", "/mcp")]:
        if path in OPEN:
            assert closed.http.request(method, path).status_code == 200
            continue
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": f"Basic {KEYS['ann']}"}):
            answer = closed.http.request(method, path, headers=headers)
            assert (answer.status_code, answer.json()["error"]["code"]) == (401, "invalid_api_key"), (method, path)
        seen += 1
    assert seen > 20


def test_the_sdk_with_a_key(closed):
    with sdk(closed, api_key=KEYS["ann"]) as client:
        assert client.models.list().data
    with sdk(closed, api_key="wrong", max_retries=0) as client, pytest.raises(openai.AuthenticationError):
        client.models.list()


def test_what_belongs_to_one_key_is_not_there_for_another(closed, clip):
    file = closed.http.put("/v1/hourllava/videos", **raw(clip), headers=with_key("ann")).json()
    memory_id = file["hourllava"]["memory_id"]
    foreign = [
        ("GET", f"/v1/files/{file['id']}"),
        ("GET", f"/v1/files/{file['id']}/content"),
        ("DELETE", f"/v1/files/{file['id']}"),
        ("GET", f"/v1/hourllava/subtitles/{file['id']}"),
        ("GET", f"/v1/hourllava/memories/{memory_id}"),
        *(("GET", f"/v1/hourllava/memories/{memory_id}/{end}") for end in BELOW_A_MEMORY),
        ("DELETE", f"/v1/hourllava/memories/{memory_id}"),
        ("POST", f"/v1/hourllava/memories/{memory_id}/cancel"),
    ]  # fmt: skip
    for method, path in foreign:
        answer = closed.http.request(method, path, headers=with_key("bob"))
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found"), path
    model, extras = "hourllava-scripted", {"memory_id": memory_id}
    bodies = {
        f"/v1/hourllava/memories/{memory_id}/choose": {"question": "x", "options": ["a", "b"]},
        f"/v1/hourllava/memories/{memory_id}/find": {"text": "x"},
        "/v1/hourllava/memories": {"file_id": file["id"]},
        "/v1/chat/completions": {"model": model, "messages": [{"role": "user", "content": "x"}], "hourllava": extras},
        "/v1/responses": {"model": model, "input": "x", "hourllava": extras},
    }
    for path, body in bodies.items():
        answer = closed.http.post(path, json=body, headers=with_key("bob"))
        assert answer.status_code == 404, (path, answer.text)
    assert closed.http.get("/v1/files", headers=with_key("bob")).json()["data"] == []
    assert closed.http.get("/v1/hourllava/memories", headers=with_key("bob")).json()["data"] == []
    assert closed.http.get(f"/v1/files/{file['id']}", headers=with_key("ann")).status_code == 200


def test_a_signed_address_opens_one_video(closed, clip):
    first, second = (
        closed.http.put("/v1/hourllava/videos", **raw(clip), headers=with_key("ann")).json()["hourllava"]["memory_id"]
        for _ in range(2)
    )
    memory = closed.http.get(f"/v1/hourllava/memories/{first}", headers=with_key("ann")).json()
    path, _, token = memory["content_url"].partition("?token=")
    assert closed.http.get(memory["content_url"], headers={"Range": "bytes=0-3"}).status_code == 206
    assert closed.http.head(memory["content_url"]).status_code == 200
    refused = [
        path,
        f"{path}?token=",
        f"{path}?token={token[:-1]}",
        f"{path}?token={token.replace('ann', 'bob')}",
        f"{path.replace(first, second)}?token={token}",
        f"/v1/hourllava/memories/{first}?token={token}",
        f"/v1/hourllava/memories/{first}/download?token={token}",
    ]
    for address in refused:
        assert closed.http.get(address).status_code == 401, address
    assert closed.http.post(memory["content_url"]).status_code == 401


@given(st.text(max_size=80), st.text(max_size=20))
def test_no_text_is_a_token(token, path):
    assert SignedAddresses(60).owner_of(path, token) is None


def test_a_token_ends():
    signed = SignedAddresses(-1)
    assert signed.owner_of("/x", signed.sign("/x", "ann")) is None
    signed = SignedAddresses(60)
    assert signed.owner_of("/x", signed.sign("/x", "a.nn")) == "a.nn"


@given(st.text(max_size=40))
def test_no_text_is_a_key(text):
    keys = {name: SecretStr(key) for name, key in KEYS.items()}
    assert owner_of_key(keys, text) is None
    assert owner_of_key(keys, f"Bearer {text}") is None
    assert owner_of_key(keys, f"bearer  {KEYS['bob']}") == "bob"


KNOWN = ["localhost", "LOCALHOST:8000", "127.0.0.1:1", "[::1]:8000", "10.0.0.7", "Mine.example:80"]
UNKNOWN = [
    *("", "evil.example", "localhost.evil.example", "127.0.0.1.nip.example", "a@localhost", "localhost:x"),
    *("localhost/", "mine.example.evil", "[::1", "127.0.0.1:99999"),
]


@pytest.mark.parametrize(("host", "known"), [*((host, True) for host in KNOWN), *((host, False) for host in UNKNOWN)])
def test_hosts(host, known):
    assert host_is_known(host, ("mine.example",)) is known


@pytest.mark.parametrize(
    ("origin", "host", "known"),
    [
        ("http://localhost:8000", "localhost:8000", True),
        ("https://mine.example", "mine.example", True),
        ("https://mine.example", "mine.example:443", True),
        ("https://friend.example", "localhost:8000", True),
        ("null", "localhost:8000", False),
        ("http://localhost:3000", "localhost:8000", False),
        ("http://evil.example", "localhost:8000", False),
        ("http://localhost:8000.evil.example", "localhost:8000", False),
        ("file://localhost:8000", "localhost:8000", False),
        ("http://friend.example", "localhost:8000", False),
    ],
)
def test_origins(origin, host, known):
    assert origin_is_known(origin, host, ("https://friend.example",)) is known


def test_names_that_are_not_ours_are_turned_away(server):
    for path in ("/health", "/v1/models", "/", "/nowhere"):
        answer = server.http.get(path, headers={"Host": "evil.example"})
        assert (answer.status_code, answer.json()["error"]["code"]) == (421, "host_not_allowed")


def test_pages_of_strangers_change_nothing(server, clip):
    evil = {"Origin": "http://evil.example"}
    before = server.http.get("/v1/files").json()
    for method, path in paths_of(server):
        answer = server.http.request(method, path, headers=evil)
        if method == "GET":
            assert "access-control-allow-origin" not in answer.headers
        else:
            assert (answer.status_code, answer.json()["error"]["code"]) == (403, "origin_not_allowed"), path
    assert server.http.get("/v1/files").json() == before
    preflight = server.http.options("/v1/files", headers={**evil, "Access-Control-Request-Method": "POST"})
    assert "access-control-allow-methods" not in preflight.headers
    assert server.http.post("/v1/hourllava/memories", json={}, headers={"Origin": server.url}).status_code == 400


def test_pages_of_the_list_may(serve):
    server = serve(cors_origins=("https://friend.example",), keys=KEYS)
    friend = {"Origin": "https://friend.example"}
    preflight = server.http.options(
        "/v1/files",
        headers={**friend, "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"},
    )
    assert preflight.status_code == 204
    assert preflight.headers["access-control-allow-origin"] == "https://friend.example"
    assert preflight.headers["access-control-allow-headers"] == "authorization"
    assert "access-control-allow-credentials" not in preflight.headers
    for headers in (friend, {**friend, **with_key("ann")}):
        answer = server.http.get("/v1/models", headers=headers)
        assert answer.headers["access-control-allow-origin"] == "https://friend.example"
        assert answer.headers["vary"] == "Origin"


def test_every_answer_has_headers_of_safety(server):
    for path in ("/health", "/v1/models", "/nowhere", "/v1/files/file-x"):
        headers = server.http.get(path).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert "default-src" in headers["content-security-policy"]
        assert headers["x-request-id"].startswith("req_")
        assert "server" not in headers


def test_unknown_addresses_and_methods_have_the_usual_shape(server):
    for method, path, status in (("GET", "/nowhere", 404), ("PATCH", "/v1/files", 405), ("GET", "/v1/files/", 404)):
        answer = server.http.request(method, path)
        assert answer.status_code == status
        assert answer.json()["error"]["code"] in ("not_found", "method_not_allowed")


@pytest.mark.parametrize(
    "bad",
    [
        {"keys": {"ann": "short"}},
        {"keys": {"a b": "a" * 16}},
        {"cors_origins": ("*",)},
        {"cors_origins": ("https://a.example/path",)},
        {"public_url": "example.org"},
        {"max_upload_bytes": 0},
        {"speed": 1},
    ],
)
def test_settings_are_checked(bad):
    with pytest.raises(ValidationError):
        ServeSettings(**bad)


def test_keys_are_not_shown():
    assert "aaaa" not in repr(ServeSettings(keys=KEYS))


@contextlib.contextmanager
def connection(server):
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as found:
        yield found


def head(method, path, num_bytes, kind="application/octet-stream"):
    lines = [f"{method} {path} HTTP/1.1", "Host: localhost", f"Content-Type: {kind}", f"Content-Length: {num_bytes}"]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def upload_head(num_bytes):
    return head("PUT", "/v1/hourllava/videos?filename=a.mp4", num_bytes)


def test_a_head_that_does_not_come_ends_the_connection(serve):
    server = serve(head_seconds=0.3)
    with connection(server) as silent, connection(server) as slow:
        slow.sendall(b"GET /health HTTP/1.1\r\nHost: local")
        assert silent.recv(100) == b""
        assert slow.recv(100) == b""
    with connection(server) as late:  # also the second head of a connection
        late.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert b"200 OK" in late.recv(10_000)
        late.sendall(b"GET /heal")
        while late.recv(10_000):
            pass


def test_a_body_that_does_not_come_is_given_up(serve):
    server = serve(idle_seconds=0.3)
    with connection(server) as slow:
        slow.sendall(upload_head(1000) + b"abc")
        answer = slow.recv(10_000)
        while b"too_slow" not in answer:
            answer += (more := slow.recv(10_000))
            assert more
    assert answer.startswith(b"HTTP/1.1 408")
    assert list((server.folder / "uploads").iterdir()) == []
    assert server.context.num_uploads == 0


def test_a_body_that_comes_byte_by_byte_is_given_up(serve):
    server = serve(idle_seconds=0.3)
    answer = b""
    with connection(server) as slow:
        slow.sendall(upload_head(100_000))
        slow.settimeout(0.05)
        deadline = time.monotonic() + 10
        while b"too_slow" not in answer:
            assert time.monotonic() < deadline
            slow.sendall(b"x")
            with contextlib.suppress(TimeoutError):
                answer += slow.recv(10_000)


def test_an_upload_that_breaks_off_leaves_nothing(serve, clip):
    server = serve()
    with connection(server) as leaving:
        leaving.sendall(upload_head(9_000_000))
        leaving.sendall(bytes(3_000_000))
        deadline = time.monotonic() + 10
        while not list((server.folder / "uploads").iterdir()):
            assert time.monotonic() < deadline
            time.sleep(0.01)
    while list((server.folder / "uploads").iterdir()):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert server.http.get("/v1/files").json()["data"] == []


def test_a_client_that_does_not_read_is_left(serve):
    server = serve(send_seconds=0.3, script=Script(["x" * 500_000] * 50))
    body = b'{"model": "hourllava-scripted", "stream": true, "messages": [{"role": "user", "content": "x"}]}'
    with connection(server) as silent:
        silent.sendall(head("POST", "/v1/chat/completions", len(body), "application/json") + body)
        deadline = time.monotonic() + 10
        while not server.engine.ended:
            assert time.monotonic() < deadline
            time.sleep(0.01)
    assert server.engine.ended[0] < 50


def test_a_server_that_ends_takes_nothing_new(serve):
    server = serve(drain_seconds=5, script=Script(["x"] * 30, piece_seconds=0.02))
    assert server.http.get("/ready").json() == {"status": "ok"}
    server.call(server.context.closing.begin, 5)
    ready = server.http.get("/ready")
    assert (ready.status_code, ready.json(), ready.headers["retry-after"]) == (503, {"status": "draining"}, "30")
    assert server.http.get("/health").status_code == 200
    answer = server.http.get("/v1/models")
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "shutting_down")
    assert answer.headers["retry-after"] == "30"


def test_metrics_count_and_name_nobody(serve, clip):
    server = serve(keys=KEYS)
    file = server.http.put("/v1/hourllava/videos", **raw(clip), headers=with_key("ann")).json()
    deadline = time.monotonic() + 10
    while server.http.get(f"/v1/files/{file['id']}", headers=with_key("ann")).json()["status"] != "processed":
        assert time.monotonic() < deadline
    with sdk(server, api_key=KEYS["ann"]) as client:
        client.chat.completions.create(model="hourllava-scripted", messages=[{"role": "user", "content": "x"}])
    server.http.get("/v1/models")
    text = server.http.get("/metrics", headers=with_key("ann")).text
    for line in (
        "hourllava:prompt_tokens_total 100.0",
        "hourllava:generation_tokens_total 3.0",
        'hourllava:request_success_total{finished_reason="stop"} 1.0',
        'hourllava:rejected_total{reason="invalid_api_key"} 1.0',
        "hourllava:watch_frames_total 30.0",
        f"hourllava:upload_bytes_total {float(clip.stat().st_size)}",
        "hourllava:time_to_first_token_seconds_count 1.0",
        'hourllava:watches_total{state="ready"} 1.0',
    ):
        assert line in text, line
    assert not any(word in text for word in ("ann", "lecture", file["id"], KEYS["ann"]))
