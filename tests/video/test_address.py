"""Addresses: made valid, shown without their secrets, identified by what their servers say."""

import base64
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import quote

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from hourllava.errors import VideoError
from hourllava.video import source_digest, source_state
from hourllava.video.address import hide_secrets, parse_address
from hourllava.video.source import resolve_source
from video.clips import write_clip
from video.reading import open_here

LOGIN = "Basic " + base64.b64encode("user:pass/w@rd é".encode()).decode()


class Handler(BaseHTTPRequestHandler):
    """The path chooses the answer; the content is `server.content`."""

    def do_HEAD(self, body=False):
        self.server.requests.append((self.command, self.path))
        names = self.path
        content = self.server.content
        if "gone" in names:
            status = 404
        elif ("refuses-head" in names and not body) or "refuses-both" in names:
            status = 403
        elif "login" in names and self.headers.get("Authorization") != LOGIN:
            status = 401
        elif "broken" in names:
            self.wfile.write(b"this is no answer of a web server\r\n\r\n")
            return
        else:
            status = 200
        self.send_response(status)
        if status == 401:
            self.send_header("WWW-Authenticate", 'Basic realm="videos"')
        if "tag" in names:
            self.send_header("ETag", f'"{hash(content)}"')
        if "date" in names:
            self.send_header("Last-Modified", f"Mon, 01 Jan 2024 00:00:{len(content) % 60:02d} GMT")
        if "no-length" not in names:
            self.send_header("Content-Length", str(len(content) if status == 200 else 0))
        self.end_headers()
        if body and status == 200:
            self.wfile.write(content)

    def do_GET(self):
        self.do_HEAD(body=True)

    def log_message(self, *args):
        pass


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return write_clip(tmp_path_factory.mktemp("clip") / "clip.ts", 30).read_bytes()


@pytest.fixture
def server(clip):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.content, server.requests = clip, []
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def url(server, path, login=""):
    return f"http://{login}127.0.0.1:{server.server_port}/{path}"


@pytest.mark.parametrize("path", ["plain", "no-length", "refuses-both", "refuses-both/tag"])
def test_an_address_without_date_and_tag_has_no_digest(server, path):
    assert source_digest(url(server, path), allow_network=True) is None


@pytest.mark.parametrize("path", ["tag", "date", "tag/date/no-length", "refuses-head/tag", "tag?sign=%20&x=a b"])
def test_an_address_is_identified_by_its_tag_or_date(server, path):
    address = url(server, path)
    state = source_state(address, allow_network=True)
    assert source_digest(address, allow_network=True) == state.digest is not None
    assert state.is_unchanged()
    server.content += b"x"
    assert not state.is_unchanged()
    assert source_digest(address, allow_network=True) != state.digest


def test_the_server_is_not_asked_if_no_digest_is_needed(server):
    assert source_state(url(server, "tag"), allow_network=True, ask_server=False).digest is None
    assert server.requests == []


def test_failing_servers_give_an_error_of_one_line(server):
    for path in ("gone", "gone/tag", "broken"):
        with pytest.raises(VideoError, match="cannot be read") as error:
            source_digest(url(server, path), allow_network=True)
        assert len(str(error.value).splitlines()) == 1
    with pytest.raises(VideoError, match="cannot be read"):
        source_digest("http://127.0.0.1:1/a.mp4", allow_network=True)


@pytest.mark.parametrize(
    "path", ["a b.ts", "\u00fc\u4e2d.ts", "100%.ts", "a%20b.ts", "a.ts?x=1 2&y=\u00e9", "a.ts#part"]
)
def test_letters_that_are_not_allowed_in_addresses_are_encoded(server, path):
    assert open_here(url(server, path), allow_network=True).info.width_pixels == 64
    asked = server.requests[-1][1]
    assert asked.isascii()
    assert " " not in asked
    assert "#" not in asked


def test_a_login_reaches_the_server_and_nothing_else(server):
    address = url(server, "login/tag.ts?token=sesame", f"user:{quote('pass/w@rd é', safe='')}@")
    state = source_state(address, allow_network=True)
    assert state.digest is not None
    info = open_here(address, allow_network=True).info
    assert info.width_pixels == 64
    shown = f"{state} {info} {hide_secrets(address)}"
    wrong = url(server, "login/tag.ts", "user:wrong-secret@")
    assert source_digest(wrong, allow_network=True) is None
    with pytest.raises(VideoError) as error:
        open_here(wrong, allow_network=True)
    shown += str(error.value)
    for secret in ("pass", "w@rd", "w%40rd", "sesame", "wrong-secret"):
        assert secret not in shown


TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12)


@given(
    user=TEXT,
    before=TEXT,
    after=TEXT,
    scheme=st.sampled_from(["http", "https", "HTTP", "rtsp", "ftp"]),
    raw=st.booleans(),
)
@example("me", "/", "", "http", True)
def test_no_password_is_ever_shown(user, before, after, scheme, raw):
    """With any letters, encoded or raw."""
    password = f"{before}SECRET{after}"
    if not raw:
        user, password = quote(user, safe=""), quote(password, safe="")
    text = f"{scheme}://{user}:{password}@host/video.mp4?signature=SECRET"
    shown = hide_secrets(text)
    for allow_network in (False, True):
        try:
            shown += repr(resolve_source(text, allow_network=allow_network))
        except VideoError as error:
            shown += f"{error} {error.__cause__}"
    assert "SECRET" not in shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("http://host:8080/a.mp4", "http://host:8080/a.mp4"),
        ("https://host/@user/a.mp4", "https://host/@user/a.mp4"),
        ("https://host/watch?v=1&mail=a@b", "https://host/watch?..."),
        ("http://[::1]:80/a.mp4#t=1", "http://[::1]:80/a.mp4?..."),
        ("/videos/a?b@c.mp4", "/videos/a?b@c.mp4"),
        ("file:///videos/a?b@c.mp4", "file:///videos/a?b@c.mp4"),
    ],
)
def test_all_but_secrets_is_shown(text, shown):
    assert hide_secrets(text) == shown


def test_addresses_are_the_same_for_ffmpeg_and_for_requests():
    address = parse_address("HTTP://us%2Fer:p%40ss@B\u00fccher.example:81/a%20b c?x=%2F y#z")
    assert address.full == "http://us%2Fer:p%40ss@xn--bcher-kva.example:81/a%20b%20c?x=%2F%20y"
    assert address.request_url == "http://xn--bcher-kva.example:81/a%20b%20c?x=%2F%20y"
    assert address.login == "us/er:p@ss"
