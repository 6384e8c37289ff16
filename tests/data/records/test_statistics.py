"""Statistics: the counts are those of the files, the pictures exist, and what is not known is said."""

import json
import subprocess
import sys

import pytest
from PIL import Image

from data.question_files import write_question_table
from hourllava.data.records.models import QuestionRow
from hourllava.data.records.statistics import Statistics, collect_statistics
from hourllava.data.records.statistics_report import (
    comparison_rows,
    markdown_report,
    write_statistics,
)
from hourllava.errors import DataError


def row(k: int, **changes) -> QuestionRow:
    values = {
        "question_id": f"q{k}", "video": f"ego4d/{k % 4}.mp4", "data_source": "ego4d", "format": "open",
        "question": "Q?", "answer": "a", "task": "Scene Transition", "topic": "scene", "form": "long",
        "duration_seconds": 60.0 * (3 + 19 * (k % 4)),
    }  # fmt: skip
    return QuestionRow.model_validate(values | changes)


@pytest.fixture
def data_set(tmp_path):
    (tmp_path / "jsons").mkdir()
    rows = [row(k) for k in range(10)]
    rows += [row(k, format="choice", options=("x", "y"), answer="y", answer_index=1) for k in range(10, 15)]
    write_question_table(rows, tmp_path / "jsons/questions.parquet")
    captions = [{"video": f"{k}", "events": [{}] * (k + 3)} for k in range(4)]
    (tmp_path / "jsons/captions.jsonl").write_text("\n".join(json.dumps(line) for line in captions))
    return tmp_path


def test_counts(data_set):
    statistics, report = collect_statistics(data_set, "Ours")
    assert report.lines() == statistics.notes == []
    assert (statistics.num_videos, statistics.num_open, statistics.num_choice) == (4, 10, 5)
    assert statistics.videos_per_source == {"ego4d": 4}
    assert statistics.questions_per_topic == {"scene": 15}
    assert statistics.durations_minutes == [3, 22, 41, 60]
    assert statistics.videos_per_bin() == [1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 1]
    assert statistics.videos_per_event_count == {3: 1, 4: 1, 5: 1, 6: 1}


def test_every_picture_and_table_is_written(data_set, tmp_path):
    out = tmp_path / "stats"
    lines = list(write_statistics(data_set, out, "Ours"))
    assert lines[0] == "4 videos, 10 open-ended and 5 multiple-choice questions"
    assert {path.name for path in out.iterdir()} == {
        *(f"{stem}.{ending}" for stem in ("statistics", "taxonomy", "comparison") for ending in ("png", "svg")),
        "statistics.md", "statistics.json",
    }  # fmt: skip
    for stem in ("statistics", "taxonomy", "comparison"):
        with Image.open(out / f"{stem}.png") as image:
            colours = image.convert("RGB").getcolors(1 << 24)
            assert colours is not None
            assert len(colours) > 50
    assert Statistics.model_validate_json((out / "statistics.json").read_text()).num_videos == 4
    svg = (out / "taxonomy.svg").read_text()
    assert all(task in svg for task in ("Scene Transition", "Overall Summarization", "short", "long"))


def test_pictures_are_reproducible(data_set, tmp_path):
    for name in ("a", "b"):
        list(write_statistics(data_set, tmp_path / name, "Ours"))
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()


def test_the_comparison_has_the_four_published_sets_and_this_one(data_set):
    statistics, _ = collect_statistics(data_set, "Ours")
    rows = comparison_rows(statistics)
    assert [r[0] for r in rows] == ["LLaVA-Hound", "ShareGPT4Video", "LLaVA-Video-178K", "VideoMarathon", "Ours"]
    assert rows[-1] == ("Ours", "not given", "not given", "2.1 h", "31.5 min", "3-60 min", "10", "5")
    assert "| scene | Scene Transition | long | 15 |" in markdown_report(statistics)


def test_published_records_without_lengths_and_topics_say_so(tmp_path):
    turns = [{"from": "human", "value": "<image>\nQ?"}, {"from": "gpt", "value": "a"}]
    record = {"id": "1", "data_source": "panda", "video": "panda/1.mp4", "conversations": turns}
    path = tmp_path / "videomarathon.json"
    path.write_text(json.dumps([record]))
    lines = list(write_statistics(path, tmp_path / "stats", "Published"))
    assert "length unknown for 1 of 1 videos" in lines
    assert "event counts unknown: no captions.jsonl beside the questions" in lines
    assert "topic unknown for 1 of 1 questions" in lines


def test_very_long_videos_are_drawn_too(tmp_path):
    rows = [row(k, duration_seconds=86400.0 / (k + 1)) for k in range(4)]
    write_question_table(rows, tmp_path / "q.parquet")
    statistics, _ = collect_statistics(tmp_path / "q.parquet", "Long")
    assert sum(statistics.videos_per_bin()) == 4
    assert list(write_statistics(tmp_path / "q.parquet", tmp_path / "stats", "Long"))


def test_folders_without_questions_get_one_clear_line(tmp_path):
    with pytest.raises(DataError, match=r"holds no question file; expected jsons/"):
        collect_statistics(tmp_path, "x")
    (tmp_path / "videomarathon.json").write_text("[]")
    with pytest.raises(DataError, match="it is empty"):
        collect_statistics(tmp_path, "x")


def test_the_command(data_set, tmp_path):
    command = [sys.executable, "-c", "from hourllava.cli.main import run; run()", "data", "stats"]
    done = subprocess.run(
        [*command, str(data_set), "--out", str(tmp_path / "s")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "4 videos" in done.stdout
    done = subprocess.run([*command, str(tmp_path / "none")], capture_output=True, text=True, check=False)
    assert done.returncode == 6
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1


def test_a_strangers_data_is_called_by_its_file_and_not_marathonworld(tmp_path):
    for name, source, title, captioner in (
        ("mine.parquet", "ego4d", "mine", "not given"),
        ("world.parquet", "marathonworld", "MarathonWorld", "exact script"),
    ):
        write_question_table([row(k, data_source=source) for k in range(2)], tmp_path / name)
        statistics, _ = collect_statistics(tmp_path / name)
        assert comparison_rows(statistics)[-1][:2] == (title, captioner)
    named = comparison_rows(collect_statistics(tmp_path / "mine.parquet", "MarathonWorld")[0])[-1]
    assert named[:2] == ("MarathonWorld", "not given")
