"""Clocks: joined recordings whose clock restarts or jumps, holes, and AVI files that leave pictures out."""

from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import pytest

from hourllava.errors import VideoError
from hourllava.video import read_frames, sampled
from hourllava.video.demuxer import Demuxer
from hourllava.video.picture import Painter
from hourllava.video.sampled import SampledVideo
from hourllava.video.source import resolve_source
from hourllava.video.timeline import SampleGrid
from hourllava.video.types import Gap, VideoInfo
from video.clips import expected_numbers, number_of, write_clip

FPS = 10


@dataclass
class Reading:
    """What was read, in this process: a child takes half a second to start."""

    info: VideoInfo
    gaps: list[Gap]


def read(source, fps=1, start_seconds=0.0, end_seconds=None):
    """Numbers, timestamps, and what else was told."""
    video = Demuxer(resolve_source(source), lambda: None)
    samples = SampledVideo(video, SampleGrid.of(fps, start_seconds, end_seconds))
    painter = Painter(samples.info.width_pixels, samples.info.height_pixels)
    items = [item for index in range(samples.num_segments) for item in samples.segment(index)]
    shown = [item for item in items if not isinstance(item, Gap)]
    numbers = [number_of(painter.paint(item.frame)) for item in shown]
    gaps = [item for item in items if isinstance(item, Gap)]
    return numbers, np.array([item.seconds for item in shown]), Reading(samples.info, gaps)


def part(path, num_frames, start_seconds, codec, container=None, options=None):
    """A recording of frames 0, 1, ... whose clock begins at a time."""
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
        [(20, 90), (20, 50), (20, 10)],  # ever earlier
    ],
)
def test_joined_recordings_follow_each_other(tmp_path, container, codec, parts):
    joined = b"".join(part(tmp_path / "part", count, start, codec, container) for count, start in parts)
    path = tmp_path / "joined.video"
    path.write_bytes(joined)
    fps = 25 if container == "vob" else FPS
    numbers, timestamps, reader = read(path, fps=fps)
    total = sum(count for count, _ in parts)
    assert numbers == [number for count, _ in parts for number in range(count)]
    np.testing.assert_allclose(timestamps, np.arange(total) / fps, atol=1e-3)
    assert reader.info.duration_seconds == pytest.approx(total / fps, abs=1e-3)
    assert reader.info.player_offset_seconds == 0
    assert sum("clock jumps" in gap.reason for gap in reader.gaps) == len(parts) - 1
    begin = total // 3
    middle = read(path, fps=fps, start_seconds=begin / fps, end_seconds=(begin + 8) / fps)
    assert middle[0] == numbers[begin : begin + 8]


@pytest.mark.parametrize("num_processes", [1, 2])
def test_joined_recordings_in_child_processes(tmp_path, num_processes):
    """Longer than a segment: no process may look for its part by time."""
    first = part(tmp_path / "a.ts", 800, 0, "libx264")
    (tmp_path / "joined.ts").write_bytes(first + first)
    with read_frames(tmp_path / "joined.ts", num_processes=num_processes) as reader:
        numbers = [number_of(frame) for batch in reader for frame in batch.frames]
    assert numbers == [*range(0, 800, 10)] * 2
    assert [gap.reason.split("; ")[-1] for gap in reader.gaps] == [
        "the file's clock jumps by -80.0 s, time is counted on"
    ]


def test_parts_with_and_without_reordering(tmp_path):
    """The first one decodes pictures two earlier than it shows them, the second one does not."""
    first = part(tmp_path / "a.ts", 30, 0, "libx264", options={"bf": "3"})
    second = part(tmp_path / "b.ts", 30, 0, "libx264", options={"bf": "0"})
    (tmp_path / "joined.ts").write_bytes(first + second + first)
    assert read(tmp_path / "joined.ts", fps=FPS)[0] == [*range(30)] * 3


def test_slow_pictures_are_no_jump(tmp_path):
    times = [Fraction(12 * i) for i in range(12)]
    path = write_clip(tmp_path / "slow.ts", 12, Fraction(1, 12), times=times, time_base=Fraction(1, 12))
    numbers, _, reader = read(path, fps=0.25)
    assert numbers == [i // 3 for i in range(len(numbers))]
    assert len(numbers) >= 34
    assert reader.gaps == []


def shift_clusters(data, change):
    """A Matroska file with the times of its clusters changed: milliseconds to milliseconds."""
    data = bytearray(data)
    position = -1
    while (position := data.find(b"\x1f\x43\xb6\x75", position + 1)) >= 0:
        at = position + 4 + 9 - data[position + 4].bit_length()  # behind the cluster's length
        assert data[at] == 0xE7
        num_bytes = data[at + 1] & 0x7F
        value = int.from_bytes(data[at + 2 : at + 2 + num_bytes])
        data[at + 2 : at + 2 + num_bytes] = change(value).to_bytes(num_bytes)
    return bytes(data)


@pytest.mark.parametrize(
    ("change", "num_jumps"),
    [
        (lambda ms: ms if ms < 5000 else ms - 3000, 1),  # set back for good
        (lambda ms: ms if not 4000 <= ms < 7000 else ms - 3000, 2),  # and put right again
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
    numbers, _, reader = read(path, fps=FPS)
    held = len(numbers) - 100  # the clock that is put right again goes forward by 3 s: a pause like any other
    assert held == (30 if num_jumps == 2 else 0)
    assert list(dict.fromkeys(numbers)) == list(range(100))
    assert any("clock jumps by -" in gap.reason for gap in reader.gaps)


def test_matroska_pause_is_time_and_a_day_is_a_jump(tmp_path):
    for pause, expected in ((100, 102), (100_000, 2)):
        times = [Fraction(i, FPS) + (pause if i >= 10 else 0) for i in range(20)]
        path = write_clip(tmp_path / "clip.mkv", 20, FPS, times=times, time_base=Fraction(1, 1000), options={"bf": "0"})
        numbers, _, reader = read(path)
        assert len(numbers) == expected
        assert numbers[-1] == 10
        assert bool(reader.gaps) == (pause > 3600)


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
def test_avi_with_pictures_left_out(tmp_path, codec, pixel_format, options, slots):
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
    numbers, timestamps, reader = read(path, fps=FPS)
    assert numbers == expected_numbers(times, FPS, times[-1] + Fraction(1, FPS))
    np.testing.assert_allclose(timestamps, [float(times[number]) for number in numbers], atol=1e-6)
    assert reader.info.duration_seconds == pytest.approx(float(times[-1]) + 1 / FPS)
    assert reader.gaps == []


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_a_still_lasts_as_long_as_its_sound(tmp_path, suffix):
    path = write_clip(tmp_path / f"song.{suffix}", 1, 25, audio=True)
    numbers, _, reader = read(path, fps=10)
    assert numbers == [0] * len(numbers)
    assert reader.info.duration_seconds == pytest.approx(1.0, abs=0.1)
