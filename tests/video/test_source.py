"""What may be opened, and the identity of its content."""

import contextlib
import os
import pty
import re
import subprocess
import sys
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from av.format import ContainerFormat
from PIL import Image

from hourllava.errors import ConfigError, VideoError
from hourllava.video import identity, probe, read_frames, source_digest, source_state
from hourllava.video.container import open_container
from hourllava.video.formats import FORMATS
from hourllava.video.identity import DIGEST_BLOCK_BYTES, DIGEST_BLOCKS
from hourllava.video.source import Source, SourceKind, descriptor_of, frame_files, resolve_source
from video.clips import number_of, write_clip
from video.reading import open_here, read_here

CHILD_ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
DOCUMENT = Path(__file__).parents[2] / "docs" / "sources.md"


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


@pytest.fixture
def address(tmp_path):
    """Address of a web server for the test's folder."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(QuietHandler, directory=tmp_path))
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
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
        open_here(f"{address}/missing.mp4", allow_network=True)
    with pytest.raises(VideoError, match="cannot be"):
        source_digest(f"{address}/missing.mp4", allow_network=True)


PLAYLIST = "#EXTM3U\n#EXT-X-TARGETDURATION:4\n#EXTINF:4,\n{}\n#EXT-X-ENDLIST\n"
XML = '<?xml version="1.0" encoding="UTF-8"?>\n'
PLAYLISTS = {
    "HLS": PLAYLIST.format("part.ts"),
    "ffconcat": "ffconcat version 1.0\nfile part.ts\n",
    "DASH": f'{XML}<!-- made by hand --><MPD xmlns="urn:mpeg:dash:schema:mpd:2011"><Period/></MPD>',
    "IMF": f'{XML}<CompositionPlaylist xmlns="http://www.smpte-ra.org/schemas/2067-3/2016"/>',
    "SDP": "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=x\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\nm=video 5004 RTP/AVP 96\r\n",
    "PLS": "[playlist]\nFile1=part.ts\n",
    "ASX": '<asx version="3.0"><entry><ref href="part.ts"/></entry></asx>',
    "XSPF": f'{XML}<playlist version="1"><trackList/></playlist>',
}


@pytest.mark.parametrize("name", ["list", "list.mp4", "list.txt", "list.m3u8", "list.mpd"])
@pytest.mark.parametrize("kind", PLAYLISTS)
def test_playlists_are_refused_under_any_name(tmp_path, kind, name):
    write_clip(tmp_path / "part.ts", 60)
    for head in ("", "\ufeff", "\n\n"):
        (tmp_path / name).write_text(head + PLAYLISTS[kind])
        for opens in (probe, source_digest):
            with pytest.raises(VideoError, match=rf"it is a playlist \({kind}\) that names other files"):
                opens(tmp_path / name)
    # FFmpeg opens none either, if the check of the file's beginning should miss it.
    (tmp_path / name).write_text(PLAYLISTS[kind])
    with pytest.raises(VideoError, match="cannot be opened"):
        open_container(Source(SourceKind.FILE, str(tmp_path / name)))


def test_a_playlist_that_only_ffmpeg_recognises_is_refused(tmp_path):
    write_clip(tmp_path / "part.ts", 60)
    tag = b"ID3\x04\x00\x00\x00\x00\x00\x0a" + bytes(10)
    (tmp_path / "list.m3u8").write_bytes(tag + PLAYLISTS["HLS"].encode())
    for allow_playlists in (False, True):
        with pytest.raises(VideoError, match="cannot be opened"):
            open_here(tmp_path / "list.m3u8", allow_playlists=allow_playlists)


def test_playlists_that_are_allowed_have_no_digest(tmp_path):
    write_clip(tmp_path / "part.ts", 60)
    for kind in ("HLS", "ffconcat"):
        (tmp_path / "list.m3u8").write_text(PLAYLISTS[kind])
        assert open_here(tmp_path / "list.m3u8", allow_playlists=True).info.width_pixels == 64
        assert source_state(tmp_path / "list.m3u8", allow_playlists=True).digest is None
    assert source_state(tmp_path / "part.ts", allow_playlists=True).digest == source_digest(tmp_path / "part.ts")


def test_playlist_does_not_reach_the_network(tmp_path, address):
    write_clip(tmp_path / "part.ts", 60)
    playlist = tmp_path / "list.m3u8"
    playlist.write_text(PLAYLIST.format(f"{address}/part.ts"))
    with pytest.raises(VideoError, match="cannot be opened"):
        open_here(playlist, allow_playlists=True)


def test_address_does_not_reach_local_files(tmp_path, address):
    part = write_clip(tmp_path / "part.ts", 60)
    (tmp_path / "list.m3u8").write_text(PLAYLIST.format(part.as_uri()))
    with pytest.raises(VideoError, match="cannot be opened"):
        open_here(f"{address}/list.m3u8", allow_network=True, allow_playlists=True)
    (tmp_path / "list.m3u8").write_text(PLAYLIST.format("part.ts"))
    for kind in ("HLS", "ffconcat"):
        (tmp_path / "list.m3u8").write_text(PLAYLISTS[kind])
        with pytest.raises(VideoError, match=rf"it is a playlist \({kind}\)"):
            open_here(f"{address}/list.m3u8", allow_network=True)
    (tmp_path / "list.m3u8").write_text(PLAYLIST.format("part.ts"))
    assert open_here(f"{address}/list.m3u8", allow_network=True, allow_playlists=True).info.width_pixels == 64
    assert source_state(f"{address}/list.m3u8", allow_network=True, allow_playlists=True).digest is None


@pytest.mark.parametrize("name", ["notes.txt", "read.nfo", "art.ans", "talk.srt", "talk.vtt", "a.diz", "page.html"])
def test_text_is_no_video(tmp_path, name):
    text = "WEBVTT\n\n" if name.endswith("vtt") else ""
    (tmp_path / name).write_text(text + "1\n00:00:01,000 --> 00:00:02,000\nHello\n\n" * 50)
    with pytest.raises(VideoError, match=r"cannot be opened: (FFmpeg takes it for|it is no video)"):
        open_container(Source(SourceKind.FILE, str(tmp_path / name)))


@pytest.mark.parametrize(
    "name", ["p%d.png", "p%03d.png", "%d.jpg", "p%%.png", "100%.png", "p[0-9].png", "p*.png", "p?.png"]
)
def test_a_picture_with_a_pattern_in_its_name_is_that_picture(tmp_path, name):
    for other in ("p0.png", "p1.png", "p2.png", "p000.png", "p001.png", "0.jpg", "1.jpg", "p%.png"):
        Image.new("RGB", (32, 32), (255, 0, 0)).save(tmp_path / other)
    Image.new("RGB", (32, 32), (0, 255, 0)).save(tmp_path / name)
    (picture,) = read_here(tmp_path / name).frames
    assert picture[16, 16, 1] > 200
    assert picture[16, 16, 0] < 60


def test_the_formats_are_those_of_the_docs_and_lie_in_one_file():
    documented = re.search(r"## Formats\n(.*?)\n## ", DOCUMENT.read_text(), flags=re.DOTALL)[1]
    assert set(re.findall(r"`([a-z0-9_]+)`", documented)) == set(FORMATS)
    for name in FORMATS:
        ContainerFormat(name, "r")  # raises for a name that FFmpeg does not know
    naming_others = {"concat", "dash", "hls", "imf", "sdp", "rtsp", "rtp", "sap", "vobsub", "webm_dash_manifest", "mlv"}
    scripts_and_text = {"lavfi", "avisynth", "vapoursynth", "tty", "bin", "xbin", "adf", "idf", "svg_pipe", "sbg"}
    assert not set(FORMATS) & (naming_others | scripts_and_text)


def test_a_folder_takes_no_scripts_for_pictures(tmp_path):
    """Pillow recognises a format by the content and runs Ghostscript for PostScript."""
    (tmp_path / "1.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n")
    with pytest.raises(VideoError, match="cannot be read as a picture"):
        open_here(tmp_path)
    for number, name in enumerate(("BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP"), start=1):
        Image.new("RGB", (8, 8)).save(tmp_path / f"{number}.png", format=name)
    assert open_here(tmp_path).info.duration_seconds == 8


def test_a_movie_whose_pictures_lie_in_another_file_is_refused(tmp_path):
    """A QuickTime alias to another file: FFmpeg would open it with `enable_drefs`."""
    data = write_clip(tmp_path / "a.mov", 20).read_bytes()
    name = b"clip.mov"
    alias = bytearray(150)
    alias[50 : 51 + len(name)] = bytes([len(name)]) + name
    path = str(tmp_path / "clip.mov").encode()
    alias += (0).to_bytes(2) + len(name).to_bytes(2) + name
    alias += (2).to_bytes(2) + len(path).to_bytes(2) + path + bytes(len(path) % 2) + (0xFFFF).to_bytes(2) + bytes(2)
    own = b"\x00\x00\x00\x0curl \x00\x00\x00\x01"
    assert own in data
    entry = (12 + len(alias)).to_bytes(4) + b"alis" + bytes(4) + bytes(alias)
    for box in (b"dref", b"dinf", b"minf", b"mdia", b"trak", b"moov"):
        at = data.index(box) - 4
        data = data[:at] + (int.from_bytes(data[at : at + 4]) + len(entry) - len(own)).to_bytes(4) + data[at + 4 :]
    (tmp_path / "a.mov").rename(tmp_path / "clip.mov")
    (tmp_path / "reference.mov").write_bytes(data.replace(own, entry))
    with pytest.raises(VideoError, match=r"reference\.mov"):
        open_here(tmp_path / "reference.mov")


@pytest.mark.parametrize("source", ["rtsp://camera/1", "ftp://host/a.mp4", "file://otherhost/a.mp4"])
def test_other_protocols_are_refused(source):
    with pytest.raises(VideoError, match=r"give a path|of this machine"):
        read_frames(source, allow_network=True)


def test_wrong_names_give_an_error_of_one_line(tmp_path):
    names = [None, 3, [], "", " ", "\n", "\0", "x" * 5000, "a\nb.mp4", "a\u2028b.mp4", "a\x1b[31m.mp4", b"missing"]
    names += [
        "http://[::1/a",
        "http://h:x/a",
        "http:///a",
        "http://",
        "https://?x",
        "file://[x",
        "http://a b/c",
        "http://h%20/",
    ]
    for name in names:
        for opens in (probe, source_digest):
            with pytest.raises(VideoError) as error:
                opens(name, allow_network=True)
            assert len(str(error.value).splitlines()) == 1
            assert len(str(error.value)) < 500


def test_wrong_types_give_an_error_of_one_line(tmp_path):
    clip = write_clip(tmp_path / "clip.mp4", 10)
    wrong = [("fps", "1"), ("fps", None), ("start_seconds", "0"), ("end_seconds", "1"), ("size_pixels", 3)]
    wrong += [("size_pixels", ("a", 2)), ("size_pixels", (1, 2, 3)), ("size_pixels", "ab"), ("batch_frames", "1")]
    wrong += [("num_processes", 1.5), ("timeout_seconds", None), ("timeout_seconds", float("nan")), ("folder_fps", "1")]
    wrong += [("timeout_seconds", float("inf")), ("start_seconds", 10**400), ("fps", float("nan"))]
    for name, value in wrong:
        with pytest.raises(ConfigError) as error:
            read_frames(clip, **{name: value})
        assert len(str(error.value).splitlines()) == 1


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


@pytest.mark.parametrize("block_bytes", [256, pytest.param(DIGEST_BLOCK_BYTES, marks=pytest.mark.slow)])
@pytest.mark.parametrize("change", ["first byte", "last byte", "longer", "other middle"])
def test_digest_of_a_large_file_notices(tmp_path, change, block_bytes, monkeypatch):
    monkeypatch.setattr(identity, "DIGEST_BLOCK_BYTES", block_bytes)
    path = tmp_path / "large.mp4"
    num_bytes = 4 * DIGEST_BLOCKS * block_bytes
    with path.open("wb") as file:
        file.truncate(num_bytes)  # a sparse file: no disk space
    before = source_digest(path)
    with path.open("r+b") as file:
        if change == "longer":
            file.truncate(num_bytes + 1)
        else:
            file.seek({"first byte": 0, "last byte": num_bytes - 1, "other middle": num_bytes // 2}[change])
            file.write(b"x" * (8 * block_bytes if change == "other middle" else 1))
    assert source_digest(path) != before


def test_digest_of_a_folder(tmp_path):
    for i in range(3):
        Image.new("L", (2, 2), i).save(tmp_path / f"{i}.png")
    before = source_digest(tmp_path)
    Image.new("L", (2, 2), 9).save(tmp_path / "1.png")
    assert source_digest(tmp_path) != before


def test_digest_of_a_large_folder_notices_every_change(tmp_path, monkeypatch):
    """Not all pictures are read; their lengths and times of change count."""
    monkeypatch.setattr(identity, "DIGEST_PICTURES", 10)
    monkeypatch.setattr(identity, "DIGEST_BLOCKS", 4)
    for i in range(20):
        (tmp_path / f"{i}.png").write_bytes(b"picture %d" % i)
    seen = {source_digest(tmp_path)}
    for number, change in enumerate(("write", "write", "rename", "remove"), start=5):
        path = tmp_path / f"{number}.png"
        if change == "write":
            path.write_bytes(path.read_bytes()[::-1])
            os.utime(path, ns=(0, number))
        elif change == "rename":
            path.rename(tmp_path / f"{number}.jpg")
        else:
            path.unlink()
        seen.add(source_digest(tmp_path))
    assert len(seen) == 5


@pytest.mark.parametrize("change", ["replaced", "rewritten", "removed", "picture rewritten", "picture added"])
def test_a_source_that_changes_is_noticed(tmp_path, change):
    folder = tmp_path / "frames"
    folder.mkdir()
    for i in range(3):
        Image.new("L", (2, 2), i).save(folder / f"{i}.png")
    file = tmp_path / "clip.mp4"
    file.write_bytes(b"first")
    state = source_state(folder if "picture" in change else file)
    assert state.is_unchanged()
    if change == "replaced":
        (tmp_path / "new").write_bytes(b"other, longer")
        (tmp_path / "new").replace(file)
    elif change == "rewritten":
        file.write_bytes(b"other")
        os.utime(file, ns=(0, 1))
    elif change == "removed":
        file.unlink()
    elif change == "picture rewritten":
        os.utime(folder / "1.png", ns=(0, 1))
    else:
        Image.new("L", (2, 2)).save(folder / "9.png")
    with pytest.raises(VideoError, match="changed while it was read"):
        state.is_unchanged()


def test_a_growing_file_is_changed_but_no_error(tmp_path):
    file = tmp_path / "clip.ts"
    file.write_bytes(b"first")
    state = source_state(file)
    with file.open("ab") as growing:
        growing.write(b" and more")
    assert not state.is_unchanged()


@contextlib.contextmanager
def pipe_with(data):
    """The reading end of a pipe that a thread writes `data` to."""
    reading, writing = os.pipe()

    def write():
        with contextlib.suppress(BrokenPipeError), os.fdopen(writing, "wb") as file:
            file.write(data)

    writer = threading.Thread(target=write)
    writer.start()
    yield reading
    os.close(reading)
    writer.join()


def test_descriptors_of_this_process_are_read(tmp_path):
    """In a child the same numbers are other descriptors; 0 is its pipe of requests."""
    clip = write_clip(tmp_path / "clip.ts", 60)
    link = tmp_path / "link.ts"
    with clip.open("rb") as file:
        link.symlink_to(f"/proc/self/fd/{file.fileno()}")
        for name in (f"/dev/fd/{file.fileno()}", f"/proc/self/fd/{file.fileno()}", link):
            assert resolve_source(name) == resolve_source(clip)
        with read_frames(link) as reader:
            assert [number_of(frame) for batch in reader for frame in batch.frames] == [0, 25, 50]
        clip.unlink()  # without a name it can be read once, like a pipe
        assert source_digest(f"/dev/fd/{file.fileno()}") is None
        assert open_here(f"/dev/fd/{file.fileno()}").info.width_pixels == 64
    with pipe_with(write_clip(clip, 60).read_bytes()) as reading:
        assert source_digest(f"/dev/fd/{reading}") is None
        with read_frames(f"/dev/fd/{reading}") as reader:
            assert [number_of(frame) for batch in reader for frame in batch.frames] == [0, 25, 50]


COUNT_FRAMES = """
import sys, hourllava.video as v
print(v.source.resolve_source(sys.argv[1]).descriptor, sum(len(batch) for batch in v.read_frames(sys.argv[1])))
"""


def test_names_of_descriptors_are_recognised():
    names = ("/dev/stdin", "/dev/fd/0", "/proc/self/fd/0", f"/proc/{os.getpid()}/fd/0")
    assert [descriptor_of(name) for name in names] == [0, 0, 0, 0]
    assert descriptor_of("/proc/1/fd/0") is None
    assert descriptor_of("/dev/fd/x") is None


@pytest.mark.parametrize("name", ["-", pytest.param("/dev/stdin", marks=pytest.mark.slow)])
def test_standard_input_is_read(tmp_path, name):
    piped = write_clip(tmp_path / "clip.ts", 60).read_bytes()
    command = [sys.executable, "-c", COUNT_FRAMES, name]
    read = subprocess.run(command, input=piped, env=CHILD_ENVIRONMENT, capture_output=True)
    assert (read.stdout, read.stderr) == (b"0 3\n", b"")


def test_a_file_as_standard_input_is_read_by_its_name(tmp_path):
    clip = write_clip(tmp_path / "clip.ts", 60)
    with clip.open("rb") as file:
        command = [sys.executable, "-c", COUNT_FRAMES, "-"]
        assert subprocess.run(command, stdin=file, env=CHILD_ENVIRONMENT, capture_output=True).stdout == b"None 3\n"
    nothing = subprocess.run(command, stdin=subprocess.DEVNULL, env=CHILD_ENVIRONMENT, capture_output=True)
    assert b"cannot be opened" in nothing.stderr.splitlines()[-1]


def test_a_terminal_is_refused_at_once():
    ours, theirs = pty.openpty()
    with pytest.raises(VideoError, match="is a terminal"):
        probe(f"/dev/fd/{theirs}")
    os.close(ours)
    os.close(theirs)
