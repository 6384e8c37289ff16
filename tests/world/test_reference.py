"""References give the same frames, records and folders as video files."""

import json

import numpy as np
import pytest

from hourllava.data.records.loading import LoadReport, iterate_questions
from hourllava.errors import ConfigError, DataError, VideoError
from hourllava.locks import lock_folder
from hourllava.video import read_frames
from hourllava.video.drawn import draw_all, open_registered
from hourllava.video.timeline import SampleGrid
from hourllava.world import generate_script, render_frames
from hourllava.world.generate import DIFFICULTIES
from hourllava.world.making.make import MakeSettings, make_world
from hourllava.world.reference import Reference, load_reference
from hourllava.world.script import GENERATOR

REFERENCE = Reference(
    seed=5, duration_seconds=40, split="test", density=DIFFICULTIES["hard"], needles=3, size_pixels=64
)


def write(folder, text):
    path = folder / "a.world.json"
    path.write_text(text)
    return path


def test_frames_are_those_of_the_script(tmp_path):
    path = write(tmp_path, REFERENCE.model_dump_json())
    script = generate_script(5, 40, split="test", density=DIFFICULTIES["hard"], needles=3)
    assert load_reference(path) == REFERENCE
    assert load_reference(path).script() == script
    video = open_registered(path, fps=0.5)
    assert np.array_equal(draw_all(video, SampleGrid.of(0.5)), render_frames(script, range(0, 40, 2), 64))
    assert np.array_equal(draw_all(video, SampleGrid.of(0.5, 1.0, 7.0)), render_frames(script, (2, 4, 6), 64))
    assert video.read(0, (24, 32)).shape == (24, 32, 3)
    with pytest.raises(ConfigError, match="no frame at 40"):
        video.read(20, None)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[]", "the file: "),
        ("{", "the file: "),
        (REFERENCE.model_dump_json().replace('"seed":5', '"seed":"x"'), "seed: "),
        (REFERENCE.model_dump_json().replace('"version":1', '"version":2'), "version: "),
    ],
)
def test_what_is_no_reference_gets_one_clear_line(tmp_path, text, words):
    with pytest.raises(VideoError, match=f"is no reference to a MarathonWorld video: {words}") as caught:
        load_reference(write(tmp_path, text))
    assert "\n" not in str(caught.value)
    with pytest.raises(VideoError, match="cannot be read"):
        load_reference(tmp_path / "missing.world.json")


@pytest.mark.parametrize("name", ["0123456789abcdef", "", "x" * 500, None])
def test_references_of_another_generator_are_refused(name, tmp_path):
    fields = json.loads(REFERENCE.model_dump_json()) | {"generator": name}
    if name is None:
        del fields["generator"]
    with pytest.raises(VideoError, match=r"by another generator .*; make it again with hourllava world make") as caught:
        load_reference(write(tmp_path, json.dumps(fields)))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500
    with (
        pytest.raises(VideoError, match="another generator"),
        read_frames(tmp_path / "a.world.json", fps=1.0) as frames,
    ):
        list(frames)


def test_a_data_set_of_another_generator_is_another_one(tmp_path):
    settings = MakeSettings(videos=1, min_seconds=4, max_seconds=4, per_task=1, container="reference")
    make_world(settings, tmp_path, processes=1)
    path = tmp_path / "marathonworld.json"
    path.write_text(path.read_text().replace(GENERATOR, "0123456789abcdef"))
    with pytest.raises(ConfigError, match="other settings"):
        make_world(settings, tmp_path, processes=1)


def test_two_runs_in_one_folder_and_an_empty_file(tmp_path, monkeypatch):
    monkeypatch.setattr("hourllava.locks.WAIT_SECONDS", 0)
    settings = MakeSettings(videos=2, min_seconds=4, max_seconds=4, per_task=1, container="reference")
    with lock_folder(tmp_path), pytest.raises(DataError, match="another process"):
        make_world(settings, tmp_path, processes=1)
    make_world(settings, tmp_path, processes=1)
    path = tmp_path / "videos/marathonworld/train-0-00001.world.json"
    whole = path.read_bytes()
    path.write_bytes(b"")  # as a power cut leaves it
    make_world(settings, tmp_path, processes=1)
    assert path.read_bytes() == whole


def test_a_data_set_of_references_is_that_of_videos_without_the_videos(tmp_path):
    settings = MakeSettings(videos=3, min_seconds=4, max_seconds=30, per_task=1, size_pixels=64)
    make_world(settings, tmp_path / "videos", processes=1)
    make_world(settings.model_copy(update={"container": "reference"}), tmp_path / "references", processes=1)
    rows = [
        list(iterate_questions(tmp_path / kind / "jsons" / "questions.parquet", LoadReport()))
        for kind in ("videos", "references")
    ]
    assert [row.model_copy(update={"video": row.video.replace(".mp4", ".world.json")}) for row in rows[0]] == rows[1]
    for k in range(3):
        script = (tmp_path / f"videos/videos/marathonworld/train-0-0000{k}.json").read_text()
        reference = tmp_path / f"references/videos/marathonworld/train-0-0000{k}.world.json"
        assert json.loads(script) == json.loads(load_reference(reference).script().model_dump_json())
    made = [path.name for path in (tmp_path / "references").rglob("*") if path.is_file()]
    assert not [name for name in made if name.endswith((".mp4", ".tmp")) or name == "train-0-00000.json"]
