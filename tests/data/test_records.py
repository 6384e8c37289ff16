"""Records and the loader: ours, the published shape, and the ways in which other files name things."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data.question_files import write_question_table, write_training_records
from hourllava.choices import CHOICE_INSTRUCTION, choice_prompt
from hourllava.data.records import (
    LoadReport,
    QuestionRow,
    iterate_questions,
    record_line,
    split_options,
    training_record,
)
from hourllava.data.taxonomy import TASKS, TOPICS, find_task, find_topic
from hourllava.errors import DataError

OPEN = QuestionRow(
    question_id="q1", video="panda/a.mp4", data_source="panda", format="open", question="What is it?", answer="a cat",
    task="Object Recognition", topic="object", form="short", evidence=((1.0, 2.5),), duration_seconds=61.0,
)  # fmt: skip
CHOICE = OPEN.model_copy(
    update={"question_id": "q2", "format": "choice", "options": ("a dog", "a cat"), "answer_index": 1}
)


def load(path, records=None):
    if records is not None:
        path.write_text(json.dumps(records), encoding="utf-8")
    report = LoadReport()
    return list(iterate_questions(path, report)), report


def test_the_training_record_is_the_published_one():
    record = json.loads(record_line(training_record(CHOICE)))
    assert list(record) == ["id", "data_source", "video", "conversations"]
    assert record["conversations"][0] == {
        "from": "human",
        "value": f"<image>\nWhat is it?\nA. a dog\nB. a cat\n{CHOICE_INSTRUCTION}",
    }
    assert record["conversations"][1] == {"from": "gpt", "value": "B", "evidence": [[1.0, 2.5]]}
    unknown = json.loads(record_line(training_record(CHOICE.model_copy(update={"evidence": ()}))))
    assert unknown["conversations"][1] == {"from": "gpt", "value": "B"}  # the published one says no more
    assert training_record(OPEN).conversations[1].value == "a cat"


def test_table_and_records_survive_a_round_trip(tmp_path):
    write_question_table([OPEN, CHOICE], tmp_path / "q.parquet")
    rows, report = load(tmp_path / "q.parquet")
    assert rows == [OPEN, CHOICE]
    assert report.lines() == []
    write_training_records([OPEN, CHOICE], tmp_path / "r.json")
    rows, report = load(tmp_path / "r.json")
    assert [(r.question, r.options, r.answer, r.answer_index) for r in rows] == [
        ("What is it?", (), "a cat", None),
        ("What is it?", ("a dog", "a cat"), "a cat", 1),
    ]


def test_a_conversation_of_several_turns_becomes_several_questions(tmp_path):
    record = {
        "id": "x", "data_source": "ego4d", "video": "ego4d/x.mp4", "extra": 1,
        "conversations": [
            {"from": "human", "value": "<image>\nWho?"}, {"from": "gpt", "value": "he"},
            {"from": "human", "value": "Which?\n(A) one\n(B) two\n(C) three"}, {"from": "gpt", "value": "(C) three"},
        ],
    }  # fmt: skip
    rows, report = load(tmp_path / "a.json", [record])
    assert [(r.question_id, r.question, r.answer, r.format) for r in rows] == [
        ("x-0", "Who?", "he", "open"),
        ("x-1", "Which?", "three", "choice"),
    ]
    assert report.lines() == ["column 'extra' is not used (1 records)"]


@pytest.mark.parametrize(
    "record",
    [
        {
            "video_path": "s/v.mp4",
            "query": "Q?",
            "options": ["x", "y"],
            "answer": "y",
            "question_type": "temporal_order",
        },
        {
            "videoID": "s/v.mp4",
            "question": "Q?",
            "choices": {"A": "x", "B": "y"},
            "answer": "B",
            "task": "Temporal Order",
        },
        {"video": "s/v.mp4", "Question": "Q?", "option_a": "x", "option_b": "y", "gt": "B", "task": "temporal-order"},
        {"video": ["s/v.mp4"], "q": "Q?", "options": ["A. x", "B. y"], "answer_id": 1, "type": "TEMPORAL ORDER"},
        {"vid": "s/v.mp4", "question": "Q?\nA. x\nB. y", "response": "B. y", "task_type": "Temporal Order"},
    ],
)
def test_columns_are_found_by_their_usual_names(tmp_path, record):
    rows, report = load(tmp_path / "a.json", [record])
    assert report.lines() == []
    (row,) = rows
    assert (row.video, row.data_source) == ("s/v.mp4", "s")
    assert (row.question, row.options, row.answer, row.answer_index) == ("Q?", ("x", "y"), "y", 1)
    assert (row.task, row.topic, row.form) == ("Temporal Order", "temporality", "long")


def test_jsonl_and_parquet_are_read_as_well(tmp_path):
    records = [{"video": "s/v.mp4", "question": "Q?", "answer": "a", "duration": 12}] * 3
    (tmp_path / "a.jsonl").write_text("\n".join(json.dumps(record) for record in records) + "\n\n")
    pq.write_table(pa.Table.from_pylist(records), tmp_path / "a.parquet")
    for name in ("a.jsonl", "a.parquet"):
        rows, report = load(tmp_path / name)
        assert len(rows) == report.num_questions == 3
        assert rows[0].duration_seconds == 12.0


def test_what_cannot_be_mapped_is_counted_and_never_guessed(tmp_path):
    records = [
        {"video": "s/v.mp4", "question": "Q?", "answer": "a"},
        {"question": "Q?", "answer": "a"},
        {"video": "s/v.mp4"},
        {"video": "s/v.mp4", "question": "Q?"},
        {"video": "s/v.mp4", "question": "Q?", "options": ["x", "y"], "answer": "z"},
        {"video": "s/v.mp4", "question": "Q?", "options": ["B", "y"], "answer": "B"},
        {"video": "s/v.mp4", "conversations": [{"from": "human", "value": "?"}]},
        "text",
        {"video": "s/v.mp4", "question": ["Q?"], "answer": "a"},
    ]
    rows, report = load(tmp_path / "a.json", records)
    assert len(rows) == 1
    text = "\n".join(report.lines())
    for words, number in (
        ("names no video", 2), ("neither a question nor a conversation", 3), ("no answer", 4),
        ("none of its options", 5),
        ("both the letter of one option and the text of another", 6), ("no exchange", 7), ("is str, not an object", 8),
        ("a question is no text", 9),
    ):  # fmt: skip
        assert words in text
        assert f"the first is number {number}" in next(line for line in report.lines() if words in line)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.json", b'{"a": 1}', "holds an object"),
        ("a.json", b"[1, 2", "cannot be read"),
        ("a.jsonl", b"{}\n{", "cannot be read"),
        ("a.parquet", b"not parquet", "cannot be read"),
        ("a.csv", b"", r"use \.json"),
        ("a.json", b"\xff\xfe", "holds something else"),
    ],
)
def test_unreadable_files_get_one_clear_line(tmp_path, name, content, words):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=words) as caught:
        load(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_options_are_taken_out_only_where_they_are_options():
    assert split_options("Q?\nA. x\nB. y") == ("Q?", ("x", "y"))
    assert split_options("Is plan A. better?") == ("Is plan A. better?", ())
    assert split_options("Q?\nB. x\nC. y") == ("Q?\nB. x\nC. y", ())
    assert split_options(choice_prompt("Q?", ("x", "y", "z")).rsplit("\n", 1)[0]) == ("Q?", ("x", "y", "z"))


def test_the_taxonomy_is_the_published_one():
    assert len(TASKS) == 22
    assert len(TOPICS) == 6
    assert sum(task.form == "short" for task in TASKS.values()) == 7
    assert find_task("object_existence") == TASKS["Object Existence"]
    assert find_task("") is None
    assert find_topic("Temporal") == "temporality"
    assert find_topic("colour") is None
