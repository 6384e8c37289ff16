"""The structure of files: missing bytes, crop, encryption, tiles, size."""

import io
import shutil
import subprocess
import zlib
from fractions import Fraction

import av
import numpy as np
import pytest
from PIL import Image

from hourllava.errors import VideoError
from hourllava.video.demuxer import Demuxer
from hourllava.video.layout import Crop, cropping, is_cut_short, is_encrypted, tiled_picture_kind, webp_durations_ms
from hourllava.video.source import resolve_source
from video.clips import board, silence, write_clip
from video.reading import open_here, read_here


@pytest.fixture(scope="session")
def any_clip(shared_clip, tmp_path_factory):
    """The bytes of a clip of 6 s in the format of a suffix."""
    folder = tmp_path_factory.mktemp("any")

    def clip(suffix):
        if suffix in ("gif", "png", "webp"):
            pictures = [Image.fromarray(board(i)) for i in range(60)]
            options = {} if suffix == "png" else {"save_all": True, "append_images": pictures[1:], "duration": 100}
            pictures[0].save(folder / f"clip.{suffix}", **options)
            return (folder / f"clip.{suffix}").read_bytes()
        codec = {"webm": "libvpx", "avi": "mpeg4"}.get(suffix, "libx264")
        options = {"g": "10"} | ({"deadline": "realtime", "cpu-used": "8"} if codec == "libvpx" else {})
        return shared_clip(suffix, 60, 10, width=160, height=120, codec=codec, options=options).read_bytes()

    return clip


@pytest.mark.parametrize("suffix", ["mkv", "webm", "avi", "gif", "png", "webp", "mp4"])
def test_a_file_that_lacks_bytes(tmp_path, any_clip, suffix):
    path, data = tmp_path / f"clip.{suffix}", any_clip(suffix)
    path.write_bytes(data)
    assert not is_cut_short(path)
    for length in (len(data) * 3 // 4, len(data) - 1):
        path.write_bytes(data[:length])
        assert is_cut_short(path)


@pytest.mark.parametrize("suffix", ["mkv", "webm", "avi", "gif"])
def test_half_a_file_is_a_gap_at_its_end(tmp_path, any_clip, suffix):
    path = tmp_path / f"clip.{suffix}"
    path.write_bytes(any_clip(suffix))
    whole = read_here(path)
    assert len(whole.frames) == 6
    assert whole.gaps == ()
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])
    half = read_here(path)
    num_frames = len(half.frames)
    assert 2 <= num_frames < 6
    gap = half.gaps[-1]
    assert "cut short" in gap.reason
    assert gap.start_seconds <= num_frames
    assert gap.end_seconds == pytest.approx(6, abs=0.2) or suffix in ("avi", "gif")  # FFmpeg does not know the length


def test_a_recording_that_grows_is_not_cut_short(tmp_path):
    for suffix, options in (("mkv", {"live": "1"}), ("ts", {}), ("flv", {"flvflags": "no_duration_filesize"})):
        path = write_clip(tmp_path / f"clip.{suffix}", 60, 10, container_options=options)
        path.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])
        assert not is_cut_short(path)


def insert_box(data, parents, box):
    """An mp4 with a box added at the end of the last of `parents`; its index must lie after the media."""
    data = bytearray(data)
    starts = [data.rindex(name) - 4 for name in parents]
    end = starts[-1] + int.from_bytes(data[starts[-1] : starts[-1] + 4])
    for start in starts:
        size = int.from_bytes(data[start : start + 4]) + len(box)
        data[start : start + 4] = size.to_bytes(4)
    return bytes(data[:end]) + box + bytes(data[end:])


@pytest.mark.parametrize("rotation", [None, 90])
def test_mp4_crop(tmp_path, rotation):
    """96 x 72 of 128 x 96, 8 to the right and 4 up of the middle: 24 pixels off the left, 8 right, 8 top, 16 bottom."""
    path = write_clip(tmp_path / "clip.mp4", 3, width=128, height=96, rotation=rotation)
    whole = read_here(path).frames[0]
    numbers = (96, 1, 72, 1, 8, 1, -4, 1)
    clap = (40).to_bytes(4) + b"clap" + b"".join(n.to_bytes(4, signed=True) for n in numbers)
    parents = (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stsd", b"avc1")
    path.write_bytes(insert_box(path.read_bytes(), parents, clap))
    assert cropping(path) == Crop(24, 8, 8, 16)
    video = read_here(path)
    frame, info = video.frames[0], video.info
    if rotation:
        whole = np.rot90(whole, -1)
        frame, size = np.rot90(frame, -1), (72, 96)
    else:
        size = (96, 72)
    assert (info.width_pixels, info.height_pixels) == size
    np.testing.assert_array_equal(frame, whole[8:80, 24:120])


def ebml(name, body):
    """A Matroska element."""
    id_bytes = name.to_bytes((name.bit_length() + 7) // 8)
    return id_bytes + (len(body) | 1 << 28).to_bytes(4) + body


def matroska(*track):
    tracks = ebml(0x1654AE6B, ebml(0xAE, ebml(0x83, b"\x02")) + ebml(0xAE, ebml(0x83, b"\x01") + b"".join(track)))
    return ebml(0x1A45DFA3, ebml(0x4282, b"matroska")) + ebml(0x18538067, ebml(0x1549A966, b"") + tracks)


def test_matroska_crop_and_encryption(tmp_path):
    path = tmp_path / "head.mkv"
    sides = ebml(0x54CC, b"\x08") + ebml(0x54DD, b"\x01\x00") + ebml(0x54BB, b"\x02") + ebml(0x54AA, b"\x04")
    path.write_bytes(matroska(ebml(0xE0, ebml(0xB0, b"\x40") + sides)))
    assert cropping(path) == Crop(left=8, right=256, top=2, bottom=4)
    assert not is_encrypted(path)
    path.write_bytes(matroska(ebml(0x6D80, ebml(0x6240, ebml(0x5035, b"")))))
    assert is_encrypted(path)
    assert cropping(path) == Crop()


def test_encrypted_files_are_refused_as_encrypted(tmp_path):
    key = {"encryption_key": "76a6c65c5ea762046bd749a2e632ccbb", "encryption_kid": "a7e61c373e219033c21091fa607bf3b8"}
    options = {"encryption_scheme": "cenc-aes-ctr", **key}
    path = write_clip(tmp_path / "cenc.mp4", 20, container_options=options)
    with pytest.raises(VideoError, match="is encrypted"):
        open_here(path)
    path = write_clip(tmp_path / "scrambled.ts", 40, 10)
    data = bytearray(path.read_bytes())
    for at in range(0, len(data), 188):
        if (int.from_bytes(data[at + 1 : at + 3]) & 0x1FFF) == 256:
            data[at + 3] |= 0x80
            data[at + 20 : at + 188] = bytes(value ^ 0xA5 for value in data[at + 20 : at + 188])
    path.write_bytes(data)
    assert is_encrypted(path)


def test_a_song_with_a_cover(tmp_path):
    picture = io.BytesIO()
    Image.fromarray(board(1)).save(picture, "PNG")
    path = tmp_path / "song.m4a"
    with av.open(str(path), "w", format="mp4") as output:
        sound = output.add_stream("aac", rate=48000)
        cover = output.add_stream("png")
        cover.width, cover.height, cover.pix_fmt = 64, 48, "gray"
        cover.disposition = av.stream.Disposition.attached_pic
        output.start_encoding()
        packet = av.Packet(picture.getvalue())
        packet.stream, packet.pts, packet.dts = cover, 0, 0
        output.mux(packet)
        output.mux(sound.encode(silence(48000)))
        output.mux(sound.encode(None))
    with pytest.raises(VideoError, match="no video stream, only audio and a cover picture"):
        open_here(path)


def png(width, height, depth=1):
    """A black PNG of any size in a few kilobytes."""

    def chunk(name, body):
        return len(body).to_bytes(4) + name + body + zlib.crc32(name + body).to_bytes(4)

    compressor = zlib.compressobj(9)
    row = bytes(1 + width * depth // 8)
    body = b"".join(compressor.compress(row) for _ in range(height)) + compressor.flush()
    head = width.to_bytes(4) + height.to_bytes(4) + bytes([depth, 0, 0, 0, 0])
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


@pytest.mark.parametrize("size", [(13000, 13000), (8200, 8200), (16384, 4200)])
def test_pictures_that_are_too_large(tmp_path, size):
    path = tmp_path / "bomb.png"
    path.write_bytes(png(*size))
    with pytest.raises(VideoError, match=rf"{size[0]} x {size[1]} pixels, at most 67,108,864"):
        open_here(path)


def test_pixels_too_wide(tmp_path):
    path = write_clip(tmp_path / "wide.mp4", 1, width=4096, height=480, sample_aspect_ratio=Fraction(60, 1))
    with pytest.raises(VideoError, match="245760 x 480 pixels"):
        open_here(path)


def test_animated_webp(tmp_path):
    durations = [500, 1000, 700, 10]
    pictures = [Image.fromarray(board(i)) for i in range(4)]
    path = tmp_path / "clip.webp"
    pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=durations, lossless=True)
    video = read_here(path, fps=2, size_pixels=(96, 128))
    assert video.numbers == [0, 1, 1, 2, 2]
    assert video.timestamps == [0, 0.5, 0.5, 1.5, 1.5]
    assert video.info.duration_seconds == 2.3  # the last one is shown for 100 ms, as in browsers
    assert np.stack(video.frames).shape == (5, 96, 128, 3)


def box(name, body):
    return (8 + len(body)).to_bytes(4) + name + body


@pytest.mark.parametrize("kind", [b"grid", b"iovl", b"hvc1"])
def test_heic_of_tiles_is_refused_by_name(tmp_path, kind):
    items = [box(b"infe", bytes([2, 0, 0, 0, 0, number, 0, 0]) + name) for number, name in ((1, b"hvc1"), (2, kind))]
    meta = box(b"pitm", bytes([0, 0, 0, 0, 0, 2])) + box(b"iinf", bytes([0, 0, 0, 0, 0, 2]) + b"".join(items))
    path = tmp_path / "phone.heic"
    path.write_bytes(box(b"ftyp", b"heic\0\0\0\0mif1heic") + box(b"meta", bytes(4) + meta))
    if kind == b"hvc1":
        assert tiled_picture_kind(path) is None
        return
    with pytest.raises(VideoError, match="HEIC picture made of tiles"):
        open_here(path)


@pytest.mark.skipif(shutil.which("avifenc") is None, reason="makes its file with avifenc, of libavif")
def test_avif_of_tiles_is_one_picture(tmp_path):
    Image.fromarray(board(0b101101, 512, 384)).save(tmp_path / "whole.png")
    command = ["avifenc", "-j", "1", "-s", "10", "--grid", "2x2", "whole.png", "grid.avif"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    video = read_here(tmp_path / "grid.avif")
    assert np.stack(video.frames).shape == (1, 384, 512, 3)
    assert video.numbers == [0b101101]


def test_packets_of_new_streams_are_passed_over(tmp_path):
    """PyAV raises IndexError for a packet of a stream that appeared after the file was opened."""
    path = write_clip(tmp_path / "clip.ts", 50, 10)
    video = Demuxer(resolve_source(path), lambda: None)

    class Later:
        def __init__(self, container):
            self.container = container
            self.num_calls = 0

        def demux(self, stream):
            self.num_calls += 1
            for number, packet in enumerate(self.container.demux(stream)):
                yield packet
                if number == 10 and self.num_calls < 100:
                    raise IndexError("list index out of range")

    video.seek_start()
    later = video.container = Later(video.container)
    assert sum(1 for _ in video.packets()) == 50
    assert later.num_calls > 1
    assert video.damaged_reads == 0


@pytest.mark.parametrize("suffix", ["mkv", "mp4", "avi", "gif", "png", "webp", "ts"])
def test_damaged_headers_raise_nothing(tmp_path, any_clip, suffix):
    """Bytes changed and cut at random: an answer, never an exception."""
    data = any_clip(suffix)
    rng = np.random.default_rng(len(data))
    path = tmp_path / "mutant"
    for _ in range(60):
        mutant = bytearray(data)
        for _ in range(rng.integers(1, 20)):
            mutant[int(rng.integers(0, min(len(mutant), 4000)))] = int(rng.integers(256))
        path.write_bytes(mutant[: int(rng.integers(1, len(mutant)))])
        assert isinstance(is_cut_short(path), bool)
        assert isinstance(is_encrypted(path), bool)
        assert min(vars(cropping(path)).values()) >= 0
        assert tiled_picture_kind(path) is None
        assert isinstance(webp_durations_ms(path), list)
