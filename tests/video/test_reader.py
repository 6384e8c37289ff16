"""Reading clips with known frames: the right frame at every sample time, for all kinds of timing and containers."""

from fractions import Fraction
from itertools import product
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from hourllava.errors import ConfigError
from hourllava.video import read_frames
from hourllava.video.demuxer import Demuxer
from hourllava.video.sampled import SampledVideo
from hourllava.video.source import resolve_source
from hourllava.video.timeline import SampleGrid
from video.clips import board, expected_numbers, write_clip
from video.reading import open_here, read_here


@pytest.mark.parametrize(
    ("fps", "sample_fps", "num_frames"),
    [
        (25, 1, 110),
        (25, 4, 60),
        (24, 1, 50),
        (Fraction(30000, 1001), 1, 100),
        (29.97, 2, 100),
        (120, 5, 200),
        (0.5, 1, 4),
        (25, 60, 9),
    ],
)
def test_frame_on_screen_at_each_sample(tmp_path, fps, sample_fps, num_frames):
    path = write_clip(tmp_path / "clip.mp4", num_frames, fps)
    rate = Fraction(fps).limit_denominator(100000)
    times = [i / rate for i in range(num_frames)]
    video = read_here(path, fps=sample_fps)
    assert video.numbers == expected_numbers(times, sample_fps, num_frames / rate)
    np.testing.assert_allclose(video.sample_seconds, np.arange(len(video.numbers)) / sample_fps)
    np.testing.assert_allclose(video.timestamps, [float(times[number]) for number in video.numbers], atol=1e-4)
    assert video.info.duration_seconds == pytest.approx(float(num_frames / rate), abs=1e-3)
    assert video.gaps == ()


@pytest.mark.parametrize(
    ("suffix", "codec", "pixel_format"),
    [
        ("mp4", "libx264", "yuv420p"),
        ("mov", "libx264", "yuv420p"),
        ("mkv", "libx264", "yuv420p"),
        ("mkv", "libx265", "yuv420p"),
        ("ts", "libx264", "yuv420p"),
        ("ts", "mpeg2video", "yuv420p"),
        ("avi", "mpeg4", "yuv420p"),
        ("avi", "libx264", "yuv420p"),
        ("avi", "mjpeg", "yuvj420p"),
        ("flv", "libx264", "yuv420p"),
        ("webm", "libvpx-vp9", "yuv420p"),
        ("webm", "libvpx", "yuv420p"),
        ("mkv", "libsvtav1", "yuv420p"),
        ("mkv", "ffv1", "yuv420p"),
    ],
)
def test_containers_and_codecs(tmp_path, suffix, codec, pixel_format):
    options = {"x265-params": "log-level=none"} if codec == "libx265" else {}
    path = write_clip(tmp_path / f"clip.{suffix}", 60, codec=codec, pixel_format=pixel_format, options=options)
    video = read_here(path, fps=5)
    assert video.numbers == list(range(0, 60, 5))
    np.testing.assert_allclose(video.timestamps, np.arange(12) / 5, atol=2e-3)


@pytest.mark.parametrize(
    ("suffix", "is_open", "gop"),
    [
        pytest.param(*way, marks=() if way in {("mp4", 0, 7), ("ts", 1, 7)} else pytest.mark.slow)
        for way in product(("mp4", "ts"), (0, 1), (7, 250))
    ],
)
def test_any_number_of_readers_gives_the_same(tmp_path, suffix, is_open, gop):
    """130 s are three segments; the number of every frame is checked, so the borders are exact."""
    options = {"g": str(gop), "x264-params": f"open-gop={is_open}:bframes=4:b-adapt=0:scenecut=0"}
    path = write_clip(tmp_path / f"clip.{suffix}", 1300, 10, options=options)
    results = [read_here(path, fps=2, num_readers=count) for count in (1, 2, 3)]
    for video in results:
        assert video.numbers == list(range(0, 1300, 5))
        assert video.sample_seconds == results[0].sample_seconds
        assert video.timestamps == results[0].timestamps


@pytest.mark.parametrize("num_processes", [1, 3])
def test_processes_give_what_is_read_here(shared_clip, num_processes):
    path = shared_clip("mp4", 1500, 10, options={"g": "50"})
    with read_frames(path, fps=2, num_processes=num_processes, size_pixels=(24, 32)) as reader:
        batches = list(reader)
    here = read_here(path, fps=2, size_pixels=(24, 32))
    np.testing.assert_array_equal(np.concatenate([batch.frames for batch in batches]), here.frames)
    assert [second for batch in batches for second in batch.sample_seconds] == here.sample_seconds
    assert [second for batch in batches for second in batch.timestamps_seconds] == here.timestamps
    assert (reader.info, reader.gaps) == (here.info, here.gaps)


@pytest.mark.parametrize("suffix", ["mp4", "ts"])
def test_every_packet_is_read_about_once(shared_clip, suffix):
    """Seeks in MPEG-TS land behind the wanted keyframe; searching for it once read a file 30 times.

    It has no index, so all packets are read once more, before, to see that its clock is steady.
    """
    path = shared_clip(suffix, 1500, 10, options={"g": "50"})
    num_packets = 0

    def count():
        nonlocal num_packets
        num_packets += 1

    samples = SampledVideo(Demuxer(resolve_source(path), count), SampleGrid.of(1))
    assert samples.num_segments == 3
    shown = [item for index in range(3) for item in samples.segment(index)]
    assert [item.sample for item in shown] == list(range(150))
    num_looks = 1 if suffix == "mp4" else 2
    assert num_looks * 1500 < num_packets < num_looks * 1500 + 1500


def test_keyframe_flags_that_lie(tmp_path):
    """An mp4 whose index marks every frame as a keyframe: decoding begins further back until frames are whole."""
    path = write_clip(tmp_path / "clip.mp4", 1300, 10, options={"g": "100"})
    data = bytearray(path.read_bytes())
    name = data.index(b"stss")
    data[name : name + 4] = b"free"  # without this table every frame counts as a keyframe
    path.write_bytes(data)
    assert read_here(path, fps=2).numbers == list(range(0, 1300, 5))
    assert read_here(path, fps=0.05).numbers == list(range(0, 1300, 200))


def test_gradual_refresh_without_keyframes(tmp_path):
    options = {"x264-params": "intra-refresh=1:keyint=40:bframes=0"}
    path = write_clip(tmp_path / "clip.ts", 1300, 10, options=options)
    assert read_here(path, fps=2, num_readers=2).numbers == list(range(0, 1300, 5))


def test_variable_frame_rate(tmp_path):
    rng = np.random.default_rng(1)
    steps = rng.choice([20, 33, 40, 500, 1700], 120)
    times = [Fraction(int(t), 1000) for t in np.concatenate([[0], np.cumsum(steps)[:-1]])]
    path = write_clip(tmp_path / "vfr.mkv", 120, times=times, time_base=Fraction(1, 1000))
    video = read_here(path, fps=3)
    end = video.info.duration_seconds
    assert float(times[-1]) < end < float(times[-1]) + 2
    expected = expected_numbers([round(t, 3) for t in times], 3, times[-1])
    assert video.numbers[: len(expected)] == expected
    np.testing.assert_allclose(video.timestamps, [float(times[number]) for number in video.numbers], atol=1e-6)


def test_clock_starts_at_the_first_picture(tmp_path):
    times = [Fraction(7) + Fraction(i, 25) for i in range(75)]
    path = write_clip(tmp_path / "late.mkv", 75, times=times, time_base=Fraction(1, 1000))
    video = read_here(path)
    assert video.numbers == [0, 25, 50]
    assert video.sample_seconds == video.timestamps == [0, 1, 2]
    assert video.info.start_seconds == 7


def test_b_frames_with_a_negative_start(tmp_path):
    times = [Fraction(i - 50, 25) for i in range(100)]
    path = write_clip(
        tmp_path / "negative.mkv",
        100,
        times=times,
        time_base=Fraction(1, 1000),
        options={"x264-params": "bframes=3"},
        container_options={"avoid_negative_ts": "disabled"},
    )
    video = read_here(path)
    assert video.numbers == [0, 25, 50, 75]
    assert video.timestamps == [0, 1, 2, 3]


def test_edit_list_hides_the_beginning(tmp_path):
    """A trimmed mp4 that begins inside a group of pictures: hidden frames are decoded, never shown."""
    whole = write_clip(tmp_path / "whole.mp4", 100, options={"g": "50"})
    data = bytearray(whole.read_bytes())
    elst = data.index(b"elst")
    media_time = elst + 16  # version and flags, count, duration, then the media time
    before = int.from_bytes(data[media_time : media_time + 4])
    with av.open(str(whole)) as container:
        ticks = container.streams.video[0].time_base.denominator
    data[media_time : media_time + 4] = (before + ticks * 10 // 25).to_bytes(4)
    trimmed = tmp_path / "trimmed.mp4"
    trimmed.write_bytes(data)
    video = read_here(trimmed)
    assert video.numbers[:3] == [10, 35, 60]
    assert video.timestamps[:3] == [0, 1, 2]


def test_wrong_duration_in_the_header(tmp_path):
    path = write_clip(tmp_path / "clip.mkv", 100)
    data = bytearray(path.read_bytes())
    position = data.index(b"\x44\x89\x88") + 3  # Matroska Duration, an 8-byte float
    for milliseconds in (1_000.0, 9_000_000.0):
        data[position : position + 8] = np.float64(milliseconds).astype(">f8").tobytes()
        path.write_bytes(data)
        video = read_here(path)
        assert video.numbers == [0, 25, 50, 75]
        assert video.info.duration_seconds == pytest.approx(4.0, abs=0.05)
        assert video.gaps == ()


def test_one_frame_and_a_fifth_of_a_second(tmp_path):
    assert read_here(write_clip(tmp_path / "one.mp4", 1)).numbers == [0]
    assert read_here(write_clip(tmp_path / "one.mkv", 1)).numbers == [0]
    assert read_here(write_clip(tmp_path / "short.mp4", 5)).numbers == [0]


def test_gif_of_three_frames(tmp_path):
    pictures = [Image.fromarray(board(i)) for i in range(3)]
    path = tmp_path / "three.gif"
    pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=[500, 1000, 700])
    video = read_here(path, fps=2)
    assert video.numbers == [0, 1, 1, 2, 2]
    np.testing.assert_allclose(video.timestamps, [0, 0.5, 0.5, 1.5, 1.5])


def test_raw_stream_without_timestamps(tmp_path):
    path = write_clip(tmp_path / "raw.h264", 60, 25, container="h264", options={"x264-params": "bframes=2"})
    video = read_here(path)
    assert video.numbers == [0, 25, 50]
    assert video.timestamps == [0, 1, 2]
    assert video.info.timestamps_derived


def test_start_and_end_keep_the_grid(shared_clip):
    path = shared_clip("mp4", 1500, 10, options={"g": "50"})
    video = read_here(path, fps=2, start_seconds=70.1, end_seconds=72)
    assert video.sample_seconds == [70.5, 71, 71.5]
    assert video.numbers == [705, 710, 715]
    assert read_here(path, start_seconds=500).numbers == []


def test_low_rate_skips_whole_groups(shared_clip):
    path = shared_clip("mp4", 1500, 10, options={"g": "50"})
    assert read_here(path, fps=0.01).numbers == [0, 1000]
    assert read_here(path, fps=0.05).numbers == list(range(0, 1500, 200))


def test_batches_and_progress(tmp_path):
    path = write_clip(tmp_path / "clip.mp4", 100, 10)
    with read_frames(path, batch_frames=4) as reader:
        sizes = []
        for batch in reader:
            sizes.append(len(batch))
            assert batch.frames.dtype == np.uint8
            assert batch.frames.shape == (len(batch), 48, 64, 3)
            assert reader.position_seconds == batch.sample_seconds[-1]
        assert sizes == [4, 4, 2]
        assert reader.num_frames == 10


def test_growing_file_is_read_on(tmp_path):
    """A recording: its present part is read, and later the rest from where the reader stopped."""
    whole = write_clip(tmp_path / "whole.ts", 300, 10, options={"g": "20"}).read_bytes()
    path = tmp_path / "growing.ts"
    path.write_bytes(whole[: len(whole) // 188 // 2 * 188])
    first = read_here(path).numbers
    path.write_bytes(whole)
    second = read_here(path, start_seconds=len(first)).numbers
    assert 5 < len(first) < 30
    assert first[:-1] == list(range(0, 300, 10))[: len(first) - 1]
    assert second == list(range(0, 300, 10))[len(first) :]


def test_folder_of_numbered_frames(tmp_path):
    for i in range(12):
        Image.fromarray(board(i)).save(tmp_path / f"frame{i}.png")
    (tmp_path / "notes.txt").write_text("not a picture")
    video = read_here(tmp_path)
    assert video.numbers == list(range(12))
    assert video.sample_seconds == video.timestamps == list(range(12))
    assert video.info.timestamps_derived
    assert read_here(tmp_path, folder_fps=4, fps=2).numbers == [0, 2, 4, 6, 8, 10]
    assert read_here(tmp_path, fps=2, end_seconds=2, num_readers=2).numbers == [0, 0, 1, 1]


def test_file_address(tmp_path):
    path = write_clip(tmp_path / "a b.mp4", 30)
    assert read_here(path.as_uri()).numbers == [0, 25]
    assert open_here(path.as_uri()).info.path == str(path)


def test_name_that_looks_like_a_protocol(tmp_path):
    path = write_clip(tmp_path / "clip.mp4", 30)
    odd = path.rename(tmp_path / "concat:x|y.mp4")
    assert read_here(odd).numbers == [0, 25]


@pytest.mark.parametrize(
    "options",
    [
        {"fps": 0},
        {"fps": float("nan")},
        {"start_seconds": -1},
        {"start_seconds": 2, "end_seconds": 1},
        {"size_pixels": (0, 4)},
        {"num_processes": 0},
        {"batch_frames": 0},
        {"timeout_seconds": 0},
    ],
)
def test_arguments_are_checked(tmp_path: Path, options):
    with pytest.raises(ConfigError):
        read_frames(tmp_path / "missing.mp4", **options)
