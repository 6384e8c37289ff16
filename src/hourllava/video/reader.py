"""Frames of a video at k / fps, decoded in child processes, in time order.

Processes instead of threads: a child that hangs can be killed, a crash of FFmpeg becomes an error message, and the
segments of one video use every core. Pictures come through pipes; a child that is 64 MiB ahead waits. A 384x384 picture
costs 0.26 ms that way, 2 % of decoding it. Needs POSIX (`poll` on pipes).

    with read_frames("lecture.mp4", fps=1, size_pixels=(384, 384)) as reader:
        for batch in reader:
            print(batch.sample_seconds, batch.frames.shape)
        print(reader.gaps)
"""

from __future__ import annotations

import logging
import numbers
import os
import reprlib
import weakref
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from hourllava.errors import ConfigError, VideoError
from hourllava.video.child import Child
from hourllava.video.identity import SourceState
from hourllava.video.source import Source, resolve_source
from hourllava.video.timeline import SampleGrid
from hourllava.video.types import FrameBatch, Gap, VideoInfo, join_gaps

PathLike = str | os.PathLike[str]
Picture = NDArray[np.uint8]

TIMEOUT_SECONDS = 60.0
MAX_TIMEOUT_SECONDS = 10**6
BATCH_FRAMES = 32
MAX_PROCESSES = 16
MAX_SIDE_PIXELS = 16384
LIVE_WAIT_SECONDS = 0.2  # the batch of a live source ends when no frame has come for this long

_log = logging.getLogger(__name__)


def probe(
    source: PathLike,
    *,
    allow_network: bool = False,
    allow_playlists: bool = False,
    folder_fps: float = 1.0,
    timeout_seconds: float = TIMEOUT_SECONDS,
) -> VideoInfo:
    """What a video is, found by opening it in a child process.

    Raises:
        VideoError: it cannot be opened, holds no picture, or gives no sign of life for `timeout_seconds`.
    """
    with read_frames(
        source,
        allow_network=allow_network,
        allow_playlists=allow_playlists,
        folder_fps=folder_fps,
        timeout_seconds=timeout_seconds,
        num_processes=1,
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
    allow_playlists: bool = False,
    folder_fps: float = 1.0,
) -> FrameReader:
    """Frames of a video at k / fps: each is the frame on screen at that presentation time, 0 = the first picture.

    Args:
        source: A video file, a folder of numbered frames, `-` for standard input, `file://`, or `http(s)://` if the
            network is allowed.
        fps: Samples per second.
        start_seconds: No sample before this time; samples stay multiples of 1 / fps. In files this part is sought;
            addresses and pipes are read from their beginning.
        end_seconds: Only samples before this time; None: to the end.
        size_pixels: (height, width) of the frames, resized as `PIL.Image.resize(..., BICUBIC)`; None as displayed.
        num_processes: Decoding processes; None: one for each usable core. The frames do not depend on it.
        batch_frames: How many frames a batch has at most.
        timeout_seconds: A child that gives no sign of life for this long is killed.
        allow_network: Whether http(s) addresses may be opened.
        allow_playlists: Whether playlists may be opened: files that name other files or addresses.
        folder_fps: Pictures per second of a folder of frames.

    Raises:
        VideoError: the source cannot be opened or holds no picture.
        ConfigError: an argument has a value or a type that is not allowed.
    """
    check_sampling(fps, start_seconds, end_seconds)
    _check_numbers(timeout_seconds=timeout_seconds, folder_fps=folder_fps)
    _check_numbers(whole=True, batch_frames=batch_frames)
    if num_processes is not None:
        _check_numbers(whole=True, num_processes=num_processes)
    if size_pixels is not None:
        _check_size(size_pixels)
    if batch_frames < 1 or (num_processes is not None and num_processes < 1):
        raise ConfigError(f"batch_frames ({batch_frames}) and num_processes ({num_processes}) must be 1 or more")
    if not 0 < timeout_seconds <= MAX_TIMEOUT_SECONDS:
        raise ConfigError(f"timeout_seconds is {timeout_seconds}, it must be above 0 and at most {MAX_TIMEOUT_SECONDS}")
    if not 0 < folder_fps <= 1000:
        raise ConfigError(f"folder_fps is {folder_fps}, it must be above 0 and at most 1000")
    resolved = resolve_source(source, allow_network=allow_network, allow_playlists=allow_playlists)
    request = {
        "fps": float(fps),
        "start_seconds": float(start_seconds),
        "end_seconds": None if end_seconds is None else float(end_seconds),
        "size_pixels": None if size_pixels is None else [int(side) for side in size_pixels],
        "folder_fps": float(folder_fps),
    }
    return FrameReader(resolved, request, num_processes, batch_frames, timeout_seconds)


def check_sampling(fps: float, start_seconds: float = 0.0, end_seconds: float | None = None) -> None:
    """Check the rate and the times of samples.

    Raises:
        ConfigError: a value is no number, or is not allowed.
    """
    _check_numbers(fps=fps, start_seconds=start_seconds)
    if end_seconds is not None:
        _check_numbers(end_seconds=end_seconds)
    SampleGrid.of(fps, start_seconds, end_seconds)


def _check_size(size_pixels: tuple[int, int]) -> None:
    try:
        height, width = size_pixels
    except (TypeError, ValueError) as error:
        raise ConfigError(f"size_pixels is {reprlib.repr(size_pixels)}: give (height, width)") from error
    _check_numbers(whole=True, height=height, width=width)
    if not all(1 <= side <= MAX_SIDE_PIXELS for side in size_pixels):
        raise ConfigError(
            f"size_pixels is {size_pixels}, each side must be 1 to {MAX_SIDE_PIXELS}: give (height, width)"
        )


def _check_numbers(*, whole: bool = False, **values: object) -> None:
    for name, value in values.items():
        if not isinstance(value, numbers.Integral if whole else numbers.Real):
            raise ConfigError(f"{name} is {reprlib.repr(value)}, it must be a {'whole ' if whole else ''}number")
        try:
            float(value)
        except OverflowError as error:
            raise ConfigError(f"{name} is too large") from error


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
        self._children: list[Child] = []
        # Also runs when the interpreter ends, so that an open reader leaves no process behind.
        self._finalizer = weakref.finalize(self, _kill_all, self._children)
        self._state = SourceState.of(source)
        try:
            self._start(request, num_processes)
        except BaseException:
            self.close()
            raise
        self._segment = 0
        self._picture: Picture | None = None  # the last one; samples that repeat it come without a picture

    def _start(self, request: dict[str, Any], num_processes: int | None) -> None:
        first = Child(request, self._source, self._timeout_seconds)
        self._children.append(first)
        message = first.receive()
        self.info = VideoInfo(**message["info"])
        self._num_segments: int = message["num_segments"]
        self._shape = (*(request["size_pixels"] or (self.info.height_pixels, self.info.width_pixels)), 3)
        request = {**request, "steady_end_pts": message["steady_end_pts"]}  # the others need not search for the end
        count = max(1, min(num_processes or usable_cores(), self._num_segments, MAX_PROCESSES))
        self._start_further(count, request)
        for i, child in enumerate(self._children):
            child.send({"first": i, "step": len(self._children)})

    def _start_further(self, count: int, request: dict[str, Any]) -> None:
        """Start further children, as many as can be started: the frames do not depend on their number."""
        while len(self._children) < count:
            try:
                self._children.append(Child(request, self._source, self._timeout_seconds))
            except VideoError as error:
                _log.warning("%d instead of %d processes decode: %s", len(self._children), count, error)
                return

    @property
    def gaps(self) -> tuple[Gap, ...]:
        """Damage met so far, in time order; gaps that touch are joined."""
        return join_gaps(self._gaps)

    def __iter__(self) -> Iterator[FrameBatch]:
        return self

    def __next__(self) -> FrameBatch:
        try:
            batch = self._next_batch()
        except BaseException:  # also at the end and on Ctrl-C: no child may outlive this
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
        """Stop decoding and end all child processes."""
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
                self._state.is_unchanged()  # raises if the file was replaced; a growing file is read on
            elif message["type"] == "frame":
                if "num_bytes" in message:
                    self._picture = np.empty(self._shape, np.uint8)
                    child.receive_into(self._picture.data.cast("B"))
                assert self._picture is not None
                pending.append((message["sample_seconds"], message["seconds"], self._picture))
        if not pending:
            raise StopIteration
        return _batch(pending)


def usable_cores() -> int:
    """How many cores this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _kill_all(children: list[Child]) -> None:
    while children:
        children.pop().kill()


def _batch(pending: Sequence[tuple[float, float, Picture]]) -> FrameBatch:
    return FrameBatch(
        frames=np.stack([picture for _, _, picture in pending]),
        sample_seconds=np.array([sample for sample, _, _ in pending]),
        timestamps_seconds=np.array([seconds for _, seconds, _ in pending]),
    )
