"""Locks, also where a file system cannot lock."""

import errno
import fcntl
import json
import os
import subprocess
import sys
import threading

import pytest

from hourllava import locks
from hourllava.data.mds.reader import MdsDataset
from hourllava.data.mds.writer import ShardWriter
from hourllava.errors import DataError
from hourllava.locks import LOCK_NAME, lock_folder


@pytest.fixture(params=["flock", errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL])
def file_system(request, monkeypatch):
    """With flock, and without: as different file systems report it."""

    def refuse(descriptor, operation):
        raise OSError(request.param, os.strerror(request.param))

    monkeypatch.setattr(locks, "_without_flock", False)
    if request.param != "flock":
        monkeypatch.setattr(fcntl, "flock", refuse)
    return request.param


def test_one_at_a_time_and_nothing_is_left(file_system, tmp_path):
    with lock_folder(tmp_path):
        with (
            pytest.raises(DataError, match="is being written by another process") as caught,
            lock_folder(tmp_path, wait_seconds=0),
        ):
            pass
        assert str(os.getpid()) in str(caught.value)
        assert "\n" not in str(caught.value)
        with lock_folder(tmp_path, "other.lock", wait_seconds=0):
            pass
    assert list(tmp_path.iterdir()) == []
    with lock_folder(tmp_path, wait_seconds=0):
        pass


def test_threads_take_turns(file_system, tmp_path):
    inside, most = [0], [0]

    def work():
        for _ in range(5):
            with lock_folder(tmp_path, wait_seconds=30):
                inside[0] += 1
                most[0] = max(most[0], inside[0])
                inside[0] -= 1

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1]


def test_a_lock_that_is_freed_while_it_is_looked_at_is_taken(tmp_path, monkeypatch):
    plain, failed = os.open, []

    def opened(path, flags, *mode):
        if len(failed) < 2 and os.fspath(path).endswith(LOCK_NAME):
            failed.append(FileNotFoundError if failed else FileExistsError)
            raise failed[-1]
        return plain(path, flags, *mode)

    monkeypatch.setattr(os, "open", opened)
    with lock_folder(tmp_path, wait_seconds=10):
        assert len(failed) == 2
        assert (tmp_path / LOCK_NAME).exists()


HOLDER = """
import fcntl, os, sys
from pathlib import Path
if sys.argv[2] != "flock":
    def refuse(*_): raise OSError(int(sys.argv[2]), "no locks")
    fcntl.flock = refuse
from hourllava.locks import lock_folder
with lock_folder(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_killed_holder_frees_the_lock(file_system, tmp_path):
    command = [sys.executable, "-c", HOLDER, str(tmp_path), str(file_system)]
    holder = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert holder.stdout.readline() == b"held\n"
    with pytest.raises(DataError, match=f"{holder.pid} on"), lock_folder(tmp_path, wait_seconds=0):
        pass
    holder.kill()
    holder.communicate()
    assert (tmp_path / LOCK_NAME).exists()
    with lock_folder(tmp_path, wait_seconds=1):
        pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", ["", "elsewhere boot space 1 5", "nonsense"])
def test_a_lock_held_on_another_machine_is_not_taken_over(content, tmp_path, monkeypatch):
    monkeypatch.setattr(locks, "_without_flock", False)
    monkeypatch.setattr(locks, "try_flock", lambda *_: None)
    (tmp_path / LOCK_NAME).write_text(content)
    with (
        pytest.raises(DataError, match=r"if that process has ended, remove .*\.lock"),
        lock_folder(tmp_path, wait_seconds=0.1),
    ):
        pass
    assert (tmp_path / LOCK_NAME).read_text() == content


def test_shards_are_written_without_flock_too(file_system, tmp_path, monkeypatch):
    monkeypatch.setattr(locks, "WAIT_SECONDS", 0)
    with ShardWriter(tmp_path / "a", {"t": "str"}) as writer:
        writer.write({"t": "x"})
        with pytest.raises(DataError, match="another process"):
            ShardWriter(tmp_path / "a", {"t": "str"})
    assert [row["t"] for row in MdsDataset(tmp_path / "a")] == ["x"]
    assert not (tmp_path / "a" / LOCK_NAME).exists()


@pytest.mark.parametrize("change", [{"skipped": -1}, {"skipped": "many"}, {"ledger_bytes": None}, {"shards": {}}])
def test_a_damaged_progress_file_is_an_error_of_one_line(change, tmp_path):
    def interrupted():
        with ShardWriter(tmp_path, {"t": "str"}, size_limit_bytes=400) as writer:
            for _ in range(20):
                writer.write({"t": "x" * 90})
            raise KeyError

    with pytest.raises(KeyError):
        interrupted()
    path = tmp_path / "progress.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(DataError, match=r"progress\.json") as caught:
        ShardWriter(tmp_path, {"t": "str"}, size_limit_bytes=400)
    assert "\n" not in str(caught.value)
