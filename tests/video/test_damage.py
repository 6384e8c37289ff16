"""Bad input: the right frames with a gap reported, or one clear error of ours."""

import shutil
from pathlib import Path

import av
import pytest

from hourllava.errors import VideoError
from hourllava.video import read_frames
from video.clips import silence, write_clip
from video.reading import open_here, read_here

HOLE_BYTES = 4096


def numbers_and_gaps(path, num_readers=1):
    video = read_here(path, num_readers=num_readers)
    return video.numbers, video.gaps


def is_reported(second, gaps):
    return any(gap.start_seconds <= second < gap.end_seconds for gap in gaps)


def assert_refused(source, *words):
    with pytest.raises(VideoError) as caught:
        open_here(source)
    message = str(caught.value)
    assert "\n" not in message
    for word in (Path(source).name, *words):
        assert word in message


@pytest.fixture(scope="module")
def long_clip(tmp_path_factory) -> bytes:
    """150 s at 10 fps, a keyframe every 5 s, index at the front."""
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    options = {"g": "50", "crf": "1"}
    size = {"width": 160, "height": 120}
    return write_clip(path, 1500, 10, options=options, container_options={"movflags": "faststart"}, **size).read_bytes()


def test_no_such_file(tmp_path):
    assert_refused(tmp_path / "missing.mp4", "no such file")


def test_text_named_mp4(tmp_path):
    path = tmp_path / "notes.mp4"
    path.write_text("These are the minutes of a meeting.\n" * 100)
    assert_refused(path, "no video")


def test_zero_bytes(tmp_path):
    path = tmp_path / "empty.mp4"
    path.touch()
    assert_refused(path, "empty")


def test_folder_without_pictures(tmp_path):
    assert_refused(tmp_path, "without pictures")


def test_audio_only(tmp_path):
    path = tmp_path / "sound.mp4"
    with av.open(str(path), "w") as output:
        stream = output.add_stream("aac", rate=48000)
        output.mux(stream.encode(silence(48000)))
        output.mux(stream.encode(None))
    assert_refused(path, "no video stream", "audio")


def test_mp4_without_its_index(tmp_path):
    data = write_clip(tmp_path / "whole.mp4", 100).read_bytes()
    path = tmp_path / "cut.mp4"
    path.write_bytes(data[: data.index(b"moov") - 4])
    assert_refused(path, "moov")


def test_no_picture_can_be_decoded(tmp_path):
    data = bytearray(write_clip(tmp_path / "whole.mp4", 20).read_bytes())
    start, end = data.index(b"mdat") + 4, data.index(b"moov") - 4
    data[start:end] = bytes(end - start)
    path = tmp_path / "blank.mp4"
    path.write_bytes(data)
    assert_refused(path, "no picture")


def test_mp4_cut_in_the_middle(tmp_path, long_clip):
    path = tmp_path / "cut.mp4"
    path.write_bytes(long_clip[: len(long_clip) * 6 // 10])
    numbers, gaps = numbers_and_gaps(path)
    assert len(numbers) > 60
    assert all(number == 10 * i or is_reported(i, gaps) for i, number in enumerate(numbers))
    assert gaps[-1].end_seconds > 149  # the end according to the index


def test_six_holes_cost_their_neighbourhood(tmp_path, long_clip):
    data = bytearray(long_clip)
    media = data.index(b"mdat")
    for i in range(1, 7):
        start = media + (len(data) - media) * i // 7
        data[start : start + HOLE_BYTES] = bytes(HOLE_BYTES)
    path = tmp_path / "holes.mp4"
    path.write_bytes(data)
    numbers, gaps = numbers_and_gaps(path)
    assert len(numbers) == 150
    wrong = [i for i, number in enumerate(numbers) if number != 10 * i]
    assert 0 < len(wrong) < 75
    assert [i for i in wrong if not is_reported(i, gaps)] == []
    assert sum(gap.end_seconds - gap.start_seconds for gap in gaps) < 75
    assert numbers_and_gaps(path, num_readers=2) == (numbers, gaps)


@pytest.mark.parametrize("suffix", ["mkv", "ts"])
def test_other_containers_survive_holes(tmp_path, suffix):
    path = write_clip(tmp_path / f"clip.{suffix}", 600, 10, width=160, height=120, options={"g": "50", "crf": "1"})
    data = bytearray(path.read_bytes())
    for i in range(1, 4):
        start = len(data) * i // 4
        data[start : start + HOLE_BYTES // 2] = bytes(HOLE_BYTES // 2)
    path.write_bytes(data)
    numbers, gaps = numbers_and_gaps(path)
    assert len(numbers) == 60
    assert sum(number == 10 * i for i, number in enumerate(numbers)) > 30
    assert gaps


def test_file_that_changes_while_it_is_read(tmp_path, shared_clip):
    path = Path(shutil.copy(shared_clip("mp4", 1500, 10, options={"g": "50"}), tmp_path))
    other = write_clip(tmp_path / "other.mp4", 30, 10)
    with read_frames(path, batch_frames=1, num_processes=1) as reader:
        next(reader)
        other.replace(path)
        with pytest.raises(VideoError, match="changed while it was read"):
            list(reader)


def test_damaged_picture_in_a_folder(tmp_path):
    (tmp_path / "frame1.png").write_bytes(b"\x89PNG\r\n\x1a\n but no more")
    with pytest.raises(VideoError, match=r"frame1\.png cannot be read"):
        open_here(tmp_path)
