"""A process that ends, is interrupted, or forks while a video is watched: nothing is left, and nothing hangs."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from forking import environment, run_python, start_python
from video.clips import write_clip

pytestmark = pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="looks for processes in /proc")

BUSY = """
    import os, sys, threading
    from concurrent.futures import Future
    from tiny import tiny_model
    from hourllava.errors import Cancelled, InputError
    from hourllava.inference.watching.growing import VideoPart
    from hourllava.inference.watching.job import attend
    from hourllava.inference.watching.frame_encoder import FrameEncoder
    from hourllava.inference.watching.watcher import Watcher

    is_busy, begun = True, threading.Event()

    def encode(frames):
        begun.set()
        future = Future()
        if not is_busy:
            future.set_result(watcher.frame_encoder.launch(frames))
        return future

    watcher = Watcher(FrameEncoder(tiny_model().float()), encode)
    part = VideoPart(sys.argv[1], fps=10)
    job = watcher.start(part, keeps_running=True)
    assert begun.wait(30)
"""

ENDINGS = {
    "the end": "",
    "sys.exit": "sys.exit(0)",
    "two jobs": "watcher.start(VideoPart(sys.argv[1])); watcher.start(VideoPart(sys.argv[1], fps=2))",
    "a daemon that waits": "threading.Thread(target=job.wait, daemon=True).start()",
    "a loop that is not left": "watcher.follow(part)",
}

FORK = """
    child = os.fork()
    if child == 0:
        is_busy = False
        try:
            job.result()
        except InputError:
            assert not job.done  # what it says of its parent's is what was true at the fork
            os._exit(watcher.start(part).result().num_frames != 400)
        os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert not job.done
    job.cancel(everyone=True)
    job.wait()
"""


def processes_with(text: object) -> list[int]:
    """Processes in whose environment a text stands."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if str(text).encode() in (entry / "environ").read_bytes():
                    found.append(int(entry.name))
            except OSError:  # gone, or another user's
                continue
    return found


def assert_none_left(text: object) -> None:
    deadline = time.monotonic() + 20
    while left := processes_with(text):
        assert time.monotonic() < deadline, f"left behind: {left}"
        time.sleep(0.02)


@pytest.mark.parametrize("code", ENDINGS.values(), ids=ENDINGS)
def test_the_process_ends_amid_watching(clips: dict[str, Path], tmp_path: Path, code: str) -> None:
    result = run_python(textwrap.dedent(BUSY) + code, clips["longer"], env=environment(tmp_path), timeout=60)
    assert (result.returncode, result.stderr) == (0, "")
    assert_none_left(tmp_path)


def test_an_interrupted_process_leaves_nothing(clips: dict[str, Path], tmp_path: Path) -> None:
    code = textwrap.dedent(BUSY) + "print('waits', flush=True)\nattend(watcher.start(part, keeps_running=True))\n"
    with start_python(code, clips["longer"], env=environment(tmp_path)) as process:
        while not process.stdout:
            assert process.poll() is None, process.stderr
            time.sleep(0.01)
        assert processes_with(tmp_path)
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == -signal.SIGINT
    assert_none_left(tmp_path)


def test_a_forked_process_has_jobs_of_its_own(clips: dict[str, Path], tmp_path: Path) -> None:
    result = run_python(textwrap.dedent(BUSY + FORK), clips["longer"], env=environment(tmp_path), timeout=60)
    assert (result.returncode, result.stderr) == (0, "")
    assert_none_left(tmp_path)


SLOW_ENDINGS = {
    "an engine": """
        from hourllava.inference.scheduler import Scheduler as owner
        from tiny import tiny_model
        name = "_work"

        def begin():
            scheduler = owner(tiny_model(), [])
            scheduler.run(lambda: None)
            scheduler.ask_to_close()  # as when nobody holds the engine any more
            return lambda: scheduler._thread is None
    """,
    "a watched video": """
        from hourllava.inference.watching.job import WatchJobs
        from hourllava.inference.watching.run import Run as owner
        name = "_main"

        def begin():
            jobs = WatchJobs()
            jobs.start("key", "video", lambda run: None, None, keeps_running=True)
            return lambda: not jobs._running
    """,
}


@pytest.mark.parametrize("code", SLOW_ENDINGS.values(), ids=SLOW_ENDINGS)
def test_the_interpreter_waits_for_threads_that_nobody_remembers(tmp_path: Path, code: str) -> None:
    """They free models; after the interpreter's end that aborts the process."""
    slowly = """
        import time
        work = getattr(owner, name)

        def slowly(*arguments):
            work(*arguments)
            time.sleep(0.5)
            print("ended", flush=True)

        setattr(owner, name, slowly)
        is_forgotten = begin()
        while not is_forgotten():
            time.sleep(0.01)
    """
    result = run_python(textwrap.dedent(code) + textwrap.dedent(slowly), env=environment(tmp_path), timeout=60)
    assert (result.returncode, result.stdout, result.stderr) == (0, "ended\n", "")


@pytest.mark.slow
@pytest.mark.parametrize("how", ["the end", "an error", "another thread watches on"])
def test_an_interpreter_ends_amid_watching(tmp_path: Path, how: str) -> None:
    """A real interpreter, whose threads and pools are torn down in its own order."""
    clip = write_clip(tmp_path / "long.mp4", num_frames=3000, fps=10)
    code = """
        import sys, threading
        from hourllava.inference.engine import HourLlava
        model, begun = HourLlava.from_pretrained("nano"), threading.Event()
        job = model.start_watch(sys.argv[1])
        job.add_listener(lambda progress: progress.frames_done and begun.set())
        assert begun.wait(60) and not job.done
        if sys.argv[2] == "an error":
            raise ValueError("wrong")
        if sys.argv[2] == "another thread watches on":
            thread = threading.Thread(target=lambda: print(model.watch(sys.argv[1], progress=False).num_frames))
            thread.start()
    """
    variables = {**environment(tmp_path), "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), clip, how],
        capture_output=True, text=True, env=variables, timeout=120, check=False,
    )  # fmt: skip
    assert result.returncode == (1 if how == "an error" else 0), result.stderr
    assert result.stdout == ("300\n" if how == "another thread watches on" else "")
    assert result.stderr.count("Traceback") == (how == "an error"), result.stderr
    assert_none_left(tmp_path)


KILLED_AFTER_A_FORK = """
    if os.fork() == 0:
        print("forked", flush=True)
        threading.Event().wait(60)
        os._exit(0)
    threading.Event().wait(60)
"""


def test_decoding_ends_with_its_parent_though_a_forked_process_lives_on(clips: dict[str, Path], tmp_path: Path) -> None:
    """The forked process has inherited the pipes."""
    with start_python(
        textwrap.dedent(BUSY + KILLED_AFTER_A_FORK), clips["longer"], env=environment(tmp_path)
    ) as process:
        while not process.stdout:
            assert process.poll() is None, process.stderr
            time.sleep(0.01)
        everyone = processes_with(tmp_path)
        decoding = [pid for pid in everyone if b"hourllava.video.worker" in Path(f"/proc/{pid}/cmdline").read_bytes()]
        assert decoding
        process.kill()
        try:
            deadline = time.monotonic() + 20
            while any(Path(f"/proc/{pid}").exists() for pid in decoding):
                assert time.monotonic() < deadline
                time.sleep(0.02)
        finally:
            for pid in processes_with(tmp_path):
                os.kill(pid, signal.SIGKILL)
