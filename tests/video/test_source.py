"""What may be opened, and the identity of its content."""

import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest
from PIL import Image

from hourllava.errors import VideoError
from hourllava.video import probe, read_frames, source_digest
from hourllava.video.identity import DIGEST_BLOCK_BYTES, DIGEST_BLOCKS
from hourllava.video.source import frame_files
from video.clips import number_of, write_clip


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


@pytest.fixture
def address(tmp_path):
    """Address of a web server for the test's folder."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(QuietHandler, directory=tmp_path))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_address_needs_permission(tmp_path, address):
    write_clip(tmp_path / "clip.mp4", 60)
    url = f"{address}/clip.mp4"
    with pytest.raises(VideoError, match="allow_network=True"):
        read_frames(url)
    with pytest.raises(VideoError, match="allow_network=True"):
        source_digest(url)
    with read_frames(url, allow_network=True) as reader:
        assert [number_of(frame) for batch in reader for frame in batch.frames] == [0, 25, 50]
    before = source_digest(url, allow_network=True)
    write_clip(tmp_path / "clip.mp4", 70)
    assert source_digest(url, allow_network=True) != before
    with pytest.raises(VideoError, match="cannot be"):
        probe(f"{address}/missing.mp4", allow_network=True)
    with pytest.raises(VideoError, match="cannot be"):
        source_digest(f"{address}/missing.mp4", allow_network=True)


PLAYLIST = "#EXTM3U\n#EXT-X-TARGETDURATION:4\n#EXTINF:4,\n{}\n#EXT-X-ENDLIST\n"


def test_playlist_does_not_reach_the_network(tmp_path, address):
    write_clip(tmp_path / "part.ts", 60)
    playlist = tmp_path / "list.m3u8"
    playlist.write_text(PLAYLIST.format(f"{address}/part.ts"))
    with pytest.raises(VideoError):
        probe(playlist)
    playlist.write_text(PLAYLIST.format("part.ts"))
    assert probe(playlist).width_pixels == 64


def test_address_does_not_reach_local_files(tmp_path, address):
    part = write_clip(tmp_path / "part.ts", 60)
    (tmp_path / "list.m3u8").write_text(PLAYLIST.format(part.as_uri()))
    with pytest.raises(VideoError):
        probe(f"{address}/list.m3u8", allow_network=True)
    (tmp_path / "list.m3u8").write_text(PLAYLIST.format("part.ts"))
    assert probe(f"{address}/list.m3u8", allow_network=True).width_pixels == 64


@pytest.mark.parametrize("source", ["rtsp://camera/1", "ftp://host/a.mp4", "file://otherhost/a.mp4"])
def test_other_protocols_are_refused(source):
    with pytest.raises(VideoError, match=r"give a path|of this machine"):
        read_frames(source, allow_network=True)


def test_natural_order(tmp_path):
    for name in ("f10.png", "f9.png", "f1.png", "f2.PNG", "f1b.png"):
        Image.new("L", (2, 2)).save(tmp_path / name)
    assert [path.name for path in frame_files(tmp_path)] == ["f1.png", "f1b.png", "f2.PNG", "f9.png", "f10.png"]


def test_digest_is_of_the_content(tmp_path):
    path = tmp_path / "a.mp4"
    path.write_bytes(bytes(range(256)) * 100)
    before = source_digest(path)
    copy = tmp_path / "b.mp4"
    copy.write_bytes(path.read_bytes())
    assert source_digest(copy) == before
    data = bytearray(path.read_bytes())
    data[12345] ^= 1
    path.write_bytes(data)
    assert source_digest(path) != before


@pytest.mark.parametrize("change", ["first byte", "last byte", "longer", "other middle"])
def test_digest_of_a_large_file_notices(tmp_path, change):
    path = tmp_path / "large.mp4"
    num_bytes = 4 * DIGEST_BLOCKS * DIGEST_BLOCK_BYTES
    with path.open("wb") as file:
        file.truncate(num_bytes)  # a sparse file: no disk space
    before = source_digest(path)
    with path.open("r+b") as file:
        if change == "longer":
            file.truncate(num_bytes + 1)
        else:
            file.seek({"first byte": 0, "last byte": num_bytes - 1, "other middle": num_bytes // 2}[change])
            file.write(b"x" * (8 * DIGEST_BLOCK_BYTES if change == "other middle" else 1))
    assert source_digest(path) != before


def test_digest_of_a_folder(tmp_path):
    for i in range(3):
        Image.new("L", (2, 2), i).save(tmp_path / f"{i}.png")
    before = source_digest(tmp_path)
    Image.new("L", (2, 2), 9).save(tmp_path / "1.png")
    assert source_digest(tmp_path) != before
