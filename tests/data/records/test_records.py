"""Records and the loader: ours, the published shape, and the ways in which other files name things."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data.question_files import split_options, write_question_table, write_training_records
from hourllava import plotting
from hourllava.choices import CHOICE_INSTRUCTION, choice_prompt
from hourllava.data.records.group import run_group
from hourllava.data.records.loading import LoadReport, iterate_questions
from hourllava.data.records.models import QuestionRow, record_line, training_record
from hourllava.data.records.statistics_report import write_statistics
from hourllava.data.records.taxonomy import TASKS, TOPICS, find_task, find_topic
from hourllava.errors import DataError, PartlyDoneError

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


@pytest.mark.parametrize("suffix", [".json", ".jsonl"])
def test_a_damaged_record_is_counted_and_costs_only_itself(suffix, tmp_path, monkeypatch):
    good = json.dumps({"id": "1", "video": "s/v.mp4", "question": "Which?", "answer": "this"})
    lines = [good, good.replace('"answer":', '"answer"'), good]
    path = tmp_path / f"a{suffix}"
    path.write_text("\n".join(lines) if suffix == ".jsonl" else "[" + ",\n".join(lines) + "]")
    report = LoadReport()
    assert len(list(iterate_questions(path, report))) == 2
    (line,) = report.lines()
    assert line.startswith("a record cannot be read (not JSON: ")
    assert line.endswith("): 1 records, the first is number 2")
    grouped = tmp_path / "grouped.json"
    with pytest.raises(PartlyDoneError, match=r"1 records of .* could not be used; the others are in"):
        list(run_group(path, grouped, 5, 0))
    assert len(json.loads(grouped.read_text())) == 1
    monkeypatch.setattr(plotting, "save_figure", lambda figure, path: path)
    with pytest.raises(PartlyDoneError, match=r"1 records of .* could not be used; all others are counted"):
        list(write_statistics(path, tmp_path / "stats"))


def question(tmp_path, **columns):
    """The one question of a row with these columns; the report's words if it is refused."""
    rows, report = load(tmp_path / "a.json", [{"id": "1", "video": "s/v.mp4", "question": "Which?"} | columns])
    return rows[0] if rows else "; ".join(report.problems)


@pytest.mark.parametrize(
    "kind", ["temporality/mc", "temporality/temporal_order/mc", "Temporality/Temporal Order/MC", "mcq"]
)
@pytest.mark.parametrize(
    "text", ["Which?\nA. x\nB. y", "Which? (A) x (B) y", "Which?\n(a) x\n(b) y", "A: x\nB: y\nWhich?"]
)
@pytest.mark.parametrize("answer", ["B", "b", "(B)", "B. y", "y", "Y."])
def test_published_rows_of_multiple_choice(tmp_path, kind, text, answer):
    published = {"URL": "https://a.org", "data_source": "panda", "question_type": kind, "video": "v.mp4"}
    row = question(tmp_path, **published, question=text, answer=answer)
    assert (row.question, row.options, row.answer_index, row.answer) == ("Which?", ("x", "y"), 1, "y")
    assert (row.format, row.data_source, row.media_id) == ("choice", "panda", "panda/v.mp4")
    if "order" in kind.lower():
        assert (row.task, row.topic) == ("Temporal Order", "temporality")
    elif "/" in kind:
        assert (row.task, row.topic) == (None, "temporality")


@pytest.mark.parametrize("kind", ["scene/oe", "scene_transition/oe", "Scene/Scene Transition/OE", "open-ended"])
def test_published_rows_of_open_questions(tmp_path, kind):
    row = question(
        tmp_path, question_type=kind, question="Steps:\nA. cut\nB. cook\nNext?", answer="A plate is brought."
    )
    assert (row.question, row.answer, row.options) == ("Steps:\nA. cut\nB. cook\nNext?", "A plate is brought.", ())
    row = question(tmp_path, question_type=kind, question="Which?\nA. x\nB. y", answer="B")
    assert (row.format, row.answer) == ("open", "B")


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"answer": ""}, "no answer"),
        ({"answer": " "}, "no answer"),
        ({"answer": float("nan")}, "no answer"),
        ({"answer": ["red", "dark red"]}, "no text: list"),
        ({"answer": {"text": "red"}}, "no text: dict"),
        ({"answer": True}, "no text: bool"),
        ({"options": list("wxyz"), "answer_index": 2, "answer": "B"}, "not the same option"),
        ({"options": list("wxyz"), "answer_index": 4}, "number is none"),
        ({"options": list("wxyz"), "label": -1}, "number is none"),
        ({"options": ["x", None, "z"], "answer": "x"}, "is empty"),
        ({"options": ["x", " "], "answer": "x"}, "is empty"),
        ({"options": ["x"], "answer": "x"}, "1 options; 2 to 26"),
        ({"options": [f"x{k}" for k in range(27)], "answer": "x1"}, "27 options; 2 to 26"),
        ({"options": ["B. x", "A. y"], "answer": "B"}, "letters are not in order"),
        ({"options": 3, "answer": "B"}, "no list: int"),
        ({"option_a": "x", "option_b": "y", "Option_A": "z", "answer": "x"}, "are the same option"),
        ({"question_type": "scene/mc", "answer": "B"}, "no options are found"),
        ({"question_type": "scene/oe", "options": ["x", "y"], "answer": "x"}, "says open-ended, but has options"),
        ({"question_type": "scene/oe", "qa_type": "mc", "answer": "x"}, "one column says open-ended"),
        ({"video": ["a.mp4", "b.mp4"], "answer": "x"}, "names 2 videos"),
        ({"video": {"path": "a.mp4"}, "answer": "x"}, "video is no path"),
        ({"video": float("nan"), "answer": "x"}, "names no video"),
        ({"data_source": 3, "answer": "x"}, "data_source is no text"),
    ],
)
def test_cells_that_are_no_answer_option_or_video(tmp_path, columns, words):
    assert words in question(tmp_path, **columns)


@pytest.mark.parametrize(
    ("columns", "index"),
    [
        ({"options": {str(k): f"o{k}" for k in range(12)}, "answer": "2"}, 2),
        ({"options": {str(k): f"o{k}" for k in range(1, 13)}, "answer": "10"}, 9),
        ({"options": {"B": "x", "C": "y"}, "answer": "C"}, 1),
        ({"options": {"A": "x", "B": None, "C": "z"}, "answer": "C"}, 1),
        ({"options": '["x", "y"]', "answer": "B"}, 1),
        ({"options": "A. x\nB. y", "answer": "B"}, 1),
        ({"options": "x\ny", "answer": "y"}, 1),
        ({"options": ["x", "y", None], "answer": "y"}, 1),
        ({"options": [5, 7], "answer": 7}, 1),
        ({"option_a": "x", "option_b": "y", "option_c": "", "answer": "B"}, 1),
        ({**{f"a{k}": f"o{k}" for k in range(12)}, "answer": 10}, 10),
        ({**{f"option{k}": f"o{k}" for k in range(1, 5)}, "answer": "2"}, 1),
        ({"options": ["x", "y"], "label": "B"}, 1),
        ({"options": ["x", "y"], "label": 1.0}, 1),
        ({"options": ["x", "y"], "label": "1", "answer": "y"}, 1),
        ({"options": ["B", "A"], "label": 1, "answer": "A"}, 1),
        ({"question": "Which?\nA. x\nB. y", "answer_index": 1}, 1),
        ({"question": "Which?\nA. x\nB. y", "options": ["x", "y"], "answer": "B"}, 1),
    ],
)
def test_options_and_answers_in_the_forms_of_tables(tmp_path, columns, index):
    row = question(tmp_path, **columns)
    assert (row.answer_index, row.answer, row.question) == (index, row.options[index], "Which?")


def test_columns_told_along_do_not_cost_the_row(tmp_path):
    odd = {"duration": "short", "time_reference": "00:15-00:19", "template": 3, "split": ["a"], "label": "good"}
    (row,), report = load(tmp_path / "a.json", [{"video": "v.mp4", "question": "Q?", "answer": "a", **odd}])
    assert (row.duration_seconds, row.evidence, row.template, row.split) == (None, (), None, None)
    assert report.lines() == [f"column {name!r} is not used (1 records)" for name in sorted(odd)]
    row = question(tmp_path, video_id="001", videoID="abc", video=None, duration="62.5", answer="a", query=None)
    assert (row.video, row.duration_seconds) == ("abc", 62.5)
    # A column of a usual name whose cell is null leaves its place to the next.
    assert question(tmp_path, answer=None, response="a", ground_truth="b").answer == "a"


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
    assert find_topic("oe") is find_topic("mc") is find_topic("o") is None
