"""Frames of a video at k / fps, decoded in child processes, in time order.

Decoding in processes rather than threads: a child that hangs can be killed, a crash of FFmpeg is an error message, and
time segments of one video use every core. Pictures come through pipes, which bound themselves: a child that is 64 MiB
ahead waits. A 384x384 picture costs 0.26 ms that way, 2 % of decoding it, so there is no shared memory to leak. Needs
POSIX (`select` on pipes).

    with read_frames("lecture.mp4", fps=1, size_pixels=(384, 384)) as reader:
        for batch in reader:
            print(batch.sample_seconds, batch.frames.shape)
        print(reader.gaps)
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import sys
import tempfile
import weakref
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from hourllava.errors import ConfigError, VideoError
from hourllava.video.source import Source, SourceKind, resolve_source
from hourllava.video.timeline import SampleGrid
from hourllava.video.types import FrameBatch, Gap, VideoInfo

PathLike = str | os.PathLike[str]
Picture = NDArray[np.uint8]

TIMEOUT_SECONDS = 60.0
BATCH_FRAMES = 32
MAX_PROCESSES = 16
LIVE_WAIT_SECONDS = 0.2  # a live source's batch is given when nothing more came for this long
PIPE_BYTES = 1 << 20


def probe(
    source: PathLike,
    *,
    allow_network: bool = False,
    folder_fps: float = 1.0,
    timeout_seconds: float = TIMEOUT_SECONDS,
) -> VideoInfo:
    """Open a video in a child process and say what it is.

    Raises:
        VideoError: it cannot be opened, holds no picture, or does not answer for `timeout_seconds`.
    """
    with read_frames(
        source, allow_network=allow_network, folder_fps=folder_fps, timeout_seconds=timeout_seconds, num_processes=1
    ) as reader:
        return reader.info


def read_frames(
    source: PathLike,
    *,
    fps: float = 1.0,
    start_seconds: float = 0.0,
    end_seconds: float | None = None,
    size_pixels: tuple[int, int] | None = None,
    num_processes: int | None = None,
    batch_frames: int = BATCH_FRAMES,
    timeout_seconds: float = TIMEOUT_SECONDS,
    allow_network: bool = False,
    folder_fps: float = 1.0,
) -> FrameReader:
    """Frames of a video at k / fps: what is on screen at that presentation time, 0 = the first picture.

    Args:
        source: A video file, a folder of numbered frames, `file://`, or `http(s)://` if the network is allowed.
        fps: Samples per second.
        start_seconds: First sample time wanted; the samples stay multiples of 1 / fps. Files are sought, addresses and
            pipes are read from their beginning.
        end_seconds: Samples before this time; None for all of the video.
        size_pixels: (height, width) of the frames, resized as `PIL.Image.resize(..., BICUBIC)`; None as displayed.
        num_processes: Decoding processes; None for one per usable core. The frames do not depend on it.
        batch_frames: Most frames in a batch.
        timeout_seconds: A child that gives no sign of life for so long is killed.
        allow_network: Whether http(s) addresses may be opened.
        folder_fps: Pictures per second that a folder of frames stands for.

    Raises:
        VideoError: the source cannot be opened or holds no picture.
        ConfigError: an argument is outside what is allowed.
    """
    SampleGrid.of(fps, start_seconds, end_seconds)
    if size_pixels is not None and not all(1 <= side <= 16384 for side in size_pixels):
        raise ConfigError(f"size_pixels is {size_pixels}, each side must be 1 to 16384: give (height, width)")
    if batch_frames < 1 or (num_processes is not None and num_processes < 1):
        raise ConfigError(f"batch_frames ({batch_frames}) and num_processes ({num_processes}) must be 1 or more")
    if not (timeout_seconds > 0 and 0 < folder_fps <= 1000):
        raise ConfigError(f"timeout_seconds ({timeout_seconds}) and folder_fps ({folder_fps}) must be above 0")
    resolved = resolve_source(source, allow_network=allow_network)
    request = {
        "kind": resolved.kind,
        "location": resolved.location,
        "fps": float(fps),
        "start_seconds": float(start_seconds),
        "end_seconds": None if end_seconds is None else float(end_seconds),
        "size_pixels": None if size_pixels is None else [int(side) for side in size_pixels],
        "folder_fps": float(folder_fps),
    }
    return FrameReader(resolved, request, num_processes, batch_frames, timeout_seconds)


class FrameReader:
    """Iterator over `FrameBatch`es in time order; a context manager. Made by `read_frames`.

    Attributes:
        info: What the video is.
        num_frames: Frames given so far.
        position_seconds: Time of the last sample given; with `info.duration_seconds` the progress.
    """

    def __init__(
        self,
        source: Source,
        request: dict[str, Any],
        num_processes: int | None,
        batch_frames: int,
        timeout_seconds: float,
    ):
        self._source = source
        self._batch_frames = batch_frames
        self._timeout_seconds = timeout_seconds
        self._gaps: list[Gap] = []
        self.num_frames = 0
        self.position_seconds = 0.0
        self._children: list[_Child] = []
        # Also runs at interpreter exit, so that a reader left open leaves no process.
        self._finalizer = weakref.finalize(self, _kill_all, self._children)
        self._stamp = _file_stamp(source)
        try:
            self._start(request, num_processes)
        except BaseException:
            self.close()
            raise
        self._segment = 0
        self._picture: Picture | None = None  # the last one: repeated samples come without

    def _start(self, request: dict[str, Any], num_processes: int | None) -> None:
        first = _Child(request, self._source, self._timeout_seconds)
        self._children.append(first)
        message = first.receive()
        self.info = VideoInfo(**message["info"])
        self._num_segments: int = message["num_segments"]
        self._shape = (*(request["size_pixels"] or (self.info.height_pixels, self.info.width_pixels)), 3)
        request = {**request, "steady_end_pts": message.get("steady_end_pts")}  # the others need not look again
        count = max(1, min(num_processes or usable_cores(), self._num_segments, MAX_PROCESSES))
        self._children.extend(_Child(request, self._source, self._timeout_seconds) for _ in range(count - 1))
        for i, child in enumerate(self._children):
            child.send({"first": i, "step": count})

    @property
    def gaps(self) -> tuple[Gap, ...]:
        """Damage met so far, in time order, neighbouring gaps joined."""
        joined: list[Gap] = []
        for gap in sorted(self._gaps, key=lambda gap: gap.start_seconds):
            if joined and gap.start_seconds <= joined[-1].end_seconds:
                end, reason = max(joined[-1].end_seconds, gap.end_seconds), joined[-1].reason
                reason = reason if gap.reason in reason else f"{reason}; {gap.reason}"
                joined[-1] = Gap(joined[-1].start_seconds, end, reason)
            else:
                joined.append(gap)
        return tuple(joined)

    def __iter__(self) -> Iterator[FrameBatch]:
        return self

    def __next__(self) -> FrameBatch:
        try:
            batch = self._next_batch()
        except BaseException:  # the end, an error or Ctrl-C: no child outlives it
            self.close()
            raise
        self.num_frames += len(batch)
        self.position_seconds = float(batch.sample_seconds[-1])
        return batch

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop decoding; no child process is left."""
        self._finalizer()

    def _next_batch(self) -> FrameBatch:
        pending: list[tuple[float, float, Picture]] = []
        while self._segment < self._num_segments and self._children and len(pending) < self._batch_frames:
            child = self._children[self._segment % len(self._children)]
            if pending and self.info.is_live and not child.is_ready(LIVE_WAIT_SECONDS):
                break
            message = child.receive()
            if message["type"] == "gap":
                self._gaps.append(Gap(**message["gap"]))
            elif message["type"] == "segment":
                self._segment += 1
                self._check_unchanged()
            elif message["type"] == "frame":
                if "num_bytes" in message:
                    self._picture = np.empty(self._shape, np.uint8)
                    child.receive_into(self._picture.data.cast("B"))
                assert self._picture is not None
                pending.append((message["sample_seconds"], message["seconds"], self._picture))
        if not pending:
            raise StopIteration
        return _batch(pending)

    def _check_unchanged(self) -> None:
        """A file may grow while it is read (a recording); any other change mixes two videos."""
        before, now = self._stamp, _file_stamp(self._source)
        if before is None or now == before:
            return
        if now is None or now[0] != before[0] or now[1] <= before[1]:
            raise VideoError(
                f"{self._source.location} changed while it was read: wait until it is complete, then retry"
            )


class _Child:
    """One decoding process and its pipes."""

    def __init__(self, request: dict[str, Any], source: Source, timeout_seconds: float):
        self._source = source
        self._timeout_seconds = timeout_seconds
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 - closed by kill()
        # -P and PYTHONPATH: the child imports from where the parent does, and from nowhere else. A new session: Ctrl-C
        # in the terminal reaches the parent only, which ends the child.
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-c", "from hourllava.video.worker import main; main()"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
            start_new_session=True,
            pipesize=PIPE_BYTES,
            bufsize=0,
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._stdin, self._stdout = self._process.stdin, self._process.stdout
        self.send(request)

    def send(self, message: dict[str, Any]) -> None:
        """Send a line; a child that is gone is noticed when its answer is read."""
        with contextlib.suppress(BrokenPipeError):
            self._stdin.write(json.dumps(message).encode() + b"\n")

    def is_ready(self, wait_seconds: float) -> bool:
        """Whether something can be read within a time."""
        return bool(select.select([self._stdout], [], [], wait_seconds)[0])

    def receive(self) -> dict[str, Any]:
        """The next message that is not a mere sign of life.

        Raises:
            VideoError: the child says so, is silent for too long, or is gone.
        """
        while True:
            length = bytearray(4)
            self.receive_into(memoryview(length))
            text = bytearray(int.from_bytes(length))
            self.receive_into(memoryview(text))
            message: dict[str, Any] = json.loads(text)
            if message["type"] == "error":
                raise VideoError(message["message"])
            if message["type"] != "alive":
                return message

    def receive_into(self, view: memoryview) -> None:
        """Fill a buffer."""
        while view.nbytes:
            if not self.is_ready(self._timeout_seconds):
                raise VideoError(
                    f"{self._source.location}: decoding gave no sign of life for {self._timeout_seconds:g} s and was"
                    " stopped: the file or its storage hangs; convert or copy it, or raise timeout_seconds"
                )
            count = self._stdout.readinto(view)  # type: ignore[attr-defined]  # unbuffered, so a FileIO
            if not count:
                raise VideoError(self._death())
            view = view[count:]

    def _death(self) -> str:
        code = self._process.wait()
        self._stderr.seek(0)
        lines = self._stderr.read().decode(errors="replace").strip().splitlines()
        reason = f"signal {-code}" if code < 0 else lines[-1] if lines else f"exit code {code}"
        return (
            f"{self._source.location}: the decoding process ended unexpectedly ({reason}): convert the file and retry"
        )

    def kill(self) -> None:
        """End the process and close the pipes."""
        self._process.kill()
        self._process.wait()
        for file in (self._stdin, self._stdout, self._stderr):
            with contextlib.suppress(BrokenPipeError):
                file.close()


def usable_cores() -> int:
    """Cores this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _kill_all(children: list[_Child]) -> None:
    while children:
        children.pop().kill()


def _batch(pending: Sequence[tuple[float, float, Picture]]) -> FrameBatch:
    return FrameBatch(
        frames=np.stack([picture for _, _, picture in pending]),
        sample_seconds=np.array([sample for sample, _, _ in pending]),
        timestamps_seconds=np.array([seconds for _, seconds, _ in pending]),
    )


def _file_stamp(source: Source) -> tuple[int, int, int] | None:
    """Inode, length and time of change of a file; None for other sources, or if it is gone."""
    if source.kind is not SourceKind.FILE:
        return None
    try:
        status = Path(source.location).stat()
    except FileNotFoundError:
        return None
    return (status.st_ino, status.st_size, status.st_mtime_ns)
