"""Clocks: joined recordings whose clock restarts or jumps, pauses, and AVI files without some pictures."""

from fractions import Fraction

import numpy as np
import pytest

from hourllava.errors import VideoError
from hourllava.video import read_frames, sampled
from hourllava.video.demuxer import Demuxer
from hourllava.video.sampled import SampledVideo
from hourllava.video.source import resolve_source
from hourllava.video.timeline import SampleGrid
from video.clips import expected_numbers, number_of, write_clip
from video.reading import read_here

FPS = 10


def part(path, num_frames, start_seconds, codec, container=None, options=None):
    """The bytes of a recording of frames 0, 1, ... whose clock begins at `start_seconds`."""
    fps = 25 if container == "vob" else FPS
    times = [start_seconds + Fraction(i, fps) for i in range(num_frames)]
    options = options or {"bf": "2"}
    write_clip(path, num_frames, fps, codec=codec, container=container, options=options, times=times)
    return path.read_bytes()


@pytest.mark.parametrize(
    ("container", "codec"), [("mpegts", "libx264"), ("mpegts", "mpeg2video"), ("vob", "mpeg2video")]
)
@pytest.mark.parametrize(
    "parts",
    [
        [(30, 0), (20, 0)],  # restarts, the longer one first
        [(20, 0), (30, 0)],
        [(20, 0), (20, 8000)],  # far ahead
        [(20, 0), (20, 5000), (20, 0)],  # far ahead and back
        [(20, 90), (20, 50), (20, 10)],  # each part earlier
    ],
)
def test_joined_recordings_follow_each_other(tmp_path, container, codec, parts):
    joined = b"".join(part(tmp_path / "part", count, start, codec, container) for count, start in parts)
    path = tmp_path / "joined.video"
    path.write_bytes(joined)
    fps = 25 if container == "vob" else FPS
    video = read_here(path, fps)
    total = sum(count for count, _ in parts)
    numbers = video.numbers
    assert numbers == [number for count, _ in parts for number in range(count)]
    np.testing.assert_allclose(video.timestamps, np.arange(total) / fps, atol=1e-3)
    assert video.info.duration_seconds == pytest.approx(total / fps, abs=1e-3)
    assert video.info.player_offset_seconds == 0
    assert sum(gap.reason.count("clock jumps") for gap in video.gaps) == len(parts) - 1
    begin = total // 3
    assert read_here(path, fps, begin / fps, (begin + 8) / fps).numbers == numbers[begin : begin + 8]


def test_joined_recordings_in_child_processes(tmp_path):
    """Longer than a segment: no process may seek its segment by time."""
    first = part(tmp_path / "a.ts", 800, 0, "libx264")
    (tmp_path / "joined.ts").write_bytes(first + first)
    with read_frames(tmp_path / "joined.ts", num_processes=2) as reader:
        numbers = [number_of(frame) for batch in reader for frame in batch.frames]
    assert numbers == [*range(0, 800, 10)] * 2
    assert [gap.reason.split("; ")[-1] for gap in reader.gaps] == [
        "the file's clock jumps by -80.0 s, time is counted on"
    ]


def test_parts_with_and_without_reordering(tmp_path):
    """The first part decodes pictures two frames before it shows them, the second does not."""
    first = part(tmp_path / "a.ts", 30, 0, "libx264", options={"bf": "3"})
    second = part(tmp_path / "b.ts", 30, 0, "libx264", options={"bf": "0"})
    (tmp_path / "joined.ts").write_bytes(first + second + first)
    assert read_here(tmp_path / "joined.ts", FPS).numbers == [*range(30)] * 3


def test_slow_pictures_are_no_jump(tmp_path):
    times = [Fraction(12 * i) for i in range(12)]
    path = write_clip(tmp_path / "slow.ts", 12, Fraction(1, 12), times=times, time_base=Fraction(1, 12))
    video = read_here(path, fps=0.25)
    assert video.numbers == [i // 3 for i in range(len(video.frames))]
    assert len(video.frames) >= 34
    assert video.gaps == ()


def shift_clusters(data, change):
    """A Matroska file with changed times of its clusters; `change` maps milliseconds to milliseconds."""
    data = bytearray(data)
    position = -1
    while (position := data.find(b"\x1f\x43\xb6\x75", position + 1)) >= 0:
        at = position + 4 + 9 - data[position + 4].bit_length()  # after the cluster's length
        assert data[at] == 0xE7
        num_bytes = data[at + 1] & 0x7F
        value = int.from_bytes(data[at + 2 : at + 2 + num_bytes])
        data[at + 2 : at + 2 + num_bytes] = change(value).to_bytes(num_bytes)
    return bytes(data)


@pytest.mark.parametrize(
    ("change", "num_jumps"),
    [
        (lambda ms: ms if ms < 5000 else ms - 3000, 1),  # set back
        (lambda ms: ms if not 4000 <= ms < 7000 else ms - 3000, 2),  # set back and corrected
        (lambda ms: ms % 5000, 1),  # restarted
    ],
)
def test_matroska_clock_set_back(tmp_path, change, num_jumps):
    options = {"g": "10", "x264-params": "scenecut=0:open-gop=0"}
    clusters = {"cluster_time_limit": "900", "write_crc32": "0"}
    path = write_clip(
        tmp_path / "clip.mkv",
        100,
        FPS,
        options=options,
        container_options=clusters,
    )
    path.write_bytes(shift_clusters(path.read_bytes(), change))
    video = read_here(path, FPS)
    held = len(video.frames) - 100  # a clock that is corrected goes forward by 3 s: that is a pause
    assert held == (30 if num_jumps == 2 else 0)
    assert list(dict.fromkeys(video.numbers)) == list(range(100))
    assert any("clock jumps by -" in gap.reason for gap in video.gaps)


def test_matroska_pause_is_time_and_a_day_is_a_jump(tmp_path):
    for pause, expected in ((100, 102), (100_000, 2)):
        times = [Fraction(i, FPS) + (pause if i >= 10 else 0) for i in range(20)]
        path = write_clip(tmp_path / "clip.mkv", 20, FPS, times=times, time_base=Fraction(1, 1000), options={"bf": "0"})
        video = read_here(path)
        assert len(video.frames) == expected
        assert video.numbers[-1] == 10
        assert bool(video.gaps) == (pause > 3600)


def test_number_of_samples_is_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(sampled, "MAX_SAMPLES", 50)
    path = write_clip(tmp_path / "clip.mp4", 60, FPS)
    video = Demuxer(resolve_source(path), lambda: None)
    with pytest.raises(VideoError, match="more than 50 samples at 10 fps"):
        SampledVideo(video, SampleGrid.of(FPS))
    assert SampledVideo(video, SampleGrid.of(FPS, 0, 5)).num_segments == 1
    raw = write_clip(tmp_path / "raw.h264", 60, 25, container="h264")
    video = SampledVideo(Demuxer(resolve_source(raw), lambda: None), SampleGrid.of(25))
    with pytest.raises(VideoError, match="more than 50 samples"):
        list(video.segment(0))


@pytest.mark.parametrize(
    ("codec", "pixel_format", "options"),
    [
        ("libx264", "yuv420p", {}),
        ("libx264", "yuv420p", {"bf": "0"}),
        ("mpeg4", "yuv420p", {}),
        ("mpeg4", "yuv420p", {"bf": "2"}),
        ("mjpeg", "yuvj420p", {}),
    ],
)
@pytest.mark.parametrize(
    "slots",
    [
        [*range(20), *range(60, 100)],  # a hole of 4 s
        [*range(0, 100, 10)],  # one picture a second
        [*range(30), *range(40, 50), *range(80, 120)],
    ],
)
def test_avi_without_some_pictures(tmp_path, codec, pixel_format, options, slots):
    times = [Fraction(slot, FPS) for slot in slots]
    path = write_clip(
        tmp_path / "clip.avi",
        len(slots),
        FPS,
        codec=codec,
        pixel_format=pixel_format,
        options=options,
        times=times,
        time_base=Fraction(1, FPS),
    )
    video = read_here(path, FPS)
    numbers = video.numbers
    assert numbers == expected_numbers(times, FPS, times[-1] + Fraction(1, FPS))
    np.testing.assert_allclose(video.timestamps, [float(times[number]) for number in numbers], atol=1e-6)
    assert video.info.duration_seconds == pytest.approx(float(times[-1]) + 1 / FPS)
    assert video.gaps == ()


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_a_still_lasts_as_long_as_its_sound(tmp_path, suffix):
    path = write_clip(tmp_path / f"song.{suffix}", 1, 25, audio=True)
    video = read_here(path, fps=10)
    assert set(video.numbers) == {0}
    assert len(video.frames) in (10, 11)  # of a second; sound may be some ticks longer
    assert video.info.duration_seconds == pytest.approx(1.0, abs=0.1)
