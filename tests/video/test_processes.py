"""Child processes: none is left behind, none prints, and none can hang its parent."""

import contextlib
import gc
import os
import resource
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from hourllava.errors import VideoError
from hourllava.video import probe, read_frames
from running import children_of, wait_until_gone
from video.clips import number_of, write_clip

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")


def own_decoders() -> list[int]:
    """The decoding processes of this one, without helpers of multiprocessing that other tests may have left."""
    # Helpers are recognised by their command; a child that has just started does not show its own yet.
    children = set(children_of(os.getpid())) - _OTHERS
    return [child for child in children if b"multiprocessing" not in command_of(child)]


_OTHERS: set[int] = set()


@pytest.fixture(autouse=True)
def other_children():
    """Children that run before a test begins are not its own."""
    _OTHERS.clear()
    _OTHERS.update(children_of(os.getpid()))


def command_of(process: int) -> bytes:
    try:
        return Path(f"/proc/{process}/cmdline").read_bytes()
    except OSError:  # it has just ended
        return b""


@pytest.fixture(scope="module")
def clip(shared_clip) -> Path:
    """Two and a half minutes, long enough for several processes."""
    return shared_clip("mp4", 150, 1, options={"g": "5"})


def test_nothing_is_left_after_the_end_an_early_close_and_an_abandoned_reader(clip):
    for leave in ("end", "close", "abandon"):
        reader = read_frames(clip, num_processes=2, batch_frames=8)
        processes = own_decoders()
        assert len(processes) == 2
        next(reader)
        if leave == "end":
            list(reader)
        elif leave == "close":
            reader.close()
        del reader
        wait_until_gone(processes)


READ_AND_WAIT = """
import sys, time
from hourllava.video import read_frames
for batch in read_frames(sys.argv[1], num_processes=2, batch_frames=1):
    print("reading", flush=True)
    time.sleep(60)
"""


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_interrupted_or_killed_parent_leaves_no_child(clip, how):
    """The script has no `if __name__ == "__main__"`: starting children must not run it again."""
    parent = subprocess.Popen(
        [sys.executable, "-c", READ_AND_WAIT, str(clip)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    with parent:
        assert parent.stdout.readline() == b"reading\n"
        processes = children_of(parent.pid)
        assert len(processes) == 2
        parent.send_signal(how)
        assert parent.wait(20) != 0
    wait_until_gone(processes)


def test_ctrl_c_while_waiting_for_a_child(tmp_path):
    """Interrupted while the child waits for a pipe without a writer."""
    pipe = tmp_path / "silent"
    os.mkfifo(pipe)
    timer = threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        probe(pipe)
    timer.join()
    assert own_decoders() == []


def test_watchdog_stops_a_child_that_hangs(tmp_path):
    pipe = tmp_path / "silent"
    os.mkfifo(pipe)
    with pytest.raises(VideoError, match="no sign of life for 1 s"):
        probe(pipe, timeout_seconds=1)
    assert own_decoders() == []


@pytest.mark.parametrize(
    ("how", "says"),
    [
        (signal.SIGSEGV, r"signal 11, SIGSEGV\): FFmpeg crashed on this file: convert"),
        (signal.SIGKILL, r"signal 9, SIGKILL\): it was killed, most likely because memory ran out"),
        pytest.param(
            signal.SIGABRT,
            r"signal 6, SIGABRT\): it gave up, most likely because memory ran out",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            signal.SIGTERM, r"signal 15, SIGTERM\): something else on this machine ended it", marks=pytest.mark.slow
        ),
    ],
)
def test_crash_of_a_child_is_an_error(clip, how, says):
    with read_frames(clip, num_processes=1, batch_frames=1) as reader:
        os.kill(own_decoders()[0], how)
        with pytest.raises(VideoError, match=says):
            list(reader)


@contextlib.contextmanager
def limited_files(num_files):
    """Allow at most this number of open files."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < num_files:
        pytest.skip(f"this user may not open {num_files} files")
    resource.setrlimit(resource.RLIMIT_NOFILE, (num_files, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def open_files():
    """What each open descriptor stands for."""
    found = {}
    for entry in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # that of the folder itself
            found[int(entry.name)] = str(entry.readlink())
    return found


def test_more_descriptors_than_select_takes(clip):
    with limited_files(1400), contextlib.ExitStack() as opened:
        for _ in range(1100):
            opened.enter_context(Path(os.devnull).open("rb"))
        with read_frames(clip, num_processes=1, end_seconds=5) as reader:
            assert sum(len(batch) for batch in reader) == 5


def test_too_few_descriptors_are_an_error_or_fewer_processes(clip, caplog):
    """Any number of free descriptors gives a clear error or the right frames, and none is left open."""
    results = set()
    gc.collect()  # of other tests
    before = open_files()
    for left in range(14):
        with limited_files(200), contextlib.ExitStack() as opened:
            held = []
            with contextlib.suppress(OSError):
                while True:
                    held.append(opened.enter_context(Path(os.devnull).open("rb")))
            for file in held[len(held) - left :]:
                file.close()
            caplog.clear()
            try:
                with read_frames(clip, num_processes=2) as reader:
                    num_frames, num_warnings = sum(len(batch) for batch in reader), len(caplog.messages)
                    results.add((num_frames, num_warnings))
            except VideoError as error:
                results.add("Too many open files" in str(error))
            assert all("1 instead of 2 processes decode" in message for message in caplog.messages)
        assert open_files() == before
        if (150, 0) in results:
            break
    assert results == {True, (150, 1), (150, 0)}
    assert own_decoders() == []


def test_no_place_for_temporary_files_and_no_room_for_large_pipes(clip, monkeypatch):
    def refuse(*arguments, **options):
        raise FileNotFoundError(2, "No usable temporary directory found")

    monkeypatch.setattr("hourllava.video.child.tempfile.TemporaryFile", refuse)
    monkeypatch.setattr("hourllava.video.child.fcntl.F_SETPIPE_SZ", -1)  # the kernel refuses
    with read_frames(clip, num_processes=1, end_seconds=5) as reader:
        assert sum(len(batch) for batch in reader) == 5
    with read_frames(clip, num_processes=1, batch_frames=1) as reader:
        os.kill(own_decoders()[0], signal.SIGSEGV)
        with pytest.raises(VideoError, match="signal 11"):
            list(reader)


def test_children_print_nothing(tmp_path, clip, capfd):
    data = bytearray(clip.read_bytes())
    data[len(data) // 3 : len(data) // 2] = bytes(len(data) // 2 - len(data) // 3)
    damaged = tmp_path / "damaged.mp4"
    damaged.write_bytes(data)
    with read_frames(damaged) as reader:
        assert sum(len(batch) for batch in reader) > 0
        assert reader.gaps
    assert capfd.readouterr() == ("", "")


def test_children_never_import_torch():
    code = "import sys, hourllava.video.worker; sys.exit('torch' in sys.modules)"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)


def test_live_source_gives_frames_as_they_arrive(tmp_path):
    """A named pipe whose writer pauses: frames that have arrived are given before the rest is written."""
    data = write_clip(tmp_path / "clip.ts", 600, 10, options={"g": "10"}).read_bytes()
    pipe = tmp_path / "live"
    os.mkfifo(pipe)
    go_on = threading.Event()

    def write():
        with pipe.open("wb") as file:
            file.write(data[: len(data) * 2 // 3])
            file.flush()
            assert go_on.wait(30)
            file.write(data[len(data) * 2 // 3 :])

    writer = threading.Thread(target=write)
    writer.start()
    with read_frames(pipe, batch_frames=1000) as reader:
        assert reader.info.is_live
        assert reader.info.duration_seconds is None
        numbers = [number_of(frame) for frame in next(reader).frames]
        assert numbers
        go_on.set()
        numbers += [number_of(frame) for batch in reader for frame in batch.frames]
    writer.join()
    assert numbers == list(range(0, 600, 10))
