"""The cache of shards: fetched once by all processes of a machine, tried again, not larger than its limit."""

import bz2
import errno
import gzip
import json
import multiprocessing
import os
import pwd
import random
import struct
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

import pytest

from data.counted_store import ROOT_VARIABLE, CountedStore, fetched, read_all
from data.shard_rows import video_rows, write
from hourllava import locks
from hourllava.data.mds import cache as mds_cache
from hourllava.data.mds import remote
from hourllava.data.mds.reader import MdsDataset
from hourllava.errors import ConfigError, DataError

LIMIT = "HOURLLAVA_SHARD_CACHE_BYTES"


@pytest.fixture(autouse=True)
def no_pause(monkeypatch):
    monkeypatch.setattr(remote, "_PAUSE_SECONDS", 0.0)
    monkeypatch.setattr(mds_cache, "_said", set())


@pytest.fixture
def store(tmp_path, monkeypatch):
    """A store with 12 rows in shards of one or two rows, behind counted://a."""
    root = tmp_path / "store"
    monkeypatch.setenv(ROOT_VARIABLE, str(root))
    monkeypatch.setattr(CountedStore, "failures", [])
    write(root / "a", video_rows(12), size_limit_bytes=400, hashes=["sha1"])
    return root


def shard_sizes(folder):
    return sorted(path.stat().st_size for path in folder.glob("*.mds"))


@pytest.mark.slow
def test_several_processes_fetch_each_shard_once(store, tmp_path):
    with ProcessPoolExecutor(4, multiprocessing.get_context("spawn")) as pool:
        found = list(pool.map(read_all, ["counted://a"] * 4, [tmp_path / "cache"] * 4))
    assert found == [list(range(12))] * 4
    shards = [name for name in fetched(store) if name.endswith(".mds")]
    assert len(shards) == len(set(shards)) == len(shard_sizes(store / "a"))
    assert {path.suffix for path in (tmp_path / "cache").iterdir()} == {".mds"}


def test_threads_fetch_each_shard_once_without_flock_too(store, tmp_path, monkeypatch):
    monkeypatch.setattr(locks, "try_flock", lambda *_: None)
    monkeypatch.setattr(mds_cache, "try_flock", lambda *_: None)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(read_all, ["counted://a"] * 4, [tmp_path / "cache"] * 4))
    assert found == [list(range(12))] * 4
    shards = [name for name in fetched(store) if name.endswith(".mds")]
    assert len(shards) == len(set(shards))


class StoreError(Exception):
    """As stores' packages raise: of no family that we know."""


@pytest.mark.parametrize(
    "error", [ConnectionResetError("reset"), TimeoutError("slow"), StoreError("503"), OSError(5, "I/O")]
)
@pytest.mark.parametrize("times", [1, 2])
def test_what_fails_for_a_moment_is_tried_again(error, times, store, tmp_path):
    CountedStore.failures = [error] * times
    dataset = MdsDataset("counted://a", cache_folder=tmp_path / "cache")  # the index
    CountedStore.failures = [error] * times
    assert dataset[0]["text"]["id"] == 0
    assert fetched(store) == ["index.json"] * (times + 1) + ["shard.00000.mds"] * (times + 1)


@pytest.mark.parametrize(
    ("error", "num_tries"),
    [
        (ConnectionResetError("reset\nby peer"), 3), (StoreError(""), 3), (FileNotFoundError("x"), 1),
        (PermissionError(13, "Permission denied"), 1), (OSError(errno.ENOSPC, "No space left"), 1),
    ],
)  # fmt: skip
def test_what_goes_on_failing_is_one_line(error, num_tries, store, tmp_path):
    dataset = MdsDataset("counted://a", cache_folder=tmp_path / "cache")
    CountedStore.failures = [error] * 9
    with pytest.raises(DataError, match=r"counted://a/shard\.00000\.mds") as caught:
        dataset[0]
    assert "\n" not in str(caught.value)
    assert 9 - len(CountedStore.failures) == num_tries
    assert list((tmp_path / "cache").iterdir()) == []
    CountedStore.failures = [error] * 9
    with pytest.raises(DataError) as caught:
        MdsDataset("counted://a")
    assert "\n" not in str(caught.value)


def test_lengths_that_cannot_be_read_are_no_missing_lengths(store, tmp_path):
    dataset = MdsDataset("counted://a", cache_folder=tmp_path / "cache")
    assert dataset.lengths_settings() is None
    CountedStore.failures = [StoreError("503")] * 9
    with pytest.raises(DataError, match="503"):
        dataset.lengths_settings()


def test_the_cache_stays_below_its_limit_and_the_oldest_go_first(store, tmp_path, monkeypatch, caplog):
    cache, sizes = tmp_path / "cache", shard_sizes(store / "a")
    monkeypatch.setenv(LIMIT, str(3 * sizes[-1]))
    monkeypatch.setattr("hourllava.data.mds.reader._OPEN_CACHED_SHARDS", 1)
    dataset = MdsDataset("counted://a", cache_folder=cache)
    for _ in range(2):
        for k in range(12):
            assert dataset[k]["text"]["id"] == k
            assert sum(path.stat().st_size for path in cache.iterdir()) <= 3 * sizes[-1]
            time.sleep(0.002)
    assert "old shards go" in caplog.text
    assert caplog.text.count("WARNING") == 1
    before = len(fetched(store))
    assert dataset[11]["text"]["id"] == 11  # the newest is still there
    assert len(fetched(store)) == before


def test_a_shard_in_use_is_not_removed(store, tmp_path, monkeypatch, caplog):
    cache, sizes = tmp_path / "cache", shard_sizes(store / "a")
    holder = MdsDataset("counted://a", cache_folder=cache)
    assert holder[0]["text"]["id"] == 0
    (held,) = cache.iterdir()
    monkeypatch.setenv(LIMIT, str(sizes[-1]))
    other = MdsDataset("counted://a", cache_folder=cache)
    for k in range(3, 8):
        other[k]
        assert held.exists()
    assert "have all of its shards open" in caplog.text
    del holder, other  # no cycle keeps them: what they held is free at once
    MdsDataset("counted://a", cache_folder=cache)[11]
    assert not held.exists()


def test_descriptors_go_with_the_data_set(tmp_path):
    write(tmp_path / "a", video_rows(12), size_limit_bytes=400)
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    dataset = MdsDataset(tmp_path / "a")
    assert len(list(dataset)) == 12
    assert len(os.listdir("/proc/self/fd")) > before  # noqa: PTH208
    del dataset
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208


def test_a_file_system_that_cannot_lock_loses_no_shard(store, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(mds_cache, "try_flock", lambda *_: None)
    monkeypatch.setenv(LIMIT, str(shard_sizes(store / "a")[-1]))
    assert read_all("counted://a", tmp_path / "cache") == list(range(12))
    assert len(list((tmp_path / "cache").iterdir())) == len(shard_sizes(store / "a"))
    assert "cannot lock: nothing is removed" in caplog.text


def test_leftovers_of_killed_processes_go(store, tmp_path, monkeypatch):
    cache = tmp_path / "cache"
    cache.mkdir()
    (cache / "old.mds.1-a.tmp").write_bytes(b"x" * 100)
    os.utime(cache / "old.mds.1-a.tmp", (1, 1))
    (cache / "new.mds.1-a.tmp").write_bytes(b"x" * 100)
    read_all("counted://a", cache)
    assert {path.name for path in cache.iterdir() if path.suffix == ".tmp"} == {"new.mds.1-a.tmp"}


def test_what_was_cut_short_in_the_cache_is_fetched_again(store, tmp_path):
    dataset = MdsDataset("counted://a", cache_folder=tmp_path / "cache")
    dataset[0]
    (path,) = (tmp_path / "cache").iterdir()
    del dataset
    path.write_bytes(b"")
    assert read_all("counted://a", tmp_path / "cache") == list(range(12))


@pytest.mark.parametrize("value", ["-1", "lots", "1e9", "5.0"])
def test_a_limit_that_is_none(value, store, tmp_path, monkeypatch):
    monkeypatch.setenv(LIMIT, value)
    with pytest.raises(ConfigError, match=LIMIT):
        read_all("counted://a", tmp_path / "cache")


def test_a_shard_larger_than_the_cache_is_refused(store, tmp_path, monkeypatch):
    monkeypatch.setenv(LIMIT, "100")
    with pytest.raises(DataError, match=f"bytes, the shard cache 100; raise {LIMIT}"):
        read_all("counted://a", tmp_path / "cache")
    assert not [path for path in (tmp_path / "cache").iterdir() if path.suffix == ".mds"]


def test_a_user_without_a_home(store, tmp_path, monkeypatch):
    def no_user(_):
        raise KeyError("no such user")

    monkeypatch.setattr(pwd, "getpwuid", no_user)
    for name in ("HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    assert read_all(store / "a", None) == list(range(12))  # nothing is to be cached
    with pytest.raises(ConfigError, match="set XDG_CACHE_HOME"):
        read_all("counted://a", None)


PROMISED = 50_000_000


@pytest.mark.parametrize("start", [b"", struct.pack("<5I", 3, 20, 30, 20, PROMISED), b"\xff" * 20])
@pytest.mark.parametrize("remote", [False, True])
def test_a_bomb_whose_index_promises_its_size_leaves_nothing(start, remote, tmp_path, monkeypatch):
    """Its first bytes tell that it is no shard; it is not unpacked to its end."""
    root = tmp_path / "store"
    monkeypatch.setenv(ROOT_VARIABLE, str(root))
    folder = write(root / "a", video_rows(3))
    data = gzip.compress(start + bytes(PROMISED - len(start)), compresslevel=1)
    index = json.loads((folder / "index.json").read_text())
    (shard,) = index["shards"]
    shard["compression"] = "gz"
    shard["raw_data"] |= {"bytes": PROMISED}
    shard["zip_data"] = {"basename": "shard.00000.mds.gz", "bytes": len(data), "hashes": {}}
    (folder / "shard.00000.mds.gz").write_bytes(data)
    (folder / "index.json").write_text(json.dumps(index))
    largest = []

    def copy_at_most(*_):
        largest.append("copied")

    monkeypatch.setattr(mds_cache, "copy_at_most", copy_at_most)
    with pytest.raises(DataError, match="write the shard again"):
        read_all("counted://a" if remote else folder, tmp_path / "cache")
    assert not largest
    assert list((tmp_path / "cache").iterdir()) == []


@pytest.mark.parametrize("kind", ["gz", "bz2"])
@pytest.mark.parametrize("seed", range(6))
def test_damaged_compression_is_one_line(kind, seed, tmp_path):
    folder = write(tmp_path / "a", video_rows(300))
    data = bytearray((gzip if kind == "gz" else bz2).compress((folder / "shard.00000.mds").read_bytes()))
    draws = random.Random(seed)
    for _ in range(4):
        data[draws.randrange(20, len(data))] ^= 1 << draws.randrange(8)
    index = json.loads((folder / "index.json").read_text())
    index["shards"][0] |= {
        "compression": kind, "zip_data": {"basename": f"s.{kind}", "bytes": len(data), "hashes": {}},
    }  # fmt: skip
    index["shards"][0]["raw_data"]["hashes"] = {}
    (folder / f"s.{kind}").write_bytes(data)
    (folder / "index.json").write_text(json.dumps(index))
    with pytest.raises(DataError) as caught:
        read_all(folder, tmp_path / "cache")
    assert "\n" not in str(caught.value)


def test_waiting_for_a_process_that_hangs_ends(store, tmp_path, monkeypatch):
    monkeypatch.setattr(mds_cache, "_FETCH_WAIT_SECONDS", 0.05)
    cache = tmp_path / "cache"
    cache.mkdir()
    dataset = MdsDataset("counted://a", cache_folder=cache)
    real = mds_cache.lock_folder
    monkeypatch.setattr(mds_cache, "lock_folder", lambda folder, name, **options: real(folder, "same.lock", **options))
    with locks.lock_folder(cache, "same.lock"):
        assert dataset[0]["text"]["id"] == 0
