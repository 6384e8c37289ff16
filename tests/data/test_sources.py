"""`data sources`: the table, and media verified against records."""

import json

import pytest
from PIL import Image

from hourllava.data import sources
from hourllava.data.sources import data_sources, describe_sources, source_lines, verify_media
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
