"""What a server keeps: whole or not at all, found by its owner, without names that a client chose."""

import dataclasses
import errno
import hashlib
import os
import resource
import shutil
import signal
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forking import run_python
from hourllava.errors import DataError, StorageError
from hourllava.serving import store as store_module
from hourllava.serving.records import MemoryRecord, MemoryRecords
from hourllava.serving.store import FileRecord, Store, shown_filename

MP4 = b"\x00\x00\x00\x18ftypmp42" + bytes(range(256))


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store", min_free_bytes=0)


def upload(store, data=MP4, name="lecture.mp4", owner=""):
    with store.new_upload(name, owner=owner) as coming:
        for start in range(0, len(data), 100):
            coming.write(data[start : start + 100])
        return coming.commit()


def memory(name="lecture.mp4", owner="", **fields):
    facts = {
        **{"id": MemoryRecords.new_id(), "file_id": None, "media_path": None, "name": name, "digest": "sha256:0"},
        **{"fps": 1.0, "start_seconds": 0.0, "end_seconds": None, "created_at": 5, "owner": owner},
    }
    return MemoryRecord(**{**facts, **fields})


def left_in(store):
    """All that lies in the store, besides its three folders."""
    return sorted(path for path in store.folder.rglob("*") if path.parent != store.folder)


def test_an_upload_is_kept_whole_with_the_digest_of_all_its_bytes(store):
    record = upload(store)
    assert store.get(record.id) == record
    assert store.path(record.id).read_bytes() == MP4
    assert record.digest == f"sha256:{hashlib.sha256(MP4).hexdigest()}"
    assert (record.bytes, record.filename, record.kind, record.purpose) == (
        len(MP4),
        "lecture.mp4",
        "video",
        "user_data",
    )
    assert abs(record.created_at - time.time()) < 60
    folder = store.uploads / record.id
    assert left_in(store) == sorted([folder, folder / "content", folder / "record.json"])


def test_an_upload_that_is_not_committed_is_nothing(store):
    with store.new_upload("a.mp4") as coming:
        coming.write(MP4)
        assert store.list() == []
    assert left_in(store) == []


def test_a_committed_upload_outlives_what_ends_after_it(store):
    with store.new_upload("a.mp4") as coming:
        record = coming.commit()
        coming.abort()
    assert store.list() == [record]


def test_ids_of_equal_files_differ(store):
    assert upload(store).id != upload(store).id


@pytest.mark.parametrize(
    "bad", ["", "file-", "file-" + "g" * 32, "file-" + "0" * 31, "../x", "file-" + "0" * 32 + "/.."]
)
def test_what_is_no_id_finds_nothing(store, bad):
    assert store.get(bad) is None
    assert store.delete(bad) is False
    assert store.memories.get(bad.replace("file", "mem")) is None
    assert store.memories.delete(bad.replace("file", "mem")) is False
    with pytest.raises(DataError, match="no id"):
        store.path(bad)


def test_an_id_that_is_unknown_finds_nothing(store):
    assert store.get("file-" + "0" * 32) is None
    assert store.delete("file-" + "0" * 32) is False
    assert store.memories.get("mem-" + "0" * 32) is None
    assert store.memories.delete("mem-" + "0" * 32) is False


def test_lists_are_of_one_owner_the_oldest_first(store):
    records = [upload(store, owner=owner) for owner in ("ann", "bob", "ann", "")]
    assert store.list() == records
    assert store.list("ann") == [records[0], records[2]]
    assert store.list("") == records[3:]
    memories = [memory(owner=owner) for owner in ("ann", "bob", "ann")]
    for each in memories:
        store.memories.add(each)
    assert store.memories.list() == memories
    assert store.memories.list("ann") == [memories[0], memories[2]]


def test_a_deleted_file_is_gone_and_can_be_read_on(store):
    record = upload(store)
    with store.path(record.id).open("rb") as reading:
        assert store.delete(record.id)
        assert reading.read() == MP4
    assert store.get(record.id) is None
    assert left_in(store) == []


@given(st.text())
def test_names_are_only_shown(name):
    shown = shown_filename(name)
    assert 0 < len(shown) <= 255
    assert len(shown.splitlines()) == 1
    assert "/" not in shown
    shown.encode()


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("a/b\\c.mp4", "c.mp4"),
        ("../../etc/passwd", "passwd"),
        ("", "upload"),
        ("..", ".."),
        ("a\nb", "a\\nb"),
        ("/", "upload"),
    ],
)
def test_hostile_names(store, name, shown):
    record = upload(store, name=name)
    assert record.filename == shown
    assert store.path(record.id).parent == store.uploads / record.id


@pytest.mark.parametrize(
    ("name", "data", "kind"),
    [
        ("a.mp4", MP4, "video"),
        ("a.SRT", b"1\n00:00:01,000 --> 00:00:02,000\nHello\n", "subtitles"),
        ("a.vtt", b"WEBVTT\n", "subtitles"),
        ("a.txt", "Grüße".encode(), "other"),
        ("a.mp4", b"#EXTM3U\n/etc/passwd\n", "other"),
        ("a.mp4", "ü".encode() * 5000, "other"),
        ("a.mp4", b"x" + "ü".encode() * 5000, "other"),
        ("a.mp4", b"", "other"),
        ("a", b"\xff\xd8\xff\xe0", "video"),
    ],
)
def test_kinds_of_files(store, name, data, kind):
    assert upload(store, data, name).kind == kind


def test_a_memory_record_gives_the_video_that_was_watched(store):
    record = upload(store)
    part = memory(file_id=record.id, digest=record.digest, fps=2.0, start_seconds=3.0, end_seconds=9.0)
    store.memories.add(part)
    assert store.memories.get(part.id) == part
    video = part.video(store.path(record.id))
    assert (video.path, video.digest) == (str(store.path(record.id)), record.digest)
    assert (video.fps, video.start_seconds, video.end_seconds) == (2.0, 3.0, 9.0)
    assert part.video(None).path == ""
    assert store.memories.delete(part.id)
    assert store.memories.list() == []


# ------------------------------------------------------------------------------------------------------------- faults


def full_disk(*_, **__):
    raise OSError(errno.ENOSPC, "No space left on device", "/secret/path")


@pytest.mark.parametrize("where", ["mkdir", "flush", "rename"])
def test_a_full_disk_leaves_nothing_half_and_names_no_path(store, monkeypatch, where):
    kept = upload(store)
    if where == "mkdir":
        monkeypatch.setattr(Path, "mkdir", full_disk)
    elif where == "flush":
        monkeypatch.setattr(store_module, "flush_to_disk", full_disk)
    elif where == "rename":
        monkeypatch.setattr(Path, "rename", full_disk)
    with pytest.raises(StorageError, match="No space left") as raised:
        upload(store)
    assert "secret" not in str(raised.value)
    monkeypatch.undo()
    assert store.list() == [kept]
    assert len(left_in(store)) == 3


def test_a_real_limit_of_file_size_is_a_full_disk(store):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))
    try:
        with pytest.raises(StorageError, match="cannot write"):
            upload(store, bytes(100_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)
    assert left_in(store) == []


def test_uploads_leave_bytes_free(tmp_path, monkeypatch):
    monkeypatch.setattr(store_module, "_FREE_CHECK_BYTES", 1000)
    free = 10_000
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(0, 0, free))
    store = Store(tmp_path / "store", min_free_bytes=9000)
    store.check_room(1000)
    with pytest.raises(StorageError, match="disk is full"):
        store.check_room(1001)
    with store.new_upload("a.mp4") as coming:
        coming.write(bytes(999))
        free = 9500
        with pytest.raises(StorageError, match="disk is full"):
            coming.write(bytes(501))
    free = 8999
    with pytest.raises(StorageError, match="disk is full"):
        store.new_upload("a.mp4")
    assert left_in(store) == []


def test_a_record_that_cannot_be_written_leaves_the_old_one(store, monkeypatch):
    record = memory(name="old")
    store.memories.add(record)
    monkeypatch.setattr(Path, "write_text", full_disk)
    with pytest.raises(StorageError):
        store.memories.add(dataclasses.replace(record, name="new"))
    assert store.memories.list() == [record]
    assert len(left_in(store)) == 1


CODE = """
import os, signal, sys
from pathlib import Path
from hourllava.serving import store as module
from hourllava.serving.store import Store
where, folder = sys.argv[1:]
def die(*_, **__): os.kill(os.getpid(), signal.SIGKILL)
store = Store(Path(folder), min_free_bytes=0)
if where == "rename": Path.rename = die
coming = store.new_upload("a.mp4")
coming.write(bytes(5000))
if where == "write": die()
record = coming.commit()
if where == "delete":
    module.shutil.rmtree = die
    store.delete(record.id)
die()
"""


@pytest.mark.parametrize(("where", "num_kept"), [("write", 0), ("rename", 0), ("delete", 0), ("after", 1)])
def test_a_killed_server_leaves_nothing_half(tmp_path, where, num_kept):
    folder = tmp_path / "store"
    assert run_python(CODE, where, folder).returncode == -signal.SIGKILL
    store = Store(folder, min_free_bytes=0)
    assert len(store.list()) == num_kept
    assert len(left_in(store)) == 3 * num_kept


def test_another_server_leaves_an_upload_that_is_coming_in(store):
    with store.new_upload("a.mp4") as coming:
        coming.write(MP4)
        other = Store(store.folder, min_free_bytes=0)
        record = coming.commit()
    assert other.list() == [record]
    assert other.path(record.id).read_bytes() == MP4


def test_old_temporary_records_are_removed_at_the_start(store):
    records = store.folder / "records"
    old, new = records / "mem-1.json.1-ab.tmp", records / "mem-2.json.1-ab.tmp"
    for path in (old, new):
        path.write_text("{")
    os.utime(old, (time.time() - 4000,) * 2)
    Store(store.folder)
    assert left_in(store) == [new]


def test_records_are_plain_data():
    names = {field.name for field in dataclasses.fields(FileRecord)}
    assert names == {"id", "filename", "bytes", "created_at", "purpose", "digest", "owner", "kind"}
