"""`data check`: streaming, every kind of problem, duplicates, and the fixed copy."""

import json
import tracemalloc

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from conftest import examples
from hourllava.data.records import reading
from hourllava.data.records.check import SAME_ID, SAME_RECORD, CheckReport, check_records
from hourllava.data.records.mend import check_and_fix
from hourllava.data.records.reading import iterate_entries
from hourllava.errors import DataError, PartlyDoneError


def record(number=0, **changes):
    good = {
        "id": f"r{number}",
        "data_source": "panda",
        "video": "panda/a.mp4",
        "conversations": [
            {"from": "human", "value": "<image>\nWhat is it?"},
            {"from": "gpt", "value": f"a cat, number {number}"},
        ],
    }
    return {name: value for name, value in (good | changes).items() if value is not ...}


def turns(*values):
    return [{"from": ("human", "gpt")[k % 2], "value": value} for k, value in enumerate(values)]


def check(path, **options):
    report = CheckReport()
    return list(check_records(path, report, **options)), report


def write(path, records):
    lines = [json.dumps(item) for item in records]
    path.write_text("[\n" + ",\n".join(lines) + "\n]\n" if path.suffix == ".json" else "\n".join(lines) + "\n")
    return path


def test_sound_records_of_every_kind_have_no_problems(tmp_path):
    choice = "<image>\nWhich?\nA. x\nB. y\nAnswer with the option's letter from the given choices directly."
    records = [
        record(1),
        record(2, video=..., image="a.jpg"),
        record(3, video=..., image=["a.jpg", "b.jpg"], conversations=turns("<image> <image> Same?", "yes")),
        record(4, video=..., data_source=..., conversations=turns("Hello", "Hi", "Bye", "Bye")),
        record(5, conversations=turns(choice, "B")),
        record(6, conversations=turns("<image>\nList:\nA. x\nB. y", "As a whole both are letters.")),
    ]
    for suffix in (".json", ".jsonl"):
        problems, report = check(write(tmp_path / f"a{suffix}", records))
        assert problems == []
        assert report.num_records == 6


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({"extra": 1}, "unknown field"),
        ({"id": ...}, "no id"),
        ({"id": ""}, "no id"),
        ({"id": 7}, "id is no text"),
        ({"data_source": 7}, "data_source is no text"),
        ({"image": "a.jpg"}, "both video and image"),
        ({"video": []}, "placeholders do not match media"),
        ({"video": ["a.mp4", None]}, "media is no path"),
        ({"video": "https://a.org/a.mp4"}, "media is no path"),
        ({"video": ["a.mp4", "b.mp4"]}, "more than one video"),
        ({"video": "a\0.mp4"}, "media is no file name"),
        ({"video": "a\ud800.mp4"}, "media is no file name"),
        ({"video": "C:\\a.mp4"}, "media path leaves its folder"),
        (
            {"video": ..., "image_path": "a.jpg", "conversations": turns("What?", "a cat")},
            "unknown field that may name media",
        ),
        ({"messages": turns("<image>\nWhat?", "a cat")}, "two conversations"),
        ({"conversations": "not JSON"}, "conversation is no list"),
        (
            {"conversations": [{"from": "system", "value": "Be kind."}, *turns("<image>\nWhat?", "a cat")]},
            "a system turn",
        ),
        ({"conversations": turns("<image>\nWhat?", "a cat", "Why?")}, "a last question without an answer"),
        ({"conversations": [*turns("<image>\nWhat?"), *turns("Where?", "a cat")]}, "wrong turn order"),
        ({"conversations": [*turns("<image>\nWhat?"), {"role": "assistant", "content": None}]}, "empty turn"),
        ({"conversations": [*turns("<image>\nWhat?"), {"role": "tool", "content": "x"}]}, "wrong turn order"),
        ({"conversations": turns("<image>\nWhich?\nA. x\nB. y", "B. x")}, "the answer is no option"),
        ({"video": 3}, "media is no path"),
        ({"video": "/data/a.mp4"}, "media path leaves its folder"),
        ({"video": "../a.mp4"}, "media path leaves its folder"),
        ({"conversations": []}, "empty conversation"),
        ({"conversations": [{"from": "human"}]}, "a turn is no {from, value}"),
        ({"conversations": turns("<image>\nWhat?")}, "wrong turn order"),
        ({"conversations": turns("<image>\nWhat?", "a cat")[::-1]}, "wrong turn order"),
        ({"conversations": turns("<image>\nWhat?", " ")}, "empty turn"),
        ({"conversations": turns("What?", "a cat")}, "placeholders do not match media"),
        ({"conversations": turns("<image><image>What?", "a cat")}, "placeholders do not match media"),
        ({"video": ..., "conversations": turns("<image>\nWhat?", "a cat")}, "placeholders do not match media"),
        ({"conversations": turns("<image>\nWhat?", "<image> a cat")}, "placeholder in an answer"),
        ({"conversations": turns("<image>\nWhich?\nA. x\nB. y", "C")}, "the answer is no option"),
        ({"conversations": turns("<image>\nWhich?\nA. x\nB. x", "A")}, "an option is given twice"),
        ({"conversations": ..., "question": "Q?"}, "question cannot be used"),
    ],
)
def test_every_kind_of_problem_is_told_with_its_line(tmp_path, changes, kind):
    problems, report = check(write(tmp_path / "a.json", [record(1), record(2, **changes), record(3)]))
    assert [(problem.number, problem.line, problem.kind) for problem in problems] == [(2, 3, kind)]
    assert report.kinds == {kind: 1}


def test_duplicates_are_found_wherever_they_are(tmp_path):
    records = [record(1), record(2), record(1), record(2, video="panda/b.mp4"), record(3), record(1)]
    problems, _ = check(write(tmp_path / "a.jsonl", records))
    assert [(problem.line, problem.kind, problem.detail) for problem in problems] == [
        (3, SAME_RECORD, "as record 1"),
        (4, SAME_ID, "as record 2"),
        (6, SAME_RECORD, "as record 1"),
    ]


def test_media_are_looked_for_below_the_folder_given(tmp_path):
    (tmp_path / "panda").mkdir()
    (tmp_path / "panda/a.mp4").write_bytes(b"x")
    (tmp_path / "panda/empty.mp4").touch()
    records = [record(1), record(2, video="panda/no.mp4"), record(3, video="panda/empty.mp4")]
    problems, _ = check(write(tmp_path / "a.jsonl", records), media=tmp_path)
    assert [(problem.number, problem.kind) for problem in problems] == [
        (2, "media missing"),
        (3, "media empty (0 bytes)"),
    ]
    with pytest.raises(DataError, match="no folder"):
        check(tmp_path / "a.jsonl", media=tmp_path / "none")


@pytest.mark.parametrize("window", [1, 7, 1 << 20])
@pytest.mark.parametrize(
    ("damage", "words", "survivors"),
    [
        (lambda text: text.replace('"r2"', '"r2', 1), "not JSON", ["r1", "r3", "r4"]),
        (lambda text: text.replace('"id": "r2",', '"id" "r2",', 1), "delimiter", ["r1", "r3", "r4"]),
        (lambda text: text.replace("},\n{", "}\n{", 1), "no comma", ["r2", "r3", "r4"]),
        (lambda text: text[:-30], "cut short", ["r1", "r2", "r3"]),
        (lambda text: text[:-2], "cut short", ["r1", "r2", "r3", "r4"]),
        (lambda text: text + "[]", "something follows", ["r1", "r2", "r3", "r4"]),
        (lambda text: text[:-3] + ",]", "a comma before", ["r1", "r2", "r3", "r4"]),
        (lambda text: text.replace("number 2", "number \udcff"), "no UTF-8", ["r1", "r3", "r4"]),
    ],
)
def test_a_damaged_list_is_read_on_behind_the_damage(tmp_path, monkeypatch, window, damage, words, survivors):
    monkeypatch.setattr(reading, "WINDOW_CHARACTERS", window)
    text = "[\n" + ",\n".join(json.dumps(record(k)) for k in (1, 2, 3, 4)) + "\n]\n"
    path = tmp_path / "a.json"
    path.write_bytes(damage(text).encode(errors="surrogateescape"))
    entries = list(iterate_entries(path))
    faults = [entry.fault for entry in entries if entry.fault is not None]
    assert len(faults) == 1
    assert words in faults[0]
    assert [entry.value["id"] for entry in entries if entry.fault is None and entry.value["id"] != "r2"] == [
        name for name in survivors if name != "r2"
    ]


def test_damaged_lines_cost_only_themselves(tmp_path):
    path = tmp_path / "a.jsonl"
    good = json.dumps(record(1)).encode()
    path.write_bytes(good + b'\n{"id": \n\n"text"\n' + good.replace(b"cat", b"c\xfft") + b"\n" + good[:-9])
    problems, report = check(path)
    assert [(problem.line, problem.kind) for problem in problems] == [
        (2, "unreadable"),
        (4, "no object"),
        (5, "unreadable"),
        (6, "unreadable"),
    ]
    assert report.num_records == 2  # the object and the text


@examples(25)
@example([0.5, -1e-30, 12345678901234567890], 1, None, True)
@given(
    st.lists(st.recursive(st.text() | st.integers() | st.floats(allow_nan=False) | st.booleans() | st.none(),
                          lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
                          max_leaves=6), max_size=6),
    st.sampled_from([1, 2, 5, 64]), st.sampled_from([None, 1]), st.booleans(),
)  # fmt: skip
def test_lists_are_read_as_json_reads_them(tmp_path_factory, values, window, indent, ascii_only):
    path = tmp_path_factory.mktemp("lists") / "a.json"
    text = json.dumps(values, indent=indent, ensure_ascii=ascii_only)
    path.write_text(text, encoding="utf-8")
    before = reading.WINDOW_CHARACTERS
    reading.WINDOW_CHARACTERS = window
    try:
        entries = list(iterate_entries(path))
    finally:
        reading.WINDOW_CHARACTERS = before
    assert [entry.fault for entry in entries] == [None] * len(values)
    assert [entry.value for entry in entries] == json.loads(text)
    assert [json.loads(entry.text) for entry in entries] == json.loads(text)


@pytest.mark.slow
def test_memory_does_not_grow_with_the_file(tmp_path, monkeypatch):
    monkeypatch.setattr(reading, "WINDOW_CHARACTERS", 1 << 14)
    path = tmp_path / "a.json"
    with path.open("w") as file:
        file.write("[" + json.dumps(record(0)))
        for k in range(1, 5_000):
            file.write(",\n" + json.dumps(record(k)))
        file.write("]")
    size = path.stat().st_size
    tracemalloc.start()
    try:
        problems, report = check(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert (problems, report.num_records) == ([], 5_000)
    # 24 bytes a record, copies of them while sorting, and a window: less than the text itself.
    assert peak < 5_000 * 100 + 8 * reading.WINDOW_CHARACTERS < size


@pytest.mark.parametrize("suffix", [".json", ".jsonl"])
def test_the_fixed_copy_has_no_problems_and_the_ledger_tells_all(tmp_path, suffix):
    records = [
        record(1, extra=1),
        record(2),
        record(2),
        record(2, video="panda/b.mp4"),
        record(7, id=7),
        record(8, conversations=turns("What?", "a cat")),
        record(9, conversations=[]),
        record(10, video=..., conversations=turns("<image>\nWhat?", "a cat")),
        record(11, video=..., image=["a", "b"]),
    ]
    path, out = write(tmp_path / f"a{suffix}", records), tmp_path / f"b{suffix}"
    before = path.read_bytes()
    lines = []
    with pytest.raises(PartlyDoneError, match=r"4 of 9 records of .* were dropped"):
        lines.extend(check_and_fix(path, media=None, fix=out, shown_per_kind=None))
    assert f"{len(records)} records, 8 problems" in lines
    assert check(out)[0] == []
    fixed = {entry.value["id"]: entry.value for entry in iterate_entries(out)}
    assert list(fixed) == ["r1", "r2", "r2#4", "7", "r8"]
    assert fixed["r2"] == record(2)
    assert "extra" not in fixed["r1"]
    assert fixed["r8"]["conversations"][0]["value"] == "<image>\nWhat?"
    ledger = [json.loads(line) for line in (tmp_path / f"b{suffix}.ledger.jsonl").read_text().splitlines()]
    assert [(line["record"], line["done"]) for line in ledger] == [
        (1, "changed"), (3, "dropped"), (4, "changed"), (5, "changed"), (6, "changed"), (7, "dropped"),
        (8, "dropped"), (9, "dropped"),
    ]  # fmt: skip
    assert path.read_bytes() == before
    assert sorted(item.name for item in tmp_path.iterdir()) == [f"a{suffix}", f"b{suffix}", f"b{suffix}.ledger.jsonl"]


def test_tables_lose_what_cannot_be_used(tmp_path):
    rows = [
        {"question_id": "a", "video": "s/v.mp4", "question": "Q?", "answer": "x", "options": ["x", "y"], "odd": 1},
        {"question_id": "b", "video": "s/v.mp4", "question": "Q?", "answer": "z", "options": ["x", "y"], "odd": 1},
        {"question_id": "a", "video": "s/v.mp4", "question": "R?", "answer": "x", "options": [], "odd": 1},
    ]
    path, out = tmp_path / "a.parquet", tmp_path / "b.parquet"
    pq.write_table(pa.Table.from_pylist(rows), path)
    problems, report = check(path)
    assert [(problem.number, problem.line) for problem in problems] == [(2, None), (3, None)]
    assert report.unused_columns == {"odd": 2}
    with pytest.raises(PartlyDoneError, match=r"1 of 3 records of .* were dropped"):
        list(check_and_fix(path, media=None, fix=out, shown_per_kind=None))
    assert pq.read_table(out).schema == pq.read_table(path).schema
    assert pq.read_table(out).to_pylist() == [rows[0], rows[2] | {"question_id": "a#3"}]


def test_problems_without_a_fix_are_an_error_and_only_some_are_shown(tmp_path):
    path = write(tmp_path / "a.jsonl", [record(k, extra=1) for k in range(30)])
    for shown_per_kind, num_shown in ((20, 20), (None, 30)):
        lines = []

        def collect(shown_per_kind, lines):
            for line in check_and_fix(path, media=None, fix=None, shown_per_kind=shown_per_kind):
                lines.append(line)

        with pytest.raises(DataError, match="30 problems"):
            collect(shown_per_kind, lines)
        assert sum("unknown field: extra" in line for line in lines) == num_shown
        assert "        30  unknown field" in lines


def test_an_out_file_that_cannot_be_written_is_one_clear_line(tmp_path):
    path = write(tmp_path / "a.jsonl", [record(1, extra=1)])
    for out, words in (
        (path, "is the file itself"),
        (tmp_path / "b.parquet", r"use \.json"),
        (tmp_path / "none" / "b.json", "cannot be written"),
    ):
        with pytest.raises(DataError, match=words):
            list(check_and_fix(path, media=None, fix=out, shown_per_kind=1))
