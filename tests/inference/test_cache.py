import contextlib
import fcntl
import itertools
import logging
import os
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from forking import start_python
from hourllava.cli.session import describe_installation
from hourllava.data.mds.reader import MdsDataset
from hourllava.errors import ConfigError, InputError, MemoryFileError, PartlyDoneError, VideoError
from hourllava.inference.engine import HourLlava
from hourllava.inference.memories.cache import DEFAULT_MAX_BYTES, CacheEntry, MemoryCache
from hourllava.inference.memories.encoder import EncoderIdentity
from hourllava.inference.memories.memory import Memory, WatchedSource
from hourllava.model import devices
from hourllava.model.devices import check_fork
from hourllava.video import identity
from video.clips import write_clip

ENCODER = EncoderIdentity("a" * 64, feature_width=6, grid=2)


def make_memory(fill: float = 0.0, num_frames: int = 100) -> Memory:
    times = np.arange(float(num_frames))
    features = torch.full((num_frames, 4, 6), fill)
    source = WatchedSource("/videos/talk.mp4", "sha256:12")
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
    for name, age_seconds in (("old", 4000), ("abandoned", 30), ("young", 1)):
        folder = tmp_path / f".{name}.memory.safetensors.x1.unfinished"
        folder.mkdir()
        (folder / ".tmpAbc").write_bytes(b"half")
        for path in (folder / ".tmpAbc", folder):
            os.utime(path, (time.time() - age_seconds,) * 2)
    cache.put("a", make_memory())
    assert {path.name.split(".")[1] for path in tmp_path.glob(".*")} == {"young"}
    assert keys(cache) == ["a"]


def test_a_folder_that_is_being_written_is_not_removed(tmp_path: Path) -> None:
    cache = MemoryCache(tmp_path)
    folder = tmp_path / ".a.memory.safetensors.x1.unfinished"
    folder.mkdir()
    os.utime(folder, (time.time() - 100,) * 2)
    descriptor = os.open(folder, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)  # as the process that writes it
    cache.put("a", make_memory())
    assert folder.exists()
    os.close(descriptor)  # as the kernel does when that process is killed
    cache.put("a", make_memory())
    assert not folder.exists()


def test_what_a_killed_process_left_beside_a_saved_memory_goes_with_the_next(tmp_path: Path) -> None:
    for name in ("talk.safetensors", "other.safetensors"):
        (tmp_path / f".{name}.x1.unfinished").mkdir()
        os.utime(tmp_path / f".{name}.x1.unfinished", (time.time() - 60,) * 2)
    make_memory().save(tmp_path / "talk.safetensors")
    assert {path.name for path in tmp_path.iterdir()} == {"talk.safetensors", ".other.safetensors.x1.unfinished"}


def test_entries_of_a_clock_that_was_ahead_age_from_now(tmp_path: Path) -> None:
    """They keep their order among each other, and later ones outlive them."""
    cache = MemoryCache(tmp_path, max_bytes=3 * FILE_BYTES)
    for age, key in enumerate("abc"):
        cache.put(key, make_memory())
        set_last_used(cache, key, time.time() + 86400 * (1 + age))
    for new, expected in (("d", "bcd"), ("e", "cde"), ("f", "def")):
        cache.put(new, make_memory())
        assert set(keys(cache)) == set(expected)


def test_clearing_says_what_it_cannot_remove(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = MemoryCache(tmp_path)
    for key in "ab":
        cache.put(key, make_memory())
    unlink = Path.unlink

    def refuse(path: Path, missing_ok: bool = False) -> None:
        if path.name.startswith("a"):
            raise PermissionError(13, "Permission denied")
        unlink(path, missing_ok)

    monkeypatch.setattr(Path, "unlink", refuse)
    with pytest.raises(
        PartlyDoneError, match=r"1 of 2 memories in .* cannot be removed \(Permission denied\), 0\.0 MB"
    ):
        cache.clear()
    assert keys(cache) == ["a"]


def test_an_entry_that_cannot_be_opened_now_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    cache = MemoryCache(tmp_path)
    cache.put("a", make_memory())
    for error in (OSError(24, "Too many open files"), RuntimeError("unable to mmap"), MemoryError()):

        def fail(*arguments: object, error: Exception = error, **options: object) -> None:
            raise error

        monkeypatch.setattr("hourllava.inference.memories.memory_file.safe_open", fail)
        caplog.clear()
        assert cache.get("a") is None
        assert "is not used" in caplog.text
        monkeypatch.undo()
    assert cache.get("a") is not None


@pytest.mark.parametrize("home", [None, "", "relative"])
def test_a_user_without_a_home_has_no_cache(
    home: str | None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def unknown(user: int) -> None:
        raise KeyError(user)

    monkeypatch.setattr("hourllava.folders.pwd.getpwuid", unknown)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("HOME", raising=False)
    if home is not None:
        monkeypatch.setenv("HOME", home)
    cache = MemoryCache()
    assert cache.folder is None
    assert "no home folder" in caplog.text
    assert cache.get("a") is None
    assert not cache.put("a", make_memory())
    assert cache.entries() == []
    assert cache.clear() == 0
    assert describe_installation([])["cache"]["folder"] is None
    assert len(MdsDataset([])) == 0


@pytest.mark.parametrize("change", ["replaced while hashed", "replaced before it is read", "grown"])
def test_nothing_is_kept_of_a_file_that_changes_on_the_way(
    engine: HourLlava, change: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip = write_clip(tmp_path / "clip.ts", num_frames=30, fps=10)
    other = write_clip(tmp_path / "other.ts", num_frames=50, fps=10)
    cache = MemoryCache(tmp_path / "cache")
    hash_file = identity._hash_file

    def hash_and_change(path: Path, digest: Any) -> None:
        if change == "replaced while hashed":
            with path.open("rb") as opened:
                other.replace(path)
                digest.update(opened.read())
            return
        hash_file(path, digest)
        if change == "grown":
            path.write_bytes(path.read_bytes() + other.read_bytes())
        else:
            other.replace(path)

    monkeypatch.setattr(identity, "_hash_file", hash_and_change)
    if change == "grown":
        memory = engine.watch(clip, cache=cache, progress=False)
        assert memory.source.digest is None
    else:
        with pytest.raises(VideoError, match="changed while it was read"):
            engine.watch(clip, cache=cache, progress=False)
    assert cache.entries() == []


def test_watching_refuses_wrong_types_in_one_line(engine: HourLlava, tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.mp4", num_frames=10, fps=10)
    wrong: list[dict[str, Any]] = [{"fps": "1"}, {"fps": None}, {"start_seconds": "0"}, {"end_seconds": []}]
    for arguments in wrong:
        with pytest.raises(ConfigError, match=next(iter(arguments))):
            engine.watch(clip, cache=MemoryCache(tmp_path / "cache"), progress=False, **arguments)
    for video in (None, 3, "", b""):
        with pytest.raises(VideoError):
            engine.watch(video, progress=False)  # type: ignore[arg-type]


def test_a_forked_process_computes_with_one_thread_or_refuses(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    threads = [4]
    monkeypatch.setattr(devices.torch, "get_num_threads", lambda: threads[0])
    monkeypatch.setattr(devices.torch, "set_num_threads", lambda count: threads.__setitem__(0, count))
    cpu, gpu = torch.device("cpu"), torch.device("cuda:0")
    check_fork(os.getpid(), cpu)
    assert threads == [4]  # not forked
    parent = os.getpid() - 1
    monkeypatch.setattr(devices, "_first_process", parent)
    monkeypatch.setattr(devices, "_checked", threading.local())
    monkeypatch.setattr(devices, "_warned_process", parent)
    with pytest.raises(InputError, match="spawn"):
        check_fork(parent, gpu)
    check_fork(parent, cpu)
    assert threads == [1]
    assert "spawn" in caplog.text
    caplog.clear()
    check_fork(parent, cpu)
    threads[0] = 4  # as the thread that forked sees it, after another thread was checked first
    thread = threading.Thread(target=check_fork, args=(parent, cpu))
    thread.start()
    thread.join()
    assert threads == [1]
    assert caplog.text == ""  # said once


FORK = """
    import multiprocessing, sys, torch
    from hourllava.inference.engine import HourLlava
    torch.set_num_threads(2)
    model = HourLlava.from_pretrained("nano")
    memory = model.watch(sys.argv[1], progress=False)
    first = model.ask(memory, "What?", max_new_tokens=4).text

    def again():
        assert model.watch(sys.argv[1], progress=False).num_frames == memory.num_frames
        assert model.ask(memory, "What?", max_new_tokens=4).text == first
        assert torch.get_num_threads() == 1

    process = multiprocessing.get_context("fork").Process(target=again)
    process.start()
    process.join(100)
    code = process.exitcode
    process.kill()
    sys.exit("it hangs" if code is None else code)
"""


@pytest.mark.slow
def test_a_forked_process_watches_and_asks(tmp_path: Path) -> None:
    """In a real process with two threads of torch, which the tests' own processes do not have."""
    clip = write_clip(tmp_path / "clip.mp4", num_frames=30, fps=10)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "OMP_NUM_THREADS": "2"}
    subprocess.run([sys.executable, "-c", textwrap.dedent(FORK), str(clip)], check=True, env=environment, timeout=300)


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
    import os, sys, time
    import numpy as np, torch
    from hourllava.inference.memories.cache import MemoryCache
    from hourllava.inference.memories.memory import Memory, WatchedSource
    folder, fill = sys.argv[1], float(sys.argv[2])
    cache = MemoryCache(folder, max_bytes=3 * 200_000)
    times = np.arange(100.0)
    hits = 0
    print("ready", flush=True)
    while not os.path.exists(sys.argv[3]):
        time.sleep(0.001)
    for turn in range(12):
        features = torch.full((100, 4, 100), fill)
        memory = Memory(features, times, times, fps=1, duration_seconds=100, source=WatchedSource("x"))
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
    folder, go = tmp_path / "cache", tmp_path / "go"
    with contextlib.ExitStack() as stack:
        started = [start_python(textwrap.dedent(USE_THE_CACHE), folder, fill, go) for fill in ("1", "2")]
        processes = [stack.enter_context(process) for process in started]
        while not all(process.stdout for process in processes):
            assert all(process.poll() is None for process in processes)
            time.sleep(0.01)
        go.touch()
        for process in processes:
            assert process.wait(60) == 0, process.stderr
            assert process.stderr == ""  # no entry was ever found damaged
            assert int(process.stdout.removeprefix("ready\n")) > 0
    assert not list(folder.glob(".*"))
    assert len(list(folder.iterdir())) <= 3
