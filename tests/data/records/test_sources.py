"""`data sources`: the table, and media verified against records."""

import json
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from hourllava.data.batches.lengths import load_processor
from hourllava.data.batches.samples import RowEncoder
from hourllava.data.mds.reader import MdsDataset
from hourllava.data.prepare.mixtures import Sampling
from hourllava.data.prepare.shard import ShardSettings, shard_records
from hourllava.data.records import sources
from hourllava.data.records.check import CheckReport, check_records
from hourllava.data.records.media import find_media
from hourllava.data.records.sources import data_sources, describe_sources, source_lines, verify_media
from hourllava.errors import DataError, PartlyDoneError
from video.clips import write_clip


def write_records(path, names, **more):
    rows = [{"video": name, "question": "Q?", "answer": "a", **more} for name in names]
    path.write_text("\n".join(json.dumps(row) for row in rows))
    return path


def test_the_table_names_every_source_and_counts_its_files(tmp_path):
    (tmp_path / "VideoMarathon/videos/panda").mkdir(parents=True)
    (tmp_path / "VideoMarathon/videos/panda/a.mp4").touch()
    lines = source_lines(tmp_path)
    assert len(lines) == 1 + len(data_sources()) == 9
    (panda,) = (line for line in lines if line.startswith("Panda-70M"))
    assert panda.split()[1:3] == ["1", str(tmp_path / "VideoMarathon/videos/panda")]
    folders = {source.folder for source in data_sources()}
    assert {
        f"VideoMarathon/videos/{name}" for name in ["activitynet", "ego4d", "moviechat", "panda", "youcook2"]
    } <= folders


def test_media_are_found_missing_unreadable_or_of_another_length(tmp_path):
    media = tmp_path / "videos"
    media.mkdir()
    for name in ("good.mp4", "long.mp4"):
        write_clip(media / name, num_frames=50 if name == "good.mp4" else 250, fps=10)
    (media / "bad.mp4").write_bytes(b"no video" * 100)
    (media / "empty.mp4").touch()
    Image.new("RGB", (4, 4)).save(media / "a.png")
    (media / "b.png").write_bytes(b"no picture")
    names = ["good.mp4", "long.mp4", "bad.mp4", "empty.mp4", "gone.mp4", "a.png", "b.png", "good.mp4"]
    records = write_records(tmp_path / "a.jsonl", names, duration_seconds=5.0)
    report = tmp_path / "report.jsonl"
    counts = verify_media(records, media, report, progress=False)
    assert counts == {"found": 2, "duration mismatch": 1, "unreadable": 3, "missing": 1}
    states = {state["media"]: state for state in map(json.loads, report.read_text().splitlines())}
    assert states["long.mp4"]["status"] == "duration mismatch"
    assert states["long.mp4"]["detail"] == "25.0 s, the records say 5.0 s"
    assert {name for name, state in states.items() if state["status"] == "unreadable"} == {
        "bad.mp4", "empty.mp4", "b.png"
    }  # fmt: skip


def test_a_second_run_opens_only_what_changed_or_was_not_reached(tmp_path, monkeypatch):
    names = [f"{k}.mp4" for k in range(4)]
    for name in names:
        write_clip(tmp_path / name, num_frames=10, fps=10)
    records, report = write_records(tmp_path / "a.jsonl", names), tmp_path / "report.jsonl"
    verify_media(records, tmp_path, report, progress=False)
    whole = report.read_bytes()
    opened = []
    real = sources.probe
    monkeypatch.setattr(sources, "probe", lambda path: opened.append(path.name) or real(path))
    report.write_bytes(whole[: len(whole) * 2 // 3])  # stopped within the third line
    verify_media(records, tmp_path, report, progress=False)
    assert sorted(opened) == ["2.mp4", "3.mp4"]
    assert report.read_bytes() == whole
    opened.clear()
    write_clip(tmp_path / "1.mp4", num_frames=20, fps=10)
    verify_media(records, tmp_path, report, progress=False)
    assert opened == ["1.mp4"]


def test_what_is_wrong_is_an_error_after_the_lines(tmp_path):
    write_clip(tmp_path / "a.mp4", num_frames=10, fps=10)
    records = write_records(tmp_path / "a.jsonl", ["a.mp4"])
    assert next(describe_sources(tmp_path, records, tmp_path, None, 1)).startswith("1 found, 0 missing")
    write_records(records, ["a.mp4", "b.mp4"])
    with pytest.raises(PartlyDoneError, match="1 of 2 files"):
        list(describe_sources(tmp_path, records, tmp_path, None, 1))
    with pytest.raises(DataError, match="no folder"):
        list(describe_sources(tmp_path, records, None, None, 1))
    records.write_text('{"id": "x"}')
    with pytest.raises(DataError, match="names no video"):
        list(describe_sources(tmp_path, records, tmp_path, None, 1))


def conversation(**fields):
    turns = [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "x"}]
    return {"id": repr(fields), "conversations": turns, **fields}


def test_pictures_are_decoded_as_sharding_does(tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    for name in ("good.jpg", "good.png", "good.webp"):
        Image.fromarray(noise).save(tmp_path / name)
        data = (tmp_path / name).read_bytes()
        (tmp_path / name.replace("good", "cut")).write_bytes(data[: len(data) // 2])
    write_png_header(tmp_path / "huge.png", 20_000, 20_000)
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff" + bytes(200))
    (tmp_path / "text.jpg").write_text("<html>404</html>")
    names = sorted(path.name for path in tmp_path.iterdir())
    records = tmp_path / "a.json"
    records.write_text(json.dumps([conversation(image=name) for name in names]))
    verify_media(records, tmp_path, tmp_path / "report.jsonl", progress=False)
    found = {state["media"] for state in map(json.loads, (tmp_path / "report.jsonl").read_text().splitlines())
             if state["status"] == "found"}  # fmt: skip
    chosen = ShardSettings(files=((records, Sampling("all")),), kind="image", media_root=tmp_path)
    shard_records(chosen, tmp_path / "shards")
    assert found == {row["text"]["image"] for row in MdsDataset(tmp_path / "shards")}
    assert found == {"good.jpg", "good.png", "good.webp"}


def write_png_header(path, width, height):
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    data = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + data)


@pytest.mark.parametrize("place", ["panda/c.mp4", "c.mp4"])
def test_media_lie_in_their_sources_folder_or_beside_it_for_all(tmp_path, place):
    root = tmp_path / "videos"
    path = root / place
    path.parent.mkdir(parents=True)
    write_clip(path, num_frames=4, fps=2)
    records = tmp_path / "a.json"
    records.write_text(json.dumps([conversation(data_source="panda", video="c.mp4")]))
    assert list(check_records(records, CheckReport(), root)) == []
    assert verify_media(records, root, tmp_path / "report.jsonl", progress=False) == {"found": 1}
    chosen = ShardSettings(files=((records, Sampling("all")),), kind="video", media_root=root)
    shard_records(chosen, tmp_path / "shards")
    (row,) = MdsDataset(tmp_path / "shards")
    assert row["video"] == place
    encode = RowEncoder(load_processor("nano"), root)
    assert encode.lengths(row) == encode.lengths({**row, "video": "c.mp4"})  # a row made of the record as it is


def test_the_sources_folder_comes_first(tmp_path):
    (tmp_path / "panda").mkdir()
    for name in ("c.mp4", "panda/c.mp4", "panda/d.mp4"):
        (tmp_path / name).touch()
    assert find_media("c.mp4", tmp_path, "panda") == "panda/c.mp4"
    assert find_media("panda/d.mp4", tmp_path, "panda") == "panda/d.mp4"
    assert find_media("c.mp4", tmp_path, "ego4d") == find_media("c.mp4", tmp_path) == "c.mp4"
    assert find_media("d.mp4", tmp_path) is None
    for source in ("../x", "/etc", "a\0", "x" * 300, 3, None, ""):  # no folder's name: passed by
        assert find_media("c.mp4", tmp_path, source) == "c.mp4"


NAMES = ["Screenshot 3.04\u202fPM.mp4", "日本\u3000語.mp4", "\U0001f468\u200d\U0001f469.mp4", "nbsp\u00a0x.mp4"]
NAMES += ["tab\tx.mp4", "line\nx.mp4", "e\u0301.mp4", "\u200f.mp4", " x .mp4", "-x.mp4", "~.mp4", "a:b?.mp4"]
NO_NAMES = ["a\0.mp4", "\ud83d.mp4", "x" * 5000, "y" * 300 + ".mp4", "../a.mp4", "/a.mp4", "a/../../b.mp4", "."]


def test_names_of_files_in_any_script(tmp_path):
    (tmp_path / "m").mkdir()
    for name in NAMES:
        (tmp_path / "m" / name).write_bytes(b"x")
    records = tmp_path / "a.json"
    records.write_text(json.dumps([conversation(video=name) for name in [*NAMES, *NO_NAMES]]))
    problems = list(check_records(records, CheckReport(), tmp_path / "m"))
    assert [problem.number for problem in problems] == list(range(len(NAMES) + 1, len(NAMES) + len(NO_NAMES) + 1))
    assert max(len(str(problem)) for problem in problems) < 300
    chosen = ShardSettings(files=((records, Sampling("all")),), kind="video", media_root=tmp_path / "m")
    summary = shard_records(chosen, tmp_path / "shards")
    assert (summary.num_samples, summary.num_skipped) == (len(NAMES), len(NO_NAMES))
    assert all("\n" not in json.loads(line)["reason"] for line in summary.ledger.read_text().splitlines())
    counts = verify_media(records, tmp_path / "m", tmp_path / "report.jsonl", progress=False)
    assert counts == {"unreadable": len(NAMES), "missing": len(NO_NAMES)}


def test_records_whose_media_cannot_be_told_are_counted(tmp_path):
    write_clip(tmp_path / "a.mp4", num_frames=4, fps=2)
    records = tmp_path / "a.jsonl"
    good = conversation(video="a.mp4")
    records.write_text("\n".join([json.dumps(good), "{broken", json.dumps(conversation(video=3)), "[]"]))
    lines = list(describe_sources(tmp_path, records, tmp_path, None, 1))
    assert "2 records cannot be read; hourllava data check tells more" in lines
    assert "1 records name no media; hourllava data check tells more" in lines
