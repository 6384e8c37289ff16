"""Following a source: its memory can be asked at any time from any thread, and leaving ends the decoding at once."""

import contextlib
import gc
import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hourllava.errors import Cancelled
from hourllava.inference.engine import HourLlava
from hourllava.inference.memories.memory import Memory
from hourllava.inference.watching.progress import Progress
from video.clips import write_clip

pytestmark = pytest.mark.usefixtures("nothing_left")


def assert_gone(pids: list[int]) -> None:
    assert pids
    assert not [pid for pid in pids if Path(f"/proc/{pid}").exists()]


def test_other_threads_ask_at_any_time(engine: HourLlava, tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.mp4", num_frames=260, fps=10)
    whole = engine.watch(clip, fps=5, progress=False)
    grown: list[Memory] = []
    has_begun, has_ended = threading.Event(), threading.Event()
    answers: list[tuple[str, int]] = []

    def ask(memory: Memory) -> tuple[str, int]:
        answer = engine.ask(memory, "What happens?", max_new_tokens=3)
        return answer.text, answer.num_prompt_tokens

    def ask_on() -> None:
        assert has_begun.wait(30)
        while not has_ended.is_set() and len(answers) < 10:
            answers.append(ask(grown[0]))

    threads = [threading.Thread(target=ask_on) for _ in range(2)]
    for thread in threads:
        thread.start()
    lengths = []
    for memory in engine.follow(clip, fps=5):
        grown.append(memory)
        lengths.append(len(memory))
        has_begun.set()
        threading.Event().wait(0.02)
    has_ended.set()
    for thread in threads:
        thread.join()
    assert len(answers) >= 2
    assert all(memory is grown[0] for memory in grown)
    assert lengths[-1] == len(whole) == 130

    def part(num_frames: int) -> Memory:
        return Memory(
            whole.features[:num_frames], whole.timestamps_seconds[:num_frames], whole.sample_seconds[:num_frames],
            fps=5, duration_seconds=num_frames / 5, source=grown[0].source, encoder=whole.encoder,
        )  # fmt: skip

    assert set(answers) <= {ask(part(length)) for length in lengths}


def leave_the_loop(followed: Iterator[Memory]) -> None:
    for _ in followed:
        break


def raise_in_the_loop(followed: Iterator[Memory]) -> None:
    with contextlib.suppress(ZeroDivisionError):
        for _ in followed:
            _ = 1 / 0


def close(followed: Iterator[Memory]) -> None:
    next(followed)
    followed.close()  # type: ignore[attr-defined]


@pytest.mark.parametrize("leave", [leave_the_loop, raise_in_the_loop, close])
def test_leaving_ends_the_decoding_at_once(
    engine: HourLlava, tmp_path: Path, leave: Callable[[Iterator[Memory]], None], nothing_left: list[int]
) -> None:
    clip = write_clip(tmp_path / "clip.mp4", num_frames=700, fps=10)
    followed = [engine.follow(clip)]
    assert not nothing_left  # nothing is opened before the first memory is asked for
    leave(followed[0])
    followed.clear()
    gc.collect()
    assert_gone(nothing_left)


@pytest.fixture
def silent(tmp_path: Path) -> Iterator[Path]:
    """A pipe whose writer stops amid the video."""
    data = write_clip(tmp_path / "clip.ts", 600, 10, options={"g": "10"}).read_bytes()
    pipe, is_over = tmp_path / "live", threading.Event()
    os.mkfifo(pipe)

    def write() -> None:
        with pipe.open("wb", buffering=0) as file:
            file.write(data[: len(data) * 2 // 3])
            is_over.wait(60)

    writer = threading.Thread(target=write)
    writer.start()
    yield pipe
    is_over.set()
    writer.join()


@pytest.mark.parametrize("reason", ["the event", "the model is closed"])
def test_an_event_ends_it_while_no_frame_comes(
    engine: HourLlava, silent: Path, nothing_left: list[int], reason: str
) -> None:
    cancel = threading.Event()
    timer = threading.Timer(0.5, cancel.set if reason == "the event" else engine.close)
    followed = engine.follow(silent, cancel=cancel)
    next(followed)
    timer.start()
    with pytest.raises(Cancelled):
        list(followed)
    timer.join()
    assert_gone(nothing_left)


def test_ctrl_c_ends_it_while_no_frame_comes(engine: HourLlava, silent: Path, nothing_left: list[int]) -> None:
    timer = threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT))
    followed = engine.follow(silent)
    next(followed)
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        list(followed)
    timer.join()
    assert_gone(nothing_left)


def test_progress_of_a_file_and_of_a_live_source(engine: HourLlava, clips: dict[str, Path], silent: Path) -> None:
    seen: list[Progress] = []
    lengths = [len(memory) for memory in engine.follow(clips["long"], fps=10, on_progress=seen.append)]
    assert [progress.frames_done for progress in seen] == [0, *lengths]
    assert {progress.frames_total for progress in seen} == {78}
    seen.clear()
    next(engine.follow(silent, on_progress=seen.append))
    assert {(progress.frames_total, progress.seconds_left) for progress in seen} == {(None, None)}
