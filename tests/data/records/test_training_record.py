"""What a record says is the same for `check`, `--fix`, `group`, `sources` and `shard`, however it is written."""

import json
import math
from contextlib import suppress

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from conftest import examples
from hourllava.data.mds.reader import MdsDataset
from hourllava.data.prepare.mixtures import Sampling
from hourllava.data.prepare.shard import ShardSettings, shard_records
from hourllava.data.records import reading
from hourllava.data.records.canonical import RecordFault, canonical_record
from hourllava.data.records.check import CheckReport, check_records
from hourllava.data.records.columns import media_named
from hourllava.data.records.group import group_records
from hourllava.data.records.mend import check_and_fix
from hourllava.data.records.reading import iterate_entries
from hourllava.data.records.record_file import RecordFile, read_records
from hourllava.data.records.sources import verify_media
from hourllava.errors import DataError
from video.clips import write_clip

NAN = float("nan")
QUESTION, ANSWER = "<image>\nWhat colour?", "red"
PLAIN = [{"from": "human", "value": QUESTION}, {"from": "gpt", "value": ANSWER}]
TURNS = {
    "published": {"conversations": PLAIN},
    "json text": {"conversations": json.dumps(PLAIN)},
    "messages": {"messages": [{"role": "user", "content": QUESTION}, {"role": "assistant", "content": ANSWER}]},
    "mixed": {"conversations": [{"from": "User", "value": QUESTION}, {"role": "assistant", "content": ANSWER}]},
    "parts": {
        "messages": [
            {"role": "user", "content": [{"type": "video"}, {"type": "text", "text": "What colour?"}]},
            {"role": "assistant", "content": [{"type": "text", "text": ANSWER}]},
        ]
    },
    "table": {  # as Arrow fills structs up
        "messages": [
            {"role": "user", "content": [{"type": "video", "text": None}, {"type": "text", "text": "What colour?"}]},
            {"role": "assistant", "content": [{"type": "text", "text": ANSWER}], "name": None},
        ],
        "conversations": None,
    },
    "video mark": {"conversations": [{"from": "human", "value": "<video>\nWhat colour?"}, PLAIN[1]]},
}  # fmt: skip
MEDIA = {
    "path": {"video": "a.mp4"},
    "list": {"video": ["a.mp4"]},
    "videos": {"videos": ["a.mp4"]},
    "null image": {"video": "a.mp4", "image": None},
    "NaN image": {"image": NAN, "video": "a.mp4"},
    "empty images": {"images": [], "videos": ["a.mp4"], "image": ""},
}


def run_check(path, **options):
    report = CheckReport()
    return [str(problem) for problem in check_records(path, report, **options)]


@pytest.mark.parametrize(("turns", "media"), [(turns, "path") for turns in TURNS] + [("messages", m) for m in MEDIA])
def test_every_spelling_is_read_alike_by_all(tmp_path, turns, media):
    write_clip(tmp_path / "a.mp4", num_frames=2, fps=2)
    record = {"id": "1", **MEDIA[media], **TURNS[turns]}
    path = tmp_path / "in.json"
    path.write_text(json.dumps([record]))
    assert run_check(path, media=tmp_path) == []
    assert verify_media(path, tmp_path, tmp_path / "report.jsonl", progress=False) == {"found": 1}
    group_records(path, tmp_path / "grouped.json")
    (grouped,) = json.loads((tmp_path / "grouped.json").read_text())
    assert (grouped["video"], grouped["conversations"]) == ("a.mp4", PLAIN)
    chosen = ShardSettings(files=((path, Sampling("all")),), kind="video", media_root=tmp_path)
    assert shard_records(chosen, tmp_path / "shards").num_skipped == 0
    (row,) = MdsDataset(tmp_path / "shards")
    assert (row["video"], row["text"]["video"], row["text"]["conversations"]) == ("a.mp4", "a.mp4", PLAIN)
    assert canonical_record(row["text"]) == row["text"]


@pytest.mark.parametrize(
    "fields",
    [
        {"images": ["a.jpg"]},
        {"image": "a.jpg", "video": None},
        {"image": ["a.jpg"], "videos": []},
        {"conversations": None, "messages": [
            {"role": "user", "content": [{"type": "image", "image": "a.jpg"}, {"text": "What colour?"}]},
            {"role": "assistant", "content": "red"}]},
        {"conversations": None, "messages": [
            {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "a.jpg"}}, "What colour?"]},
            {"role": "assistant", "content": "red"}]},
    ],
)  # fmt: skip
def test_pictures_stay_with_their_questions_when_a_record_is_mended(tmp_path, fields):
    record = {"id": 7, "extra": 1, "conversations": PLAIN, **fields}
    path, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    path.write_text(json.dumps(record))
    list(check_and_fix(path, media=None, fix=out, shown_per_kind=None))
    (mended,) = (entry.value for entry in iterate_entries(out))
    assert set(mended) == {"id", "image", "conversations"}
    assert mended["image"] in ("a.jpg", ["a.jpg"])
    assert mended["conversations"] == PLAIN
    assert run_check(out) == []
    assert RecordFile(path).has_image.tolist() == [True]


@pytest.mark.parametrize("name", ["image_path", "pictures", "frames", "img", "media", "video_file"])
@pytest.mark.parametrize("question", [QUESTION, "What colour?"])
def test_a_picture_in_an_unknown_field_costs_the_record(tmp_path, name, question):
    record = {"id": "1", name: "a.jpg", "conversations": [{"from": "human", "value": question}, PLAIN[1]]}
    path, out = tmp_path / "in.json", tmp_path / "out.json"
    path.write_text(json.dumps([record]))
    with pytest.raises(DataError, match=r"1 of 1 records of .* were dropped"):
        list(check_and_fix(path, media=None, fix=out, shown_per_kind=None))
    assert json.loads(out.read_text()) == []  # without its picture it would teach to make things up


@pytest.mark.parametrize(
    ("record", "words"),
    [
        ({"video": "a.mp4", "image": "a.jpg"}, "both video and image"),
        ({"image": "a.jpg", "images": ["a.jpg"]}, "both image and images"),
        ({"videos": ["a.mp4", "b.mp4"]}, "more than one video"),
        ({"image": {"bytes": "x"}}, "media is no path"),
        ({"image": ["data:image/png;base64,AAAA"]}, "is an address"),
        ({"image": [" "]}, "media is no path"),
        ({"conversations": {"a": 1}}, "conversation is no list"),
        ({"conversations": "[{]"}, "conversation is no list"),
        ({"conversations": ["text"]}, "a turn is no"),
        ({"conversations": [{"from": 1, "value": "x"}]}, "a turn is no"),
        ({"conversations": [{"from": "human", "value": 3}]}, "a turn is no"),
        ({"conversations": [{"role": "user", "content": [{"type": "audio"}]}]}, "a part of a message"),
        ({"video": "b.mp4", "conversations": [{"role": "user", "content": [{"type": "video", "video": "a.mp4"}]}]},
         "messages name other media"),
        ({"messages": PLAIN}, "two conversations"),
        ({"conversations": [PLAIN[0], {"from": "gpt", "value": "\ud83d"}]}, "half a surrogate pair"),
    ],
)  # fmt: skip
def test_what_cannot_be_told_is_a_fault_for_all(tmp_path, record, words):
    record = {"id": "1", "conversations": PLAIN} | record
    with pytest.raises(RecordFault, match=words):
        canonical_record(record)
    path = tmp_path / "in.json"
    path.write_text(json.dumps([record]))
    assert any(words.split(" an address")[0] in line for line in run_check(path)) or "address" in words
    with pytest.raises(DataError, match="no question"):
        group_records(path, tmp_path / "grouped.json")
    chosen = ShardSettings(files=((path, Sampling("all")),), kind="image", media_root=tmp_path)
    assert shard_records(chosen, tmp_path / "shards").num_samples == 0


TEXT_CELLS = ["a.mp4", "\ud83d", "x\ud83d?", "x\ny", "<image>\nWhat?", "user", "gpt", "A. x\nB. y", "[]", "{}"]
PARTS = st.sampled_from(["from", "value", "role", "content", "type", "text", "image", "a"])
SIMPLE = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.sampled_from(TEXT_CELLS)
CELLS = st.recursive(
    SIMPLE, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(PARTS, inner, max_size=4), max_leaves=8
)
NAMES = ["id", "video", "image", "images", "videos", "conversations", "messages", "data_source", "question", "answer"]
NAMES += ["options", "option_a", "option_b", "label", "answer_index", "duration", "evidence", "question_type", "uid"]


@examples(100)
@given(st.dictionaries(st.sampled_from(NAMES), CELLS, max_size=7))
def test_records_of_any_cells_end_in_problems_not_in_exceptions(tmp_path_factory, record):
    path = tmp_path_factory.mktemp("cells") / "in.jsonl"
    path.write_text(json.dumps(record) + "\n", encoding="utf-8")
    lines = []
    with suppress(DataError):  # nothing of it can be used
        lines.extend(check_and_fix(path, media=path.parent, fix=path.with_name("out.jsonl"), shown_per_kind=None))
    assert all(line.isprintable() for line in lines)
    assert run_check(path.with_name("out.jsonl")) == []
    media_named(record)
    with suppress(DataError):  # "names no video"
        verify_media(path, path.parent, path.with_name("report.jsonl"), progress=False)
    RecordFile(path)
    try:
        group_records(path, path.with_name("grouped.json"))
    except DataError:
        return
    values = [turn["value"] for turn in json.loads(path.with_name("grouped.json").read_text())[0]["conversations"]]
    assert not any(value in ("None", "nan") or value.startswith(("{'", "['")) for value in values[1::2]) or (
        record.get("answer") in values or isinstance(record.get("conversations", record.get("messages")), list | str)
    )


@pytest.mark.parametrize("suffix", [".json", ".jsonl", ".JSONL"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_a_byte_order_mark_costs_no_record(tmp_path, suffix, mark):
    records = [{"id": str(k), "video": "a.mp4", "conversations": PLAIN} for k in range(3)]
    lines = [json.dumps(record).encode() for record in records]
    # Joined files have marks before later lines, too.
    text = b"[" + b",\n".join(lines) + b"]" if suffix == ".json" else (b"\n" + mark).join(lines) + b"\n"
    path, out = tmp_path / f"in{suffix}", tmp_path / "out.jsonl"
    path.write_bytes(mark + text)
    assert run_check(path) == []
    list(check_and_fix(path, media=None, fix=out, shown_per_kind=None))
    assert [entry.value for entry in iterate_entries(out)] == records
    file = RecordFile(path)
    assert list(read_records(path, file.spans([0, 1, 2]))) == records
    assert group_records(path, tmp_path / "grouped.json")[0] == "3 questions became 1 records"


@pytest.mark.parametrize("window", [1, 9, 1 << 20])
@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text.replace('"r2"', '"r2', 1),
        lambda text: text.replace('"id": "r2",', '"id" "r2",', 1),
        lambda text: text.replace("r2", "r2\udcff", 1),
        lambda text: text.replace("},\n{", "}" + " " * 999 + ",\n\n{", 1),
        lambda text: text.replace("}]},\n{", "}]}\n{", 1),
        lambda text: text.replace("Ä", "\\ud83d", 1),
    ],
)
@pytest.mark.parametrize("suffix", [".json", ".jsonl"])
def test_numbers_and_damage_are_the_same_for_check_and_shard(tmp_path, monkeypatch, window, damage, suffix):
    monkeypatch.setattr(reading, "WINDOW_CHARACTERS", window)
    lines = [
        json.dumps({"id": f"r{k}", "text": "Ä\U0001f600", "turns": PLAIN}, ensure_ascii=False) for k in range(1, 5)
    ]
    text = "[\n" + ",\n".join(lines) + "\n]\n" if suffix == ".json" else "\n".join(lines)
    path = tmp_path / f"a{suffix}"
    path.write_bytes(damage(text).encode(errors="surrogateescape"))
    entries, file = list(iterate_entries(path)), RecordFile(path)
    read = list(read_records(path, file.spans(range(len(file)))))
    assert len(read) == len(entries)
    for entry, record in zip(entries, read):
        assert isinstance(record, DataError) if entry.fault is not None else record == entry.value


def test_compressed_files_are_named(tmp_path):
    for name in ("a.json.gz", "a.jsonl.zst", "a.zip"):
        (tmp_path / name).write_bytes(b"x")
        for read in (lambda path: list(iterate_entries(path)), RecordFile):
            with pytest.raises(DataError, match="compressed; unpack it first"):
                read(tmp_path / name)


def test_tables_with_null_columns_are_read(tmp_path):
    rows = [
        {"id": "1", "video": None, "image": "a.jpg", "conversations": PLAIN, "question": None, "note": None},
        {"id": "2", "video": "a.mp4", "image": None, "conversations": PLAIN, "question": None, "note": None},
        {"id": None, "video": "b.mp4", "image": None, "conversations": None, "question": "Who?", "answer": "he"},
        {"id": None, "video": "b.mp4", "image": None, "conversations": None, "question": "Why?", "answer": "so"},
    ]
    columns = {name for row in rows for name in row}
    table = pa.Table.from_pylist([{name: row.get(name) for name in columns} for row in rows])
    pq.write_table(table, tmp_path / "a.parquet")
    assert run_check(tmp_path / "a.parquet") == []
    lines = group_records(tmp_path / "a.parquet", tmp_path / "grouped.json")
    assert lines[0] == "3 questions became 2 records"
    assert "a record names no video: 1 records, the first is number 1" in lines


def test_a_table_that_cannot_hold_the_published_form_loses_the_record_not_its_turns(tmp_path):
    rows = [
        {"id": 1, "messages": [{"role": "user", "content": "Q?"}, {"role": "assistant", "content": "a"}]},
        {"id": 2, "messages": [{"role": "user", "content": "Q?"}]},
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    with pytest.raises(DataError, match=r"2 of 2 records of .* were dropped"):
        list(check_and_fix(tmp_path / "a.parquet", media=None, fix=tmp_path / "b.parquet", shown_per_kind=None))
    assert pq.read_table(tmp_path / "b.parquet").num_rows == 0


def test_missing_values_are_left_out():
    record = canonical_record({"id": "1", "video": "a.mp4", "x": None, "y": math.nan, "conversations": PLAIN, "z": 0})
    assert record == {"id": "1", "video": "a.mp4", "conversations": PLAIN, "z": 0}
