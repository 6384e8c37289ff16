"""Videos from addresses: of allowed hosts of the public internet, by the address that was checked."""

import asyncio
import http.server
import threading
import time
from contextlib import contextmanager

import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hourllava.serving.download import Fetcher, is_public
from hourllava.serving.errors import ApiError
from serving.conftest import sdk

PUBLIC = ["8.8.8.8", "1.1.1.1", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"]
PRIVATE = [
    *("127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0", "224.0.0.1"),
    *("255.255.255.255", "240.0.0.1", "192.0.2.1", "198.18.0.1", "::1", "::", "fe80::1", "fe80::1%eth0", "fc00::1"),
    *("ff02::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "64:ff9b::7f00:1", "64:ff9b::a00:1", "64:ff9b:1::1"),
    *("2002:7f00:1::", "2001:0:4136:e378:8000:63bf:3fff:fdd2", "2001:db8::1", "localhost", "", "8.8.8.8.8", "0x7f.1"),
]


@pytest.mark.parametrize(("address", "public"), [*((a, True) for a in PUBLIC), *((a, False) for a in PRIVATE)])
def test_what_is_public(address, public):
    assert is_public(address) is public


@given(st.ip_addresses(v=4))
def test_an_address_behind_another_is_as_public_as_it_is(address):
    number = int(address)
    mapped = f"::ffff:{address}"
    nat64 = f"64:ff9b::{number >> 16:x}:{number & 0xFFFF:x}"
    assert is_public(mapped) == is_public(nat64) == is_public(str(address))


class Site:
    """A web server on loopback, and the names under which it is known.

    Attributes:
        asked: (path, Host) of each request.
        resolved: names that were looked up.
    """

    def __init__(self, answers):
        self.asked, self.resolved, self.answers = [], [], answers
        site = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                site.asked.append((self.path, self.headers["Host"]))
                assert self.headers["Authorization"] is None
                site.answers[self.path.partition("?")[0]](self)

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, args=(0.02,)).start()

    def fetcher(self, addresses=("127.0.0.1",), hosts=("*",), max_bytes=10**7, seconds=10.0, public=("127.0.0.1",)):
        async def resolve(host, port):
            self.resolved.append(host)
            return list(addresses(host) if callable(addresses) else addresses)

        return Fetcher(hosts, max_bytes, seconds, resolve, lambda address: address in public)

    def close(self):
        self.server.shutdown()
        self.server.server_close()


def send(content, length=None, status=200, **headers):
    def answer(handler):
        handler.send_response(status)
        handler.send_header("Content-Length", str(len(content) if length is None else length))
        for name, value in headers.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(content)

    return answer


def to(location, status=302):
    return send(b"", status=status, Location=location)


def chunked(handler):
    handler.protocol_version = "HTTP/1.1"
    handler.send_response(200)
    handler.send_header("Transfer-Encoding", "chunked")
    handler.end_headers()
    handler.wfile.write(b"3\r\nabc\r\n4\r\ndefg\r\n0\r\n\r\n")


def slowly(handler):
    handler.send_response(200)
    handler.end_headers()
    for _ in range(200):
        handler.wfile.write(b"x")
        time.sleep(0.05)


def endless(handler):
    handler.send_response(200)
    handler.end_headers()
    for _ in range(10_000):
        handler.wfile.write(bytes(100_000))


@contextmanager
def site(**answers):
    running = Site({f"/{name}": answer for name, answer in answers.items()})
    try:
        yield running
    finally:
        running.close()


def fetched(fetcher, url):
    async def run():
        async with fetcher.open(url) as answer:
            return answer.filename, b"".join([data async for data in answer.body()])

    return asyncio.run(run())


def refused(fetcher, url):
    with pytest.raises(ApiError) as caught:
        fetched(fetcher, url)
    assert url not in caught.value.message
    return caught.value


def test_a_video_is_fetched_from_the_checked_address():
    with site(**{"a%20b.mp4": send(b"video" * 1000), "c": chunked}) as running:
        url = f"http://video.example:{running.port}/a b.mp4?x=1"
        assert fetched(running.fetcher(), url) == ("a b.mp4", b"video" * 1000)
        assert running.asked == [("/a%20b.mp4?x=1", f"video.example:{running.port}")]
        assert running.resolved == ["video.example"]
        assert fetched(running.fetcher(), f"http://video.example:{running.port}/c") == ("c", b"abcdefg")


@pytest.mark.parametrize("addresses", [["127.0.0.1", "10.0.0.1"], ["10.0.0.1"], [], ["169.254.169.254"]])
def test_every_address_of_a_name_must_be_public(addresses):
    with site(a=send(b"secret")) as running:
        error = refused(running.fetcher(addresses), f"http://video.example:{running.port}/a")
        assert "public internet" in error.message
        assert running.asked == []


def test_by_default_this_machine_is_not_reached():
    with site(a=send(b"secret")) as running:
        for host in ("127.0.0.1", "localhost", "[::1]", "0.0.0.0", "127.1", "2130706433", "0x7f000001"):
            refused(Fetcher(["*"], 10**7, 5.0), f"http://{host}:{running.port}/a")
        assert running.asked == []


def test_a_second_answer_of_the_name_server_changes_nothing():
    """Rebinding: the first answer is public, the second is not. There is no second question."""
    answers = iter([["127.0.0.1"], ["10.0.0.1"]])
    with site(a=send(b"video")) as running:
        fetcher = running.fetcher(lambda _: next(answers))
        assert fetched(fetcher, f"http://video.example:{running.port}/a")[1] == b"video"
        assert running.resolved == ["video.example"]


def test_each_redirect_is_checked_like_the_first():
    with site(c=send(b"video"), d=to("http://inside.example/")) as running, site(a=to("/b")) as first:
        first.answers["/b"] = to(f"http://other.example:{running.port}/c", 307)
        fetcher = running.fetcher(lambda host: ["10.0.0.1"] if host == "inside.example" else ["127.0.0.1"])
        assert fetched(fetcher, f"http://video.example:{first.port}/a")[1] == b"video"
        assert running.resolved == ["video.example", "video.example", "other.example"]
        assert "public internet" in refused(fetcher, f"http://video.example:{running.port}/d").message


@pytest.mark.parametrize(
    "location",
    [
        *("file:///etc/passwd", "ftp://video.example/a", "http://user:pw@video.example/a", "//inside.example/a"),
        *("gopher://x", "javascript:x"),
    ],
)
def test_redirects_lead_only_to_public_web_servers(location):
    with site(a=to(location)) as running:
        fetcher = running.fetcher(lambda host: ["10.0.0.1"] if host == "inside.example" else ["127.0.0.1"])
        refused(fetcher, f"http://video.example:{running.port}/a")
        assert len(running.asked) == 1


def test_redirects_end():
    with site(a=to("/a"), b=to("/c"), c=send(b"video")) as running:
        assert "leads on" in refused(running.fetcher(), f"http://video.example:{running.port}/a").message
        assert len(running.asked) == 6
        assert fetched(running.fetcher(), f"http://video.example:{running.port}/b")[1] == b"video"


@pytest.mark.parametrize(
    ("hosts", "host", "allowed"),
    [
        (("video.example",), "video.example", True),
        (("video.example",), "VIDEO.example.", True),
        (("*.example",), "video.example", True),
        (("video.example",), "a.video.example", False),
        (("*.video.example",), "evilvideo.example", False),
        (("video.example",), "video.example.evil.example", False),
        ((), "video.example", False),
    ],
)
def test_only_hosts_of_the_list(hosts, host, allowed):
    with site(a=send(b"video")) as running:
        fetcher, url = running.fetcher(hosts=hosts), f"http://{host}:{running.port}/a"
        if allowed:
            assert fetched(fetcher, url)[1] == b"video"
        else:
            assert "not allowed" in refused(fetcher, url).message
            assert running.resolved == []


def test_bytes_and_time_are_limited():
    with site(a=send(b"", 10**9), b=endless, c=slowly, d=send(b"abc", 10)) as running:
        where = f"http://video.example:{running.port}"
        assert refused(running.fetcher(), f"{where}/a").status == 413
        assert refused(running.fetcher(max_bytes=10**6), f"{where}/b").status == 413
        assert "too long" in refused(running.fetcher(seconds=0.3), f"{where}/c").message
        assert "connection failed" in refused(running.fetcher(), f"{where}/d").message


@pytest.mark.parametrize("status", [201, 206, 401, 404, 500])
def test_only_whole_files(status):
    with site(a=send(b"x", status=status)) as running:
        assert str(status) in refused(running.fetcher(), f"http://video.example:{running.port}/a").message


def rubbish(handler):
    handler.wfile.write(b"SSH-2.0-OpenSSH_9.6\r\n\r\n")


def test_other_servers_are_told_apart():
    with site(a=rubbish, b=lambda handler: None) as running:
        for name in "ab":
            refused(running.fetcher(), f"http://video.example:{running.port}/{name}")
        refused(running.fetcher(), f"https://video.example:{running.port}/a")  # speaks no TLS


@given(st.text(max_size=60))
def test_no_text_becomes_another_request(text):
    async def resolve(host, port):
        raise OSError

    with pytest.raises(ApiError):
        fetched(Fetcher(["*"], 10, 1.0, resolve), f"http://{text}")


def test_a_server_takes_addresses_once_an_hour(serve, clip):
    with site(**{"a.mp4": send(clip.read_bytes()), "b.mp4": send(b"no video")}) as running:
        server = serve(allow_url_hosts=("*",), max_upload_bytes=10**7)
        server.context.fetcher = running.fetcher()
        url = f"http://video.example:{running.port}/a.mp4"
        content = [{"type": "video_url", "video_url": {"url": url}}, {"type": "text", "text": "What?"}]
        with sdk(server, max_retries=0) as client:
            for _ in range(2):
                message = {"role": "user", "content": content}
                client.chat.completions.create(model="hourllava-scripted", messages=[message])
            assert len(running.asked) == 1
            (file,) = client.files.list().data
            assert file.filename == "a.mp4"
            content[0]["video_url"]["url"] = url.replace("a.mp4", "b.mp4")
            with pytest.raises(openai.BadRequestError) as caught:
                client.chat.completions.create(model="hourllava-scripted", messages=[message])
            assert caught.value.code == "video_unreadable"
            assert len(client.files.list().data) == 1
        memory = server.http.post("/v1/hourllava/memories", json={"url": url}).json()
        assert memory["file_id"] == file.id
