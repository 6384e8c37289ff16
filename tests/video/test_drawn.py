"""Videos whose pictures can be read in any order: one way to open them all, here and in decoding processes."""

import json

import numpy as np
import pytest
from PIL import Image

from hourllava import openers
from hourllava.errors import VideoError
from hourllava.openers import register_opener
from hourllava.video import probe, read_frames
from hourllava.video.drawn import draw_all, open_drawn, open_registered
from hourllava.video.source import resolve_source
from hourllava.video.timeline import SampleGrid
from hourllava.world.generate import DIFFICULTIES
from hourllava.world.reference import Reference
from video.clips import board, number_of, write_clip
from video.reading import read_here

RAMP = """
from fractions import Fraction
import json
from pathlib import Path
import numpy as np
from hourllava.errors import VideoError
from hourllava.video.types import VideoInfo

class Ramp:
    def __init__(self, source, fps):
        self.length = json.loads(Path(source.location).read_text())
        if not isinstance(self.length, int):
            raise VideoError(f"{source.location} is no ramp: write its length")
        self.info = VideoInfo(
            path=source.location, container="ramp", codec="none", pixel_format="rgb24",
            width_pixels=6, height_pixels=4, duration_seconds=float(self.length), average_fps=1.0,
        )

    def samples(self, grid):
        return grid.samples_within(Fraction(self.length))

    def frame_index(self, grid, sample):
        return int(sample / grid.fps)

    def seconds(self, index):
        return float(index)

    def read(self, index, size_pixels):
        return np.full((*(size_pixels or (4, 6)), 3), index, np.uint8)
"""


@pytest.fixture
def ramp(tmp_path, monkeypatch):
    """A file of 50 s with an opener that only this process has registered; the picture of second k is grey k."""
    (tmp_path / "ramp_of_a_test.py").write_text(RAMP)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(openers, "_OPENERS", dict(openers._OPENERS))
    register_opener(".ramp", "ramp_of_a_test:Ramp")
    (tmp_path / "a.ramp").write_text("50")
    return tmp_path / "a.ramp"


def test_decoding_processes_know_an_opener_of_their_parent(ramp):
    with read_frames(ramp, fps=2, end_seconds=40, size_pixels=(8, 10), num_processes=2) as reader:
        batches = list(reader)
    frames = np.concatenate([batch.frames for batch in batches])
    assert frames.shape == (80, 8, 10, 3)
    assert frames[:, 0, 0, 0].tolist() == [i // 2 for i in range(80)]
    assert np.concatenate([batch.timestamps_seconds for batch in batches]).tolist() == [i // 2 for i in range(80)]
    assert reader.info.container == "ramp"
    np.testing.assert_array_equal(read_here(ramp, 2, 0, 40, size_pixels=(8, 10), num_readers=2).frames, frames)


def test_errors_of_an_opener_come_from_the_process(ramp):
    ramp.write_text(json.dumps("long"))
    for read in (lambda: probe(ramp), lambda: open_registered(ramp, 1.0)):
        with pytest.raises(VideoError, match=r"a\.ramp is no ramp: write its length"):
            read()


def test_registered_files_are_drawn_without_a_process(ramp, tmp_path):
    video = open_registered(ramp, 1.0)
    assert draw_all(video, SampleGrid.of(1, 10, 20))[:, 0, 0, 0].tolist() == list(range(10, 20))
    assert draw_all(video, SampleGrid.of(0.1)).shape == (5, 4, 6, 3)
    assert open_registered(tmp_path / "a.mp4", 1.0) is None


def test_a_folder_is_drawn(tmp_path):
    for i in range(6):
        Image.fromarray(board(i)).save(tmp_path / f"{i}.png")
    video = open_drawn(resolve_source(tmp_path), 1.0, folder_fps=2)
    assert video.info.duration_seconds == 3
    assert [number_of(frame) for frame in draw_all(video, SampleGrid.of(1))] == [0, 2, 4]
    assert open_registered(tmp_path, 1.0) is None


def test_an_animation_is_drawn_and_a_video_is_not(tmp_path):
    pictures = [Image.fromarray(board(i)) for i in range(3)]
    pictures[0].save(tmp_path / "a.webp", save_all=True, append_images=pictures[1:], duration=1000, lossless=True)
    video = open_drawn(resolve_source(tmp_path / "a.webp"), 1.0)
    assert [number_of(frame) for frame in draw_all(video, SampleGrid.of(1))] == [0, 1, 2]
    assert open_drawn(resolve_source(write_clip(tmp_path / "a.mp4", 5)), 1.0) is None


def test_a_reference_is_drawn_as_it_is_read(tmp_path):
    path = tmp_path / "a.world.json"
    reference = Reference(
        seed=5, duration_seconds=6, split="test", density=DIFFICULTIES["hard"], needles=0, size_pixels=64
    )
    path.write_text(reference.model_dump_json())
    drawn = draw_all(open_registered(path, 2.0), SampleGrid.of(2))
    assert drawn.shape == (12, 64, 64, 3)
    np.testing.assert_array_equal(read_here(path, fps=2).frames, drawn)
