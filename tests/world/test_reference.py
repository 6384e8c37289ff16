"""References: the same frames, records and folders as videos, without any video."""

import json

import numpy as np
import pytest

from hourllava.data.records import LoadReport, iterate_questions
from hourllava.errors import ConfigError, VideoError
from hourllava.world import generate_script, render_frames
from hourllava.world.generate import DIFFICULTIES
from hourllava.world.make import MakeSettings, make_world
from hourllava.world.reference import Reference, load_reference, read_reference, render_reference

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
    assert read_reference(path) == script
    times = [0.0, 3.5, 39.0]
    assert np.array_equal(render_reference(path, times), render_frames(script, times, 64))
    with pytest.raises(ConfigError, match="no frame at 40"):
        render_reference(path, [40])


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


def test_a_data_set_of_references_is_that_of_videos_without_the_videos(tmp_path):
    settings = MakeSettings(videos=3, min_seconds=4, max_seconds=30, per_task=1, size_pixels=64)
    make_world(settings, tmp_path / "videos", processes=1)
    make_world(settings.model_copy(update={"container": "reference"}), tmp_path / "references", processes=2)
    rows = [
        list(iterate_questions(tmp_path / kind / "jsons" / "questions.parquet", LoadReport()))
        for kind in ("videos", "references")
    ]
    assert [row.model_copy(update={"video": row.video.replace(".mp4", ".world.json")}) for row in rows[0]] == rows[1]
    for k in range(3):
        script = (tmp_path / f"videos/videos/marathonworld/train-0-0000{k}.json").read_text()
        reference = tmp_path / f"references/videos/marathonworld/train-0-0000{k}.world.json"
        assert json.loads(script) == json.loads(read_reference(reference).model_dump_json())
    made = [path.name for path in (tmp_path / "references").rglob("*") if path.is_file()]
    assert not [name for name in made if name.endswith((".mp4", ".tmp")) or name == "train-0-00000.json"]
