"""Watching as a job: one for all who want the same, cancelled by the last one, and nothing is left of it."""

import contextlib
import dataclasses
import logging
import os
import random
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch

from hourllava.errors import Cancelled, ConfigError, InputError, VideoError, VideoLimitError
from hourllava.inference.engine import HourLlava
from hourllava.inference.memories.cache import MemoryCache
from hourllava.inference.memories.memory import Memory
from hourllava.inference.watching import growing
from hourllava.inference.watching.frame_encoder import FrameEncoder
from hourllava.inference.watching.growing import VideoPart
from hourllava.inference.watching.job import attend
from hourllava.inference.watching.progress import Progress, progress_bar
from hourllava.inference.watching.watcher import Watcher
from hourllava.model.devices import HostCopy
from hourllava.video import VideoLimits
from hourllava.video.budget import ProcessBudget
from inference.encoding import encoding_at_once

pytestmark = pytest.mark.usefixtures("nothing_left")


class Gate:
    """A device that encodes only while the gate is open."""

    def __init__(self, engine: HourLlava) -> None:
        self.open, self.waits = threading.Event(), threading.Event()
        self._thread = ThreadPoolExecutor(1)
        self.watcher = Watcher(FrameEncoder(engine.model), self.encode)

    def encode(self, frames: torch.Tensor) -> Future[HostCopy]:
        self.waits.set()
        return self._thread.submit(self._launch, frames)

    def _launch(self, frames: torch.Tensor) -> HostCopy:
        assert self.open.wait(10)
        return self.watcher.frame_encoder.launch(frames)

    def close(self) -> None:
        self.open.set()
        self.watcher.close()
        self._thread.shutdown()


@pytest.fixture
def gate(engine: HourLlava) -> Iterator[Gate]:
    """All frames wait before the gate; a test opens it."""
    with contextlib.closing(Gate(engine)) as gate:
        yield gate


@pytest.fixture
def part(clips: dict[str, Path]) -> VideoPart:
    return VideoPart(clips["long"], fps=10)


@pytest.fixture
def longer_part(clips: dict[str, Path]) -> VideoPart:
    """More frames than are ever on the way: while the gate is closed, the decoding goes on."""
    return VideoPart(clips["longer"], fps=10)


def is_alive(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The options of every reader that is opened."""
    opened: list[dict[str, Any]] = []
    read_frames = growing.read_frames

    def record(*arguments: Any, **options: Any) -> Any:
        opened.append(options)
        return read_frames(*arguments, **options)

    monkeypatch.setattr(growing, "read_frames", record)
    return opened


def assert_whole(memory: Memory) -> None:
    assert memory.num_frames == 78


# ------------------------------------------------------------------------------------------------ one caller


def test_a_job_gives_the_memory(gate: Gate, part: VideoPart) -> None:
    job = gate.watcher.start(part)
    assert gate.waits.wait(30)
    assert not job.done
    assert (job.progress.frames_done, job.progress.frames_total) == (0, 78)
    with pytest.raises(TimeoutError, match="still being watched"):
        job.result(0.01)
    gate.open.set()
    memory = job.result()
    assert_whole(memory)
    assert job.result() is memory
    assert job.done
    assert job.progress == Progress(78, 78, job.progress.frames_per_second, 0.0)
    job.cancel()  # too late
    assert job.result() is memory


def test_a_job_that_is_cancelled(gate: Gate, longer_part: VideoPart, tmp_path: Path, nothing_left: list[int]) -> None:
    """Its processes end although the device is busy with the first batch."""
    cache = MemoryCache(tmp_path)
    job = gate.watcher.start(longer_part, cache=cache)
    assert gate.waits.wait(30)
    assert all(map(is_alive, nothing_left))
    job.cancel()
    with pytest.raises(Cancelled, match=r"watching .*longer\.mp4 was cancelled"):
        job.result()
    assert nothing_left
    assert not any(map(is_alive, nothing_left))
    assert not cache.entries()
    gate.open.set()
    assert gate.watcher.start(longer_part, cache=cache).result().num_frames == 400


def test_faults_come_when_they_are_found(gate: Gate, clips: dict[str, Path], tmp_path: Path) -> None:
    gate.open.set()
    with pytest.raises(VideoError, match="no such file"):
        gate.watcher.start(VideoPart(tmp_path / "missing.mp4"))
    (tmp_path / "text.mp4").write_text("no video")
    first, second = (gate.watcher.start(VideoPart(tmp_path / "text.mp4")) for _ in range(2))
    for job in (first, second, first):
        with pytest.raises(VideoError, match=r"text\.mp4"):
            job.result()
    with pytest.raises(ConfigError, match="num_processes"):
        gate.watcher.start(VideoPart(clips["short"]), num_processes=0).result()


def test_the_callers_digest_is_believed(
    engine: HourLlava, clips: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def hash_nothing(*_: object) -> None:
        raise AssertionError("the caller knows the digest")

    monkeypatch.setattr("hourllava.video.identity._hash_file", hash_nothing)
    cache = MemoryCache(tmp_path)
    memory = engine.watch(clips["short"], digest="whole:12", cache=cache, progress=False)
    assert memory.source.digest == "whole:12"
    again = engine.start_watch(clips["other"], digest="whole:12", cache=cache)
    assert again.from_cache
    assert again.progress == Progress(len(memory), len(memory), 0.0, 0.0)
    assert torch.equal(again.result().features, memory.features)
    other = engine.start_watch(clips["short"], digest="whole:13", cache=cache)
    assert not other.from_cache
    other.result()


def test_processes_are_limited_and_shared(
    engine: HourLlava, clips: dict[str, Path], reads: list[dict[str, Any]]
) -> None:
    budget = ProcessBudget(2)
    encoder = FrameEncoder(engine.model)
    watcher = Watcher(encoder, encoding_at_once(encoder), budget)
    for num_processes in (None, 1):
        watcher.start(VideoPart(clips["short"]), num_processes=num_processes).result()
    list(watcher.follow(VideoPart(clips["short"]), num_processes=5))
    assert [options["num_processes"] for options in reads] == [None, 1, 5]
    assert all(options["budget"] is budget for options in reads)


# ------------------------------------------------------------------------------------------------ several callers


def test_equal_parts_are_watched_once(
    gate: Gate, clips: dict[str, Path], tmp_path: Path, reads: list[dict[str, Any]]
) -> None:
    (tmp_path / "copy.mp4").write_bytes(clips["long"].read_bytes())
    equal = [gate.watcher.start(VideoPart(video)) for video in (clips["long"], tmp_path / "copy.mp4", clips["long"])]
    others = [
        gate.watcher.start(VideoPart(clips["long"], fps=2)),
        gate.watcher.start(VideoPart(clips["long"], end_seconds=5)),
        gate.watcher.start(VideoPart(clips["other"])),
        gate.watcher.start(VideoPart(clips["long"]), digest="another"),
    ]
    gate.open.set()
    memories = [job.result() for job in equal]
    assert memories[0] is memories[1] is memories[2]
    assert [len(job.result()) for job in others] == [16, 5, 4, 8]
    assert len(reads) == 1 + len(others)
    assert gate.watcher.start(VideoPart(clips["long"])).result() is not memories[0]  # nobody keeps it


def test_a_memory_that_grows_is_not_grown_twice(gate: Gate, engine: HourLlava, clips: dict[str, Path]) -> None:
    memory = engine.watch(clips["short"], progress=False)
    jobs = [gate.watcher.start(VideoPart(clips["long"]), memory=memory) for _ in range(2)]
    fresh = gate.watcher.start(VideoPart(clips["long"]))
    gate.open.set()
    assert [job.result() is memory for job in (*jobs, fresh)] == [True, True, False]
    assert memory.sample_seconds.tolist() == list(range(8))


def test_each_caller_leaves_alone_and_the_last_ends_the_job(gate: Gate, part: VideoPart) -> None:
    first, second, third = (gate.watcher.start(part) for _ in range(3))
    assert gate.waits.wait(30)
    first.cancel()
    first.cancel()  # counts once
    with pytest.raises(Cancelled):
        first.result()  # at once: the others are not waited for
    assert not second.done
    third.cancel()
    gate.open.set()
    assert_whole(second.result())
    for job in (first, third):
        with pytest.raises(Cancelled):
            job.result()


def test_one_who_waits_is_woken_by_a_cancel(gate: Gate, part: VideoPart) -> None:
    job, other = gate.watcher.start(part), gate.watcher.start(part)
    raised = []

    def wait() -> None:
        with pytest.raises(Cancelled) as error:
            job.result()
        raised.append(error)

    waiting = threading.Thread(target=wait)
    waiting.start()
    job.cancel()
    waiting.join()
    assert raised
    assert not other.done
    other.cancel()
    other.wait()


def test_who_comes_while_a_job_ends_gets_a_new_one(gate: Gate, part: VideoPart) -> None:
    first = gate.watcher.start(part)
    assert gate.waits.wait(30)
    first.cancel()
    second = gate.watcher.start(part)
    gate.open.set()
    assert_whole(second.result())
    with pytest.raises(Cancelled):
        first.result()


def test_a_job_that_keeps_running_goes_on_without_callers(gate: Gate, part: VideoPart) -> None:
    upload = gate.watcher.start(part, keeps_running=True)
    request = gate.watcher.start(part)
    for job in (request, upload):
        job.cancel()
        with pytest.raises(Cancelled):
            job.result()
    later = gate.watcher.start(part)
    gate.open.set()
    assert_whole(later.result())


def test_one_caller_can_end_the_job_for_all(gate: Gate, part: VideoPart) -> None:
    jobs = [gate.watcher.start(part, keeps_running=True) for _ in range(3)]
    jobs[1].cancel(everyone=True)
    for job in jobs:
        with pytest.raises(Cancelled):
            job.result()


def test_the_end_of_the_watcher_ends_all_jobs(gate: Gate, part: VideoPart, clips: dict[str, Path]) -> None:
    jobs = [gate.watcher.start(part, keeps_running=True), gate.watcher.start(VideoPart(clips["other"]))]
    gate.watcher.close()
    for job in jobs:
        assert job.done
        with pytest.raises(Cancelled):
            job.result()


def test_the_memory_is_kept_for_all_who_have_a_cache(gate: Gate, part: VideoPart, tmp_path: Path) -> None:
    caches = [None, MemoryCache(tmp_path / "a"), MemoryCache(tmp_path / "b"), MemoryCache(tmp_path / "a")]
    jobs = [gate.watcher.start(part, cache=cache) for cache in caches]
    gate.open.set()
    memory = jobs[0].result()
    assert all(job.result() is memory for job in jobs)
    for cache in caches[1:3]:
        job = gate.watcher.start(part, cache=cache)
        assert job.from_cache
        assert torch.equal(job.result().features, memory.features)
    other = gate.watcher.start(part, cache=MemoryCache(tmp_path / "c"))
    assert not other.from_cache
    other.result()


def test_many_threads_start_and_cancel_at_random(engine: HourLlava, clips: dict[str, Path]) -> None:
    encoder = FrameEncoder(engine.model)
    watcher = Watcher(encoder, encoding_at_once(encoder))
    expected = {name: watcher.start(VideoPart(clips[name], fps=5)).result().features for name in ("short", "long")}
    wrong, ended = [], []

    def use(seed: int) -> None:
        chance = random.Random(seed)
        for _ in range(6):
            name = chance.choice(sorted(expected))
            job = watcher.start(VideoPart(clips[name], fps=5))
            if chance.random() < 0.5:
                job.wait(chance.random() / 10)
                job.cancel()
            try:
                if not torch.equal(job.result().features, expected[name]):
                    wrong.append(name)
            except Cancelled:
                ended.append(name)

    threads = [threading.Thread(target=use, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    watcher.close()


# ------------------------------------------------------------------------------------------------ progress


def test_progress_comes_in_the_callers_thread(engine: HourLlava, clips: dict[str, Path]) -> None:
    seen: list[Progress] = []

    def note(progress: Progress) -> None:
        assert threading.current_thread() is caller
        seen.append(progress)

    caller = threading.current_thread()
    memory = engine.watch(clips["long"], fps=10, on_progress=note, progress=False)
    done = [progress.frames_done for progress in seen]
    assert done == sorted(done)
    assert seen[-1] == Progress(len(memory), len(memory), seen[-1].frames_per_second, 0.0)
    assert seen[-1].frames_per_second > 0
    assert sum(progress.frames_done == len(memory) and progress.seconds_left == 0 for progress in seen) <= 2


def test_progress_of_a_part_and_of_one_that_goes_on(engine: HourLlava, clips: dict[str, Path]) -> None:
    totals = []
    for options in ({"start_seconds": 2, "end_seconds": 4}, {"end_seconds": 100}, {"start_seconds": 5}):
        job = engine.start_watch(clips["long"], fps=5, **options)
        job.add_listener(lambda progress: totals.append(progress.frames_total))
        job.result()
    assert totals[0] in (10, 39, 14)
    assert set(totals) == {10, 39, 14}


@pytest.mark.parametrize("wanted", [RuntimeError("no more"), KeyboardInterrupt(), SystemExit(3)])
def test_what_on_progress_raises_ends_the_job_first(
    gate: Gate, longer_part: VideoPart, wanted: BaseException, nothing_left: list[int]
) -> None:
    def fail(progress: Progress) -> None:
        assert all(map(is_alive, nothing_left))
        raise wanted

    job = gate.watcher.start(longer_part)
    assert gate.waits.wait(30)
    with pytest.raises(type(wanted)) as raised:
        attend(job, fail)
    assert raised.value is wanted
    assert job.done
    assert nothing_left
    assert not any(map(is_alive, nothing_left))


def test_ctrl_c_ends_the_job_first(gate: Gate, longer_part: VideoPart, nothing_left: list[int]) -> None:
    job = gate.watcher.start(longer_part)
    assert gate.waits.wait(30)
    timer = threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        attend(job)
    timer.join()
    assert nothing_left
    assert not any(map(is_alive, nothing_left))


def test_an_event_cancels(gate: Gate, part: VideoPart) -> None:
    job, cancel = gate.watcher.start(part), threading.Event()
    timer = threading.Timer(0.2, cancel.set)
    timer.start()
    with pytest.raises(Cancelled):
        attend(job, cancel=cancel)
    timer.join()
    other, more = gate.watcher.start(part), gate.watcher.start(part)
    with pytest.raises(Cancelled):
        attend(other, cancel=cancel)
    gate.open.set()
    assert_whole(attend(more, cancel=threading.Event()))


def test_listeners_hear_every_batch_and_the_end(gate: Gate, part: VideoPart, caplog: pytest.LogCaptureFixture) -> None:
    job = gate.watcher.start(part)
    assert gate.waits.wait(30)
    heard: list[tuple[int, bool]] = []
    errors: list[Exception] = []

    def wait_for_itself(_: Progress) -> None:
        try:
            job.result()
        except InputError as error:
            errors.append(error)

    def fail(_: Progress) -> None:
        raise ValueError("no ear")

    listeners: list[Callable[[Progress], object]] = [
        lambda progress: heard.append((progress.frames_done, job.done)),
        fail,
        wait_for_itself,
    ]
    for listener in listeners:
        job.add_listener(listener)
    removed = heard.append
    job.add_listener(removed)
    job.remove_listener(removed)
    gate.open.set()
    assert_whole(job.result())
    assert heard == [(32, False), (64, False), (78, False), (78, True)]
    assert len(errors) == 3  # when the job has ended, it can be waited for
    assert "cannot wait for its own job" in str(errors[0])
    assert [record.levelno for record in caplog.records] == [logging.ERROR]
    job.add_listener(listeners[0])
    assert heard[-1] == (78, True)
    assert len(heard) == 5


def test_a_bar_shows_progress_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    with progress_bar() as show:
        assert capsys.readouterr().err == ""
        for progress in (Progress(0, 78), Progress(32, 78, 10.0, 4.6), Progress(80, 80, 10.0, 0.0)):
            show(progress)
    out, err = capsys.readouterr()
    assert out == ""
    assert "watching" in err
    assert "80/80" in err
    with progress_bar(shown=False) as show:
        show(Progress(1, 2))
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("limits", "limit"), [(VideoLimits(max_seconds=5.0), "seconds"), (VideoLimits(max_frames=60), "frames")]
)
def test_a_video_over_a_limit_is_refused_before_a_frame_is_encoded(
    gate: Gate, part: VideoPart, limits: VideoLimits, limit: str
) -> None:
    with pytest.raises(VideoLimitError) as raised:
        gate.watcher.start(dataclasses.replace(part, limits=limits)).result()
    assert raised.value.limit == limit
    assert not gate.waits.is_set()
    gate.open.set()
    half = dataclasses.replace(part, limits=limits, end_seconds=4.0)
    assert gate.watcher.start(half).result().num_frames == 40


def test_a_video_that_is_longer_than_its_header_says_is_refused_amid_it(
    gate: Gate, clips: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    gate.open.set()
    monkeypatch.setattr("hourllava.inference.watching.growing.MemoryGrower._open", shorter_header)
    with pytest.raises(VideoLimitError):
        gate.watcher.start(VideoPart(clips["longer"], fps=10, limits=VideoLimits(max_frames=100))).result()
    assert gate.waits.is_set()


def shorter_header(grower: Any, *arguments: Any, open_part: Any = growing.MemoryGrower._open) -> Any:
    reader, _ = open_part(grower, *arguments)
    return reader, 10
