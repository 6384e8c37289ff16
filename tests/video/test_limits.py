"""Videos of strangers: what is too much is refused by name, before it is decoded, or when it turns out."""

import pickle
import signal
import subprocess
import sys

import pytest

from forked_decoding import forked_decoding
from hourllava.errors import VideoError, VideoLimitError
from hourllava.video import VideoLimits, read_frames
from hourllava.video.types import VideoInfo
from video.clips import write_clip


@pytest.fixture(autouse=True, scope="module")
def forked_decoders():
    with forked_decoding():
        yield


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return write_clip(tmp_path_factory.mktemp("limits") / "a.mp4", num_frames=50, fps=10, audio=True)


def info(**fields):
    facts = {"path": "a.mp4", "container": "mov", "codec": "h264", "pixel_format": "yuv420p", "duration_seconds": 5.0}
    return VideoInfo(**{**facts, "width_pixels": 64, "height_pixels": 48, "average_fps": 10.0, **fields})


@pytest.mark.parametrize(
    ("limits", "fields", "limit"),
    [
        ({}, {"width_pixels": 10**6}, None),
        ({"max_pixels": 64 * 48}, {}, None),
        ({"max_pixels": 64 * 48 - 1}, {}, "pixels"),
        ({"max_pixels": 10**6}, {"width_pixels": 10**6 + 1, "height_pixels": 1}, "pixels"),
        ({"max_streams": 3}, {"num_streams": 3}, None),
        ({"max_streams": 3}, {"num_streams": 4}, "streams"),
    ],
)
def test_what_a_header_says(limits, fields, limit):
    if limit is None:
        VideoLimits(**limits).check(info(**fields), "a.mp4")
        return
    with pytest.raises(VideoLimitError, match=r"a\.mp4 has .* allowed") as raised:
        VideoLimits(**limits).check(info(**fields), "a.mp4")
    assert pickle.loads(pickle.dumps(raised.value)).limit == limit


@pytest.mark.parametrize(
    ("limits", "num_frames", "fps", "limit"),
    [
        ({}, 10**9, 1.0, None),
        ({"max_frames": 10}, 10, 1.0, None),
        ({"max_frames": 10}, 11, 1.0, "frames"),
        ({"max_seconds": 10.0}, 11, 1.0, None),
        ({"max_seconds": 10.0}, 12, 1.0, "seconds"),
        ({"max_seconds": 10.0}, 12, 2.0, None),
        ({"max_seconds": 10.0, "max_frames": 100}, 1010, 100.0, "seconds"),
        ({"max_seconds": 10.0, "max_frames": 100}, 101, 100.0, "frames"),
        ({"max_seconds": 0.5}, 2, 0.1, None),
    ],
)
def test_how_many_frames(limits, num_frames, fps, limit):
    if limit is None:
        VideoLimits(**limits).check_frames(num_frames, fps, "a.mp4")
        return
    with pytest.raises(VideoLimitError, match=r"a\.mp4 .* allowed") as raised:
        VideoLimits(**limits).check_frames(num_frames, fps, "a.mp4")
    assert raised.value.limit == limit


def test_a_reader_that_is_refused_leaves_no_process(clip):
    for limits, limit in (({"max_pixels": 100}, "pixels"), ({"max_streams": 1}, "streams")):
        with pytest.raises(VideoLimitError) as raised:
            read_frames(clip, limits=VideoLimits(**limits))
        assert raised.value.limit == limit
    with read_frames(clip, limits=VideoLimits(64 * 48, 50, 64 * 48, 2, 2**32, 100)) as reader:
        assert sum(map(len, reader)) == 5
        assert reader.info.num_streams == 2


def test_a_process_without_room_says_so(clip):
    """The limit is below what the process has already: the next large picture cannot be had."""
    with pytest.raises(VideoError, match="memory"):
        list(read_frames(clip, size_pixels=(16384, 16384), limits=VideoLimits(memory_bytes=3 * 2**28)))


LIMITED = """
from hourllava.video.limits import limit_this_process
limit_this_process({"memory_bytes": None, "cpu_seconds": 1})
while True:
    pass
"""


def test_a_process_that_computes_for_too_long_is_ended():
    """By the signal that a reader explains (`hourllava.video.child`)."""
    assert subprocess.run([sys.executable, "-c", LIMITED], check=False).returncode == -signal.SIGXCPU
