"""The data set: layout, resuming after a kill, and one clear line for every bad parameter."""

import hashlib
import json
import re
import time
from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest

from data.question_files import split_options
from forking import ForkedProcess, start_python
from hourllava.cli.main import run
from hourllava.data.records.loading import LoadReport, iterate_questions, question_rows
from hourllava.errors import ConfigError
from hourllava.world.captions import Captions, generate_captions
from hourllava.world.generate import DIFFICULTIES, generate_script
from hourllava.world.making.make import MakeSettings, make_settings, make_world, parse_minutes
from hourllava.world.questions.descriptions import description_exchanges
from hourllava.world.questions.reading import read
from hourllava.world.script import Script
from world.folders import digests

SMALL = MakeSettings(videos=3, min_seconds=20, max_seconds=40, per_task=1, size_pixels=64)


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("made") / "VideoMarathon"
    make_world(SMALL, out, processes=1)
    return out


def test_the_folders_are_those_of_the_readme(made):
    names = set(digests(made))
    assert names == {
        "marathonworld.json", "preview.png",
        *(f"jsons/{name}" for name in ("videomarathon.json", "questions.parquet", "captions.jsonl")),
        *(f"videos/marathonworld/train-0-0000{k}.{ending}" for k in range(3) for ending in ("mp4", "json")),
    }  # fmt: skip


def test_only_the_tasks_wanted_are_asked(tmp_path):
    settings = wanted(minutes="0.5", container="reference", tasks="temporal order,Scene_Recognition")
    assert settings.tasks == ("Temporal Order", "Scene Recognition")
    make_world(settings, tmp_path, processes=1)
    rows = iterate_questions(tmp_path / "jsons/questions.parquet", LoadReport())
    assert {row.task for row in rows} == set(settings.tasks)


def test_records_and_table_say_the_same(made):
    records = json.loads((made / "jsons/videomarathon.json").read_text())
    report = LoadReport()
    rows = list(iterate_questions(made / "jsons/questions.parquet", report))
    assert report.lines() == []
    assert len(rows) == len(records) > 40
    assert set(records[0]) == {"id", "data_source", "video", "conversations"}
    for record, row in zip(records, rows):
        assert record["id"] == row.question_id
        assert (made / "videos" / record["video"]).is_file()
        asked, answered = record["conversations"]
        assert (asked["from"], answered["from"]) == ("human", "gpt")
        assert asked["value"].startswith("<image>\n" + row.question)
        assert "video lasts" not in asked["value"]
        expected = "ABCD"[row.answer_index] if row.format == "choice" else row.answer
        assert answered["value"] == expected
    from_records = list(iterate_questions(made / "jsons/videomarathon.json", LoadReport()))
    assert [(r.question, r.options, r.answer, r.evidence) for r in from_records] == [
        (r.question, r.options, r.answer, r.evidence) for r in rows
    ]


def records_of(out: Path) -> list[dict]:
    return json.loads((out / "jsons/videomarathon.json").read_text())


def exchanges_of(record: dict) -> list[tuple[str, str]]:
    turns = [turn["value"] for turn in record["conversations"]]
    return list(zip(turns[::2], turns[1::2], strict=True))


def test_without_further_wishes_the_bytes_are_those_of_before(tmp_path):
    make_world(wanted(minutes="0.5", container="reference"), tmp_path / "world", processes=1)
    records = (tmp_path / "world/jsons/videomarathon.json").read_text()
    without_evidence = re.sub(r',"evidence":\[\[.*?\]\]', "", records)
    digest = hashlib.sha256(without_evidence.encode()).hexdigest()
    assert digest == "9d2e37b6ab20329c6feaf270bf6a8b3299870ff32c12ace8f9ca09f56efada97"


@pytest.mark.parametrize("processes", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_records_of_several_questions_hold_each_question_once_and_mix_tasks(tmp_path, processes):
    settings = wanted(videos=9, minutes="0.4-0.6", container="reference", questions=6)
    make_world(settings, tmp_path / "world", processes)
    rows = {row.question_id: row for row in iterate_questions(tmp_path / "world/jsons/questions.parquet", LoadReport())}
    records = records_of(tmp_path / "world")
    assert len({record["id"] for record in records}) == len(records)
    asked: Counter[tuple[str, str]] = Counter()
    neighbours = 0
    tasks = {(row.video, row.question): row.task for row in rows.values()}
    for record in records:
        exchanges = exchanges_of(record)
        assert 5 <= len(exchanges) <= 6
        assert [question.count("<image>") for question, _ in exchanges] == [1] + [0] * (len(exchanges) - 1)
        read, _ = question_rows(record, "")
        asked.update((record["video"], row.question) for row in read)
        neighbours += sum(tasks[a.video, a.question] == tasks[b.video, b.question] for a, b in pairwise(read))
    assert asked == Counter((row.video, row.question) for row in rows.values())
    assert neighbours < len(rows) / 10  # in the order of the table it would be every second pair
    make_world(settings, tmp_path / "again", processes=1)
    assert digests(tmp_path / "again") == digests(tmp_path / "world")


@pytest.mark.parametrize("questions", [pytest.param(1, marks=pytest.mark.slow), 5])
def test_captions_are_among_the_questions_of_records_only(tmp_path, questions):
    settings = wanted(videos=8, minutes="0.1-2", container="reference", questions=questions, captions=3)
    make_world(settings, tmp_path / "world", processes=1)
    make_world(settings.model_copy(update={"captions": 0}), tmp_path / "plain", processes=1)
    table, plain = (tmp_path / name / "jsons/questions.parquet" for name in ("world", "plain"))
    assert table.read_bytes() == plain.read_bytes()
    lines = [json.loads(line) for line in (tmp_path / "world/jsons/captions.jsonl").read_text().splitlines()]
    places = set()
    for line in lines:
        records = [record for record in records_of(tmp_path / "world") if record["video"] == line["video"]]
        number = len([record for record in records_of(tmp_path / "plain") if record["video"] == line["video"]])
        by_title = {event["title"].lower(): event["caption"] for event in line["events"]}
        told = []
        for record in records:
            for place, (question, answer) in enumerate(exchanges_of(record)):
                template, split, slots = reading(question)
                if template in ("describe_event", "describe_video"):
                    title = slots.get("event", "").lower().removeprefix("the ")
                    assert answer == (by_title[title] if title else line["overall"])
                    assert split == "train"
                    told.append(title)
                    places.add(place)
        assert len(set(told)) == len(told) == (3 if line["duration_seconds"] >= 12 else 0)
        assert "" not in told or len(line["events"]) <= 8
        if questions == 1:
            assert len(records) == number + len(told)
    assert len(places) == questions


def reading(question: str):
    text, _ = split_options(question.removeprefix("<image>\n"))
    return read(text)


def test_many_events_are_not_told_in_one_answer():
    for density, whole in (("normal", True), ("dense", False)):
        script = generate_script(1, 180, density=DIFFICULTIES[density])
        told = description_exchanges(script, generate_captions(script), 100)
        assert len(told) == len(script.events) + whole
        assert ("describe_video" in {exchange.template for exchange in told}) == whole


def test_tables_can_be_left_away(tmp_path):
    settings = wanted(minutes="0.5", container="reference", questions=4, captions=1)
    make_world(settings, tmp_path / "whole", processes=1)
    make_world(settings.model_copy(update={"tables": False}), tmp_path / "less", processes=1)
    whole, less = digests(tmp_path / "whole"), digests(tmp_path / "less")
    assert whole.keys() - less.keys() == {"jsons/questions.parquet", "jsons/captions.jsonl"}
    assert {name for name in less if less[name] != whole[name]} == {"marathonworld.json"}


def test_a_folder_from_before_a_setting_is_gone_on_with(tmp_path):
    settings = wanted(minutes="0.5", container="reference")
    make_world(settings, tmp_path, processes=1)
    first = digests(tmp_path)
    older = settings.model_dump_json(indent=1, exclude={"questions", "captions", "tables"})
    (tmp_path / "marathonworld.json").write_text(older + "\n")
    make_world(settings, tmp_path, processes=1)
    assert digests(tmp_path) == first
    (tmp_path / "marathonworld.json").write_text(older + "\n")
    with pytest.raises(ConfigError, match="other settings"):
        make_world(settings.model_copy(update={"questions": 2}), tmp_path, processes=1)


def test_scripts_and_captions_lie_beside_the_videos(made):
    lines = [json.loads(line) for line in (made / "jsons/captions.jsonl").read_text().splitlines()]
    for line in lines:
        script = Script.model_validate_json((made / "videos" / line["video"]).with_suffix(".json").read_text())
        assert line["duration_seconds"] == script.duration_seconds
        captions = Captions.model_validate(line)
        assert [e.start_seconds for e in captions.events] == [e.start_seconds for e in script.events]


def test_a_finished_run_started_again_changes_nothing(made):
    before = {path: path.stat().st_mtime_ns for path in made.rglob("*.mp4")}
    first = digests(made)
    make_world(SMALL, made, processes=1)
    assert digests(made) == first
    assert {path: path.stat().st_mtime_ns for path in made.rglob("*.mp4")} == before


def test_a_run_without_some_files_makes_them_again(made, tmp_path):
    first = digests(made)
    (made / "videos/marathonworld/train-0-00001.mp4").unlink()
    (made / "videos/marathonworld/train-0-00002.json").unlink()
    (made / "jsons/questions.parquet").unlink()
    (made / "videos/marathonworld/train-0-00001.mp4.1.tmp").write_bytes(b"half")
    make_world(SMALL, made, processes=1)
    assert digests(made) == first


def start_make(out: Path) -> ForkedProcess:
    code = (
        "from pathlib import Path; from hourllava.world.making.make import *; import sys\n"
        "make_world(MakeSettings(videos=6, min_seconds=200, max_seconds=400, per_task=1, size_pixels=128),"
        " Path(sys.argv[1]), 2)\n"
    )
    return start_python(code, out)


@pytest.mark.slow
def test_killed_at_any_moment_it_ends_with_the_same_bytes(tmp_path):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    with start_make(whole) as process:
        assert process.wait() == 0
    for tenths in (3, 8, 12, 16, 20, 25, 30):
        with start_make(broken) as process:
            time.sleep(tenths / 10)
            process.kill()  # only the parent: its workers must end by themselves
            process.wait()
    with start_make(broken) as process:
        assert process.wait() == 0
    assert digests(broken) == digests(whole)


def wanted(**changes):
    values = {
        "videos": 2, "minutes": "3-60", "seed": 0, "split": "train", "difficulty": "normal", "needles": None,
        "per_task": 1, "formats": "both", "size_pixels": 64, "container": "mp4",
    }  # fmt: skip
    return make_settings(**(values | changes))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"videos": 0}, "--videos is 0; use 1"),
        ({"videos": -3}, "--videos is -3"),
        ({"minutes": "-5"}, "--minutes is '-5'"),
        ({"minutes": "60-3"}, "--minutes is '60-3'"),
        ({"minutes": "0"}, "above 0"),
        ({"minutes": "3-1441"}, "at most 1440"),
        ({"minutes": "long"}, "use a range such as 3-60"),
        ({"minutes": "nan"}, "use a range such as 3-60"),
        ({"minutes": "0.1", "needles": 7}, "7 needles were asked for"),
        ({"needles": -1}, "takes 0 to"),
        ({"split": "dev"}, "train, test"),
        ({"difficulty": "mad"}, "easy, normal, hard, dense"),
        ({"tasks": "Temporal Order, Humour"}, "--tasks names 'Humour'; use all, or some of: Temporal Perception"),
        ({"formats": "essay"}, "--formats is 'essay'; use one of: both, open, choice"),
        ({"container": "avi"}, "mp4, webm, reference"),
        ({"per_task": 0}, "--per-task is 0"),
        ({"questions": 0}, "--questions is 0; use 1 to"),
        ({"captions": -1}, "--captions is -1; use 0 to"),
        ({"size_pixels": 65}, "even"),
        ({"size_pixels": 8}, "use 64 to 2048"),
    ],
)
def test_bad_parameters_get_one_clear_line(changes, words):
    with pytest.raises(ConfigError, match=words) as caught:
        wanted(**changes)
    assert "\n" not in str(caught.value)


def test_folders_that_cannot_be_used_get_one_clear_line(tmp_path):
    full = tmp_path / "full"
    full.mkdir()
    (full / "thesis.tex").write_text("mine")
    with pytest.raises(ConfigError, match="is not empty"):
        make_world(SMALL, full)
    assert [path.name for path in full.iterdir()] == ["thesis.tex"]
    with pytest.raises(ConfigError, match="cannot be written"):
        make_world(SMALL, full / "thesis.tex" / "below")
    other = tmp_path / "other"
    other.mkdir()
    (other / "marathonworld.json").write_text(SMALL.model_copy(update={"seed": 9}).model_dump_json(indent=1) + "\n")
    with pytest.raises(ConfigError, match="other settings"):
        make_world(SMALL, other)
    with pytest.raises(ConfigError, match="--processes is 0"):
        make_world(SMALL, tmp_path / "new", processes=0)


def test_minutes_are_read_as_seconds():
    assert parse_minutes("3-60") == (180, 3600)
    assert parse_minutes("0.5") == (30, 30)
    assert wanted(minutes="1440").max_seconds == 86400


def test_one_format_only(tmp_path):
    settings = wanted(minutes="0.5", formats="open", container="reference")
    make_world(settings, tmp_path / "open", processes=1)
    rows = list(iterate_questions(tmp_path / "open/jsons/questions.parquet", LoadReport()))
    assert {row.format for row in rows} == {"open"}


@pytest.mark.parametrize(
    ("options", "words"),
    [(["--videos", "0"], "error: --videos is 0; use 1 to 1000000\n"), (["--minutes=-3"], "error: --minutes is '-3'")],
)
def test_the_command_turns_errors_into_one_line_and_an_exit_code(tmp_path, monkeypatch, capsys, options, words):
    monkeypatch.setattr("sys.argv", ["hourllava", "world", "make", "--out", str(tmp_path / "x"), *options])
    with pytest.raises(SystemExit) as ended:
        run()
    assert ended.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith(words)
    assert error.count("\n") == 1
    assert not (tmp_path / "x").exists()
