"""Shards behind an address, and compressed ones: fetched once, whole, checked."""

import bz2
import gzip
import json
import sys

import fsspec
import pytest

from data.shard_rows import contents, video_rows, write
from hourllava.data.mds.reader import MdsDataset
from hourllava.errors import DataError


@pytest.fixture(autouse=True)
def no_pause(monkeypatch):
    monkeypatch.setattr("hourllava.data.mds.remote._PAUSE_SECONDS", 0.0)
    monkeypatch.setattr("hourllava.data.mds.cache._said", set())


@pytest.fixture
def memory():
    """An empty file system in memory, behind `memory://`."""
    system = fsspec.filesystem("memory")
    system.store.clear()
    yield system
    system.store.clear()


def upload(memory, folder, target):
    for name, data in contents(folder).items():
        memory.pipe(f"{target}/{name}", data)


def ids(dataset):
    return [row["text"]["id"] for row in dataset]


def test_shards_behind_an_address_are_fetched_once(tmp_path, memory):
    folder = write(tmp_path / "a", video_rows(12), size_limit_bytes=600, hashes=["sha1"], lengths=True)
    upload(memory, folder, "/sets/a")
    dataset = MdsDataset("memory://sets/a", cache_folder=tmp_path / "cache")
    assert ids(dataset) == list(range(12))
    assert dataset.lengths().tolist() == [[1, 2, 3]] * 12
    dataset.verify()
    cached = sorted((tmp_path / "cache").iterdir())
    assert len(cached) == len(list(folder.glob("*.mds")))
    assert all(path.suffix == ".mds" for path in cached)
    for name in memory.glob("/sets/a/*.mds"):
        memory.rm(name)
    assert ids(MdsDataset("memory://sets/a", cache_folder=tmp_path / "cache")) == list(range(12))


def test_an_index_leads_to_shards_beside_its_folder(tmp_path, memory):
    folder = write(tmp_path / "a", video_rows(3))
    upload(memory, folder, "/sets/a")
    index = (folder / "index.json").read_text().replace("shard.00000", "../a/shard.00000")
    memory.pipe("/sets/mix/index.json", index.encode())
    assert ids(MdsDataset("memory://sets/mix", cache_folder=tmp_path / "cache")) == [0, 1, 2]
    assert [path.parent for path in (tmp_path / "cache").iterdir()] == [tmp_path / "cache"]


def test_file_addresses(tmp_path):
    folder = write(tmp_path / "a", video_rows(3))
    assert ids(MdsDataset(f"file://{folder}", cache_folder=tmp_path / "cache")) == [0, 1, 2]


@pytest.mark.parametrize("change", ["cut", "changed", "absent"])
def test_what_was_fetched_damaged_is_not_kept(change, tmp_path, memory):
    folder = write(tmp_path / "a", video_rows(3), hashes=["sha1"])
    upload(memory, folder, "/sets/a")
    good = memory.cat("/sets/a/shard.00000.mds")
    if change == "absent":
        memory.rm("/sets/a/shard.00000.mds")
    else:
        memory.pipe("/sets/a/shard.00000.mds", good[:-1] if change == "cut" else good[:-1] + b"?")
    dataset = MdsDataset("memory://sets/a", cache_folder=tmp_path / "cache")
    with pytest.raises(DataError, match=r"memory://sets/a/shard\.00000\.mds") as caught:
        dataset[0]
    assert "\n" not in str(caught.value)
    assert list((tmp_path / "cache").iterdir()) == []
    memory.pipe("/sets/a/shard.00000.mds", good)
    assert ids(dataset) == [0, 1, 2]


def test_addresses_that_lead_nowhere(tmp_path, memory):
    for source in ("memory://nothing", "nonsense://a"):
        with pytest.raises(DataError, match="cannot be read"):
            MdsDataset(source)


def compressed(folder, kind, compress, **zip_changes):
    """Turn a folder into one with compressed shards, as the genuine library names them."""
    index = json.loads((folder / "index.json").read_text())
    for shard in index["shards"]:
        path = folder / shard["raw_data"]["basename"]
        data = compress(path.read_bytes())
        path.unlink()
        path.with_name(f"{path.name}.{kind}").write_bytes(data)
        shard["compression"] = kind
        shard["zip_data"] = {"basename": f"{path.name}.{kind}", "bytes": len(data), "hashes": {}, **zip_changes}
    (folder / "index.json").write_text(json.dumps(index))
    return folder


@pytest.mark.parametrize(("kind", "compress"), [("gz", gzip.compress), ("bz2", bz2.compress)])
def test_compressed_shards(kind, compress, tmp_path):
    folder = compressed(write(tmp_path / "a", video_rows(3), hashes=["sha1"]), kind, compress)
    assert ids(MdsDataset(folder, cache_folder=tmp_path / "cache")) == [0, 1, 2]


@pytest.mark.parametrize(
    "compress", [lambda data: b"no gzip", lambda data: gzip.compress(data)[:-20], lambda data: gzip.compress(data * 2)]
)
def test_compressed_shards_that_are_damaged(compress, tmp_path):
    folder = compressed(write(tmp_path / "a", video_rows(300)), "gz", compress)
    with pytest.raises(DataError, match=r"shard\.00000\.mds\.gz"):
        MdsDataset(folder, cache_folder=tmp_path / "cache")[0]
    assert list((tmp_path / "cache").iterdir()) == []


def test_compression_that_is_not_read(tmp_path, monkeypatch):
    folder = compressed(write(tmp_path / "a", video_rows(3)), "br", bytes)
    with pytest.raises(DataError, match="allowed: none, zstd, gz, bz2"):
        MdsDataset(folder, cache_folder=tmp_path / "cache")[0]
    folder = compressed(write(tmp_path / "b", video_rows(3)), "zstd:7", bytes)
    monkeypatch.setitem(sys.modules, "zstandard", None)
    with pytest.raises(DataError, match="pip install zstandard"):
        MdsDataset(folder, cache_folder=tmp_path / "cache")[0]


def test_a_hash_whose_package_is_missing(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "xxhash", None)
    with pytest.raises(DataError, match="pip install xxhash"):
        write(tmp_path, video_rows(1), hashes=["xxh64"])
