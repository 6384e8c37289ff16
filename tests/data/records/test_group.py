"""`data group`: several questions of one video in one record, whatever the order and size of the file."""

import json
import random
from collections import Counter

import pytest

from data.question_files import write_question_table, write_training_records
from hourllava.choices import choice_prompt
from hourllava.data.records import group
from hourllava.data.records.group import group_records
from hourllava.data.records.models import QuestionRow
from hourllava.data.records.reading import iterate_entries
from hourllava.errors import ConfigError, DataError


def questions(num_videos=9):
    """Videos with 1, 2, ... questions, every third of them multiple choice."""
    for video in range(num_videos):
        for k in range(video + 1):
            options = ("x", "y", "z") if k % 3 == 0 else ()
            yield QuestionRow(
                question_id=f"v{video}q{k}", video=f"s/v{video}.mp4", data_source="s", question=f"Q{video}.{k}?",
                format="choice" if options else "open", options=options, answer_index=1 if options else None,
                answer="y" if options else f"A{video}.{k}", evidence=((float(k), k + 1.5),) if k else (),
            )  # fmt: skip


def records_of(path):
    return [entry.value for entry in iterate_entries(path)]


def test_every_question_comes_once_in_records_of_at_most_n(tmp_path):
    write_training_records(questions(), tmp_path / "a.json")
    lines = group_records(tmp_path / "a.json", tmp_path / "b.json", num_questions=5)
    assert lines == ["45 questions became 13 records", str(tmp_path / "b.json")]
    asked = Counter()
    sizes = Counter()
    for record in records_of(tmp_path / "b.json"):
        assert list(record) == ["id", "data_source", "video", "conversations"]
        values = [turn["value"] for turn in record["conversations"]]
        assert [turn["from"] for turn in record["conversations"]] == ["human", "gpt"] * (len(values) // 2)
        assert values[0].startswith("<image>\n")
        assert sum(value.count("<image>") for value in values) == 1
        number = record["video"].removeprefix("s/v").removesuffix(".mp4")
        evidence = [turn.get("evidence") for turn in record["conversations"]]
        assert not any(evidence[::2])
        for question, answer, moments in zip(values[::2], values[1::2], evidence[1::2]):
            text = question.removeprefix("<image>\n")
            name = text.split("?")[0].removeprefix("Q")
            assert name.split(".")[0] == number
            is_choice = int(name.split(".")[1]) % 3 == 0
            assert (text, answer) == (
                (choice_prompt(f"Q{name}?", "xyz"), "B") if is_choice else (f"Q{name}?", f"A{name}")
            )
            start = int(name.split(".")[1])
            assert moments == ([[start, start + 1.5]] if start else None)
            asked[name] += 1
        sizes[len(values) // 2] += 1
    assert len(asked) == 45
    assert set(asked.values()) == {1}
    assert sizes == {1: 2, 2: 2, 3: 2, 4: 2, 5: 5}
    assert len({record["id"] for record in records_of(tmp_path / "b.json")}) == 13


def test_groups_follow_from_ids_and_seed_alone(tmp_path, monkeypatch):
    rows = list(questions())
    write_question_table(rows, tmp_path / "a.parquet")
    random.Random(0).shuffle(rows)
    write_training_records(rows, tmp_path / "a.json")
    group_records(tmp_path / "a.parquet", tmp_path / "one.jsonl")
    monkeypatch.setattr(group, "BUCKET_BYTES", 100)  # many files instead of one
    group_records(tmp_path / "a.json", tmp_path / "two.jsonl")
    assert (tmp_path / "one.jsonl").read_bytes() == (tmp_path / "two.jsonl").read_bytes()
    group_records(tmp_path / "a.json", tmp_path / "other.jsonl", seed=1)
    assert (tmp_path / "other.jsonl").read_bytes() != (tmp_path / "two.jsonl").read_bytes()
    (tmp_path / ".two.jsonl.buckets").mkdir()  # as a killed run leaves it
    (tmp_path / ".two.jsonl.buckets" / "000.jsonl").write_text("{")
    group_records(tmp_path / "a.json", tmp_path / "two.jsonl")
    assert (tmp_path / "one.jsonl").read_bytes() == (tmp_path / "two.jsonl").read_bytes()
    assert {path.name for path in tmp_path.iterdir()} == {
        "a.parquet", "a.json", "one.jsonl", "two.jsonl", "other.jsonl"
    }  # fmt: skip


def test_grouped_records_can_be_grouped_again(tmp_path):
    write_training_records(questions(4), tmp_path / "a.json")
    group_records(tmp_path / "a.json", tmp_path / "b.json", num_questions=2)
    lines = group_records(tmp_path / "b.json", tmp_path / "c.json", num_questions=1)
    assert lines[:2] == [
        "10 questions became 6 records", "4 records have more than 1 questions: conversations are never cut"
    ]  # fmt: skip
    lines = group_records(tmp_path / "b.json", tmp_path / "d.json", num_questions=4)
    assert lines[0] == "10 questions became 4 records"  # records of 1, 2, 2+1 and 2+2 questions
    for path in ("c.json", "d.json"):
        said = [
            turn["value"].removeprefix("<image>\n") for r in records_of(tmp_path / path) for turn in r["conversations"]
        ]
        for record in records_of(tmp_path / "b.json"):
            values = [turn["value"].removeprefix("<image>\n") for turn in record["conversations"]]
            at = said.index(values[0])
            assert said[at : at + len(values)] == values  # whole and in order


def test_conversations_stay_whole_and_in_order(tmp_path):
    chance = random.Random(0)
    records = []
    for k in range(40):
        talk = [(f"Question {k}.{n}?", f"Answer {k}.{n}") for n in range(chance.randint(1, 8))]
        values = [value for pair in talk for value in pair]
        values[0] = f"<image>\n{values[0]}"
        turns = [{"from": ("human", "gpt")[n % 2], "value": value} for n, value in enumerate(values)]
        records.append({"id": str(k), "video": f"{k % 7}.mp4", "conversations": turns})
    (tmp_path / "a.json").write_text(json.dumps(records))
    group_records(tmp_path / "a.json", tmp_path / "b.json", num_questions=5)
    grouped = [
        [turn["value"].removeprefix("<image>\n") for turn in r["conversations"]]
        for r in records_of(tmp_path / "b.json")
    ]
    for record in records:
        values = [turn["value"].removeprefix("<image>\n") for turn in record["conversations"]]
        (place,) = (said for said in grouped if values[0] in said)
        at = place.index(values[0])
        assert place[at : at + len(values)] == values
        assert len(place) <= max(10, len(values))
    assert sum(map(len, grouped)) == sum(len(record["conversations"]) for record in records)


@pytest.mark.parametrize(
    ("record", "words"),
    [
        ({"conversations": ["human", "human", "gpt"]}, "not question and answer in turn"),
        ({"conversations": ["human", "gpt", "gpt"]}, "not question and answer in turn"),
        ({"conversations": ["gpt", "human"]}, "not question and answer in turn"),
        ({"conversations": ["human", "gpt", "human"]}, "not question and answer in turn"),
        ({"conversations": ["system", "human", "gpt"]}, "system turn"),
        ({"conversations": ["human", "gpt"], "video": ["b.mp4", "c.mp4"]}, "more than one video"),
    ],
)
def test_turns_that_are_no_exchanges_are_never_paired(tmp_path, record, words):
    talk = [{"from": speaker, "value": f"{speaker} {k}"} for k, speaker in enumerate(record["conversations"])]
    good = {"id": "good", "video": "a.mp4", "question": "Q?", "answer": "a"}
    (tmp_path / "a.json").write_text(json.dumps([{"id": "1", "video": "a.mp4", **record, "conversations": talk}, good]))
    lines = group_records(tmp_path / "a.json", tmp_path / "b.json")
    assert any(words in line for line in lines), lines
    (kept,) = records_of(tmp_path / "b.json")
    assert [turn["value"] for turn in kept["conversations"]] == ["<image>\nQ?", "a"]


def test_videos_of_one_name_and_two_sources_are_two_videos(tmp_path):
    rows = [
        {"id": f"{source}{k}", "data_source": source, "video": "001.mp4", "question": f"Q{k}?", "answer": source}
        for source in ("panda", "ego4d") for k in range(3)
    ]  # fmt: skip
    (tmp_path / "a.json").write_text(json.dumps(rows))
    group_records(tmp_path / "a.json", tmp_path / "b.json")
    grouped = {record["id"]: record for record in records_of(tmp_path / "b.json")}
    assert set(grouped) == {"panda/001.mp4-0", "ego4d/001.mp4-0"}
    for record in grouped.values():
        assert {turn["value"] for turn in record["conversations"][1::2]} == {record["data_source"]}
        assert record["video"] == "001.mp4"


def test_what_cannot_be_used_is_told(tmp_path):
    (tmp_path / "a.jsonl").write_text(
        '{"id": "1", "video": "s/v.mp4", "question": "Q?", "answer": "a"}\n'
        '{"id": "2", "question": "Q?", "answer": "a"}\n'
    )
    lines = group_records(tmp_path / "a.jsonl", tmp_path / "b.json")
    assert "a record names no video: 1 records, the first is number 2" in lines
    (tmp_path / "none.json").write_text("[]")
    for path, out, options, error, words in (
        ("a.jsonl", "c.json", {"num_questions": 0}, ConfigError, "1 or more"),
        ("a.jsonl", "c.csv", {}, DataError, "use .json"),
        ("gone.json", "c.json", {}, DataError, "No such file"),
        ("none.json", "c.json", {}, DataError, "no question"),
        ("a.jsonl", "a.jsonl/c.json", {}, DataError, "Not a directory"),
    ):
        with pytest.raises(error, match=words):
            group_records(tmp_path / path, tmp_path / out, **options)
    assert {path.name for path in tmp_path.iterdir()} == {"a.jsonl", "b.json", "none.json"}
    assert json.loads((tmp_path / "b.json").read_text())[0]["id"] == "s/v.mp4-0"
