import contextlib
import itertools
import logging
import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from hourllava.errors import ConfigError, MemoryFileError
from hourllava.inference.cache import DEFAULT_MAX_BYTES, CacheEntry, MemoryCache
from hourllava.inference.encoder import EncoderIdentity
from hourllava.inference.memory import Memory, Source

ENCODER = EncoderIdentity("a" * 64, feature_width=6, grid=2)


def make_memory(fill: float = 0.0, num_frames: int = 100) -> Memory:
    times = np.arange(float(num_frames))
    features = torch.full((num_frames, 4, 6), fill)
    source = Source("/videos/talk.mp4", "sha256:12")
    return Memory(features, times, times, fps=1, duration_seconds=num_frames, source=source, encoder=ENCODER)


FILE_BYTES = 12_000  # a memory of 100 frames takes 11,200 bytes, its file some hundreds more


def set_last_used(cache: MemoryCache, key: str, seconds: float) -> None:
    (path,) = cache.folder.glob(f"{key}*")
    os.utime(path, (seconds, seconds))


def keys(cache: MemoryCache) -> list[str]:
    return [entry.key for entry in cache.entries()]


def test_what_is_put_is_got(tmp_path: Path) -> None:
    cache = MemoryCache(tmp_path / "new" / "folder")
    key = cache.key("sha256:12", 1.0, ENCODER)
    assert cache.get(key) is None
    assert cache.put(key, make_memory(3.0))
    memory = cache.get(key)
    assert memory is not None
    assert torch.equal(memory.features, make_memory(3.0).features)
    memory.check_fits(ENCODER, fps=1.0, digest="sha256:12")
    assert cache.put(key, make_memory(4.0))
    memory = cache.get(key)
    assert memory is not None
    assert memory.features[0, 0, 0] == 4.0


def test_everything_that_decides_the_content_decides_the_key() -> None:
    cache = MemoryCache("unused")
    other_encoder = EncoderIdentity("b" * 64, feature_width=6, grid=2)
    made = [
        cache.key(digest, fps, encoder, *part)
        for digest, fps, encoder, part in itertools.product(
            ("sha256:12", "sha256:13"),
            (1.0, 2.0),
            (ENCODER, other_encoder),
            ((), (0.0, 60.0), (0.0, 61.0), (1.0, 60.0), (1.0,)),
        )
    ]
    assert len(set(made)) == len(made)
    assert cache.key("sha256:12", 1, ENCODER, 0, None) == made[0]


def test_entries_are_listed_the_last_used_first(tmp_path: Path) -> None:
    cache = MemoryCache(tmp_path)
    assert cache.entries() == []
    for key, num_frames in (("old", 10), ("new", 20)):
        cache.put(key, make_memory(num_frames=num_frames))
    set_last_used(cache, "old", 1000.0)
    set_last_used(cache, "new", 2000.0)
    num_bytes = [path.stat().st_size for path in sorted(tmp_path.iterdir())]
    assert cache.entries() == [
        CacheEntry("new", "talk.mp4", 20, 20.0, num_bytes[0], 2000.0),
        CacheEntry("old", "talk.mp4", 10, 10.0, num_bytes[1], 1000.0),
    ]


def test_the_least_recently_used_go_first(tmp_path: Path) -> None:
    cache = MemoryCache(tmp_path, max_bytes=3 * FILE_BYTES)
    for age, key in enumerate("abc"):
        cache.put(key, make_memory())
        set_last_used(cache, key, 1000.0 + age)
    assert cache.get("a") is not None  # used now: b is the oldest
    cache.put("d", make_memory())
    assert set(keys(cache)) == {"a", "c", "d"}
    assert cache.get("b") is None


def test_the_one_just_written_stays(tmp_path: Path) -> None:
    MemoryCache(tmp_path).put("a", make_memory())
    set_last_used(MemoryCache(tmp_path), "a", time.time() + 1000)  # by a clock that was ahead
    small = MemoryCache(tmp_path, max_bytes=FILE_BYTES)
    small.put("b", make_memory())
    assert keys(small) == ["b"]


def test_a_memory_larger_than_the_cache_is_not_stored(tmp_path: Path) -> None:
    cache = MemoryCache(tmp_path, max_bytes=FILE_BYTES)
    cache.put("a", make_memory())
    assert not cache.put("b", make_memory(num_frames=200))
    assert keys(cache) == ["a"]


def test_a_damaged_entry_is_reported_and_removed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    cache = MemoryCache(tmp_path)
    cache.put("a", make_memory())
    cache.put("b", make_memory())
    (damaged,) = tmp_path.glob("a*")
    damaged.write_bytes(damaged.read_bytes()[:-100])
    assert keys(cache) == ["b"]
    with caplog.at_level(logging.WARNING, "hourllava"):
        assert cache.get("a") is None
    assert "cut short or damaged" in caplog.text
    assert not damaged.exists()
    caplog.clear()
    assert cache.get("a") is None
    assert caplog.text == ""  # a plain miss now


def test_clearing_frees_what_it_says(tmp_path: Path) -> None:
    cache = MemoryCache(tmp_path)
    for key in "ab":
        cache.put(key, make_memory())
    (tmp_path / "notes.txt").write_text("not ours")
    expected = sum(entry.num_bytes for entry in cache.entries())
    assert cache.clear() == expected > 0
    assert cache.entries() == []
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
    assert cache.clear() == 0
    assert MemoryCache(tmp_path / "missing").clear() == 0


def test_leftovers_of_killed_processes_are_removed_when_old(tmp_path: Path) -> None:
    cache = MemoryCache(tmp_path)
    for name, age_seconds in (("old", 4000), ("young", 10)):
        folder = tmp_path / f".{name}.memory.safetensors.x1.unfinished"
        folder.mkdir()
        (folder / ".tmpAbc").write_bytes(b"half")
        for path in (folder / ".tmpAbc", folder):
            os.utime(path, (time.time() - age_seconds,) * 2)
    cache.put("a", make_memory())
    assert {path.name.split(".")[1] for path in tmp_path.glob(".*")} == {"young"}
    assert keys(cache) == ["a"]


def test_an_evicted_memory_stays_readable_for_who_has_it(tmp_path: Path) -> None:
    cache = MemoryCache(tmp_path)
    cache.put("a", make_memory(5.0))
    memory = cache.get("a")
    assert memory is not None
    cache.clear()
    assert torch.equal(memory.features, torch.full((100, 4, 6), 5.0))


def test_a_folder_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    cache = MemoryCache(tmp_path / "file" / "memories")
    assert cache.get("a") is None
    assert cache.entries() == []
    assert cache.clear() == 0
    with pytest.raises(MemoryFileError, match=r"cache folder .* cannot be made"):
        cache.put("a", make_memory())


def test_the_folder_follows_xdg(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert MemoryCache().folder == tmp_path / "hourllava" / "memories"
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for unset in ("", "relative/folder"):
        monkeypatch.setenv("XDG_CACHE_HOME", unset)
        assert MemoryCache().folder == tmp_path / "home" / ".cache" / "hourllava" / "memories"


def test_the_size_is_an_argument_or_a_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HOURLLAVA_CACHE_BYTES", raising=False)
    assert MemoryCache().max_bytes == DEFAULT_MAX_BYTES
    monkeypatch.setenv("HOURLLAVA_CACHE_BYTES", "12345")
    assert MemoryCache().max_bytes == 12345
    assert MemoryCache(max_bytes=7).max_bytes == 7
    for wrong in ("20 GB", "-1"):
        monkeypatch.setenv("HOURLLAVA_CACHE_BYTES", wrong)
        with pytest.raises(ConfigError, match="bytes"):
            MemoryCache()


USE_THE_CACHE = """
    import sys
    import numpy as np, torch
    from hourllava.inference.cache import MemoryCache
    from hourllava.inference.memory import Memory, Source
    folder, fill = sys.argv[1], float(sys.argv[2])
    cache = MemoryCache(folder, max_bytes=3 * 200_000)
    times = np.arange(100.0)
    hits = 0
    print("ready", flush=True)
    sys.stdin.readline()
    for turn in range(12):
        features = torch.full((100, 4, 100), fill)
        memory = Memory(features, times, times, fps=1, duration_seconds=100, source=Source("x"))
        assert cache.put("shared", memory)
        assert cache.put(f"{fill}-{turn % 3}", memory)  # these push each other out
        for key in ("shared", "1.0-0", "2.0-0"):
            got = cache.get(key)
            if got is not None:
                hits += 1
                assert torch.equal(got.features, got.features[:1, :1, :1].expand_as(got.features))
        cache.entries()
    print(hits, flush=True)
"""


def test_two_processes_share_a_cache(tmp_path: Path) -> None:
    command = [sys.executable, "-c", textwrap.dedent(USE_THE_CACHE), str(tmp_path)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    # A failure here must not leave an open child behind: its ResourceWarning would fail a later test.
    with contextlib.ExitStack() as stack:
        children = [stack.enter_context(subprocess.Popen([*command, fill], text=True, **pipes)) for fill in ("1", "2")]
        for child in children:
            assert child.stdout is not None
            assert child.stdout.readline() == "ready\n"
        for child in children:
            assert child.stdin is not None
            child.stdin.write("go\n")
            child.stdin.flush()
        for child in children:
            output, errors = child.communicate(timeout=60)
            assert child.returncode == 0, errors
            assert errors == ""  # no entry was ever found damaged
            assert int(output) > 0
    assert not list(tmp_path.glob(".*"))
    assert len(list(tmp_path.iterdir())) <= 3
