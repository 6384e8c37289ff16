"""Statistics: the counts are those of the files, the pictures exist, and what is not known is said."""

import json

import pytest
from PIL import Image, ImageColor
from typer.testing import CliRunner

from data.question_files import write_question_table
from hourllava.cli.main import app
from hourllava.data.records.models import QuestionRow
from hourllava.data.records.statistics import PUBLISHED, Statistics, collect_statistics
from hourllava.data.records.statistics_figures import draw_panels
from hourllava.data.records.statistics_report import (
    comparison_rows,
    markdown_report,
    write_statistics,
)
from hourllava.errors import DataError
from hourllava.plotting import OTHER, OWN, TOPIC_COLOURS


def row(k: int, **changes) -> QuestionRow:
    values = {
        "question_id": f"q{k}", "video": f"ego4d/{k % 4}.mp4", "data_source": "ego4d", "format": "open",
        "question": "Q?", "answer": "a", "task": "Scene Transition", "topic": "scene", "form": "long",
        "duration_seconds": 60.0 * (3 + 19 * (k % 4)),
    }  # fmt: skip
    return QuestionRow.model_validate(values | changes)


@pytest.fixture(scope="module")
def data_set(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    (folder / "jsons").mkdir()
    rows = [row(k) for k in range(10)]
    rows += [row(k, format="choice", options=("x", "y"), answer="y", answer_index=1) for k in range(10, 15)]
    write_question_table(rows, folder / "jsons/questions.parquet")
    captions = [{"video": f"{k}", "events": [{}] * (k + 3)} for k in range(4)]
    (folder / "jsons/captions.jsonl").write_text("\n".join(json.dumps(line) for line in captions))
    return folder


@pytest.fixture(scope="module")
def written(data_set, tmp_path_factory):
    """What the command has written, and what it has printed."""
    out = tmp_path_factory.mktemp("stats")
    result = CliRunner().invoke(app, ["data", "stats", str(data_set), "--out", str(out), "--name", "Ours"])
    assert result.exit_code == 0, result.output
    return out, result.stdout.splitlines()


def test_counts(data_set):
    statistics, report = collect_statistics(data_set, "Ours")
    assert report.lines() == statistics.notes == []
    assert (statistics.num_videos, statistics.num_open, statistics.num_choice) == (4, 10, 5)
    assert statistics.videos_per_source == {"ego4d": 4}
    assert statistics.questions_per_topic == {"scene": 15}
    assert statistics.durations_minutes == [3, 22, 41, 60]
    assert statistics.videos_per_bin() == [1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 1]
    assert statistics.videos_per_event_count == {3: 1, 4: 1, 5: 1, 6: 1}


def test_every_picture_and_table_is_written(written):
    out, lines = written
    assert lines[0] == "4 videos, 10 open-ended and 5 multiple-choice questions"
    assert {path.name for path in out.iterdir()} == {
        *(f"{stem}.{ending}" for stem in ("statistics", "taxonomy", "comparison") for ending in ("png", "svg")),
        "statistics.md", "statistics.json",
    }  # fmt: skip
    # The bars of the only source and topic, the head of that topic's card, the band under this data set's row.
    for stem, colour, least_pixels in (
        ("statistics", OWN, 2_000), ("statistics", TOPIC_COLOURS["scene"], 500), ("statistics", OTHER, 1_000),
        ("taxonomy", TOPIC_COLOURS["scene"], 3_000), ("comparison", "#e4ecf5", 5_000),
    ):  # fmt: skip
        with Image.open(out / f"{stem}.png") as image:
            counts = {pixel: count for count, pixel in image.convert("RGB").getcolors(1 << 24)}
        assert counts.get(ImageColor.getrgb(colour), 0) > least_pixels, (stem, colour)
    assert Statistics.model_validate_json((out / "statistics.json").read_text()).num_videos == 4
    svg = (out / "taxonomy.svg").read_text()
    assert all(task in svg for task in ("Scene Transition", "Overall Summarization", "short", "long"))


def test_the_bars_are_the_counts(data_set):
    source, topic, length, events = draw_panels(collect_statistics(data_set, "Ours")[0]).axes
    assert source.patches[0].get_width() == 100
    widths = {bar.get_width() for bar in topic.patches}
    assert {100, *PUBLISHED["topic_percent"].values()} <= widths
    heights = [bar.get_height() for bar in length.patches[:12]]
    assert heights == [25, 0, 0, 0, 25, 0, 0, 0, 25, 0, 0, 25]
    assert [bar.get_height() for bar in events.patches] == [0, 0, 0, 1, 1, 1, 1]


@pytest.mark.slow
def test_pictures_are_reproducible(data_set, written, tmp_path):
    list(write_statistics(data_set, tmp_path / "again", "Ours"))
    for path in (tmp_path / "again").iterdir():
        assert path.read_bytes() == (written[0] / path.name).read_bytes()


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
    statistics, _ = collect_statistics(path, "Published")
    assert statistics.notes == [
        "length unknown for 1 of 1 videos",
        "event counts unknown: no captions.jsonl beside the questions",
        "topic unknown for 1 of 1 questions",
    ]
    _, _, length, events = draw_panels(statistics).axes
    assert [text.get_text() for text in length.texts] == ["the files do not give lengths"]
    assert [text.get_text() for text in events.texts] == ["the files do not give events"]


def test_very_long_videos_are_drawn_too(tmp_path):
    rows = [row(k, duration_seconds=86400.0 / (k + 1)) for k in range(4)]
    write_question_table(rows, tmp_path / "q.parquet")
    statistics, _ = collect_statistics(tmp_path / "q.parquet", "Long")
    assert sum(statistics.videos_per_bin()) == 4
    bars = draw_panels(statistics).axes[2].patches
    assert len(bars) <= 24
    assert sum(bar.get_height() for bar in bars) == pytest.approx(100)


def test_folders_without_questions_get_one_clear_line(tmp_path):
    with pytest.raises(DataError, match=r"holds no question file; expected jsons/"):
        collect_statistics(tmp_path, "x")
    (tmp_path / "videomarathon.json").write_text("[]")
    with pytest.raises(DataError, match="it is empty"):
        collect_statistics(tmp_path, "x")
    result = CliRunner().invoke(app, ["data", "stats", str(tmp_path / "none")])
    assert isinstance(result.exception, DataError)  # printed as one line by hourllava.cli.main.run


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
