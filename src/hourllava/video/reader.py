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
from collections import deque
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from hourllava.errors import ConfigError, VideoError
from hourllava.video.budget import MAX_PROCESSES, ProcessBudget, ProcessShare
from hourllava.video.child import Child, Stop
from hourllava.video.identity import SourceState
from hourllava.video.limits import VideoLimits
from hourllava.video.source import Source, resolve_source
from hourllava.video.timeline import SampleGrid
from hourllava.video.types import FrameBatch, Gap, VideoInfo, join_gaps

PathLike = str | os.PathLike[str]
Picture = NDArray[np.uint8]

TIMEOUT_SECONDS = 60.0
MAX_TIMEOUT_SECONDS = 10**6
BATCH_FRAMES = 32
MAX_SIDE_PIXELS = 16384
SEGMENTS_AHEAD = 3  # handed to each child: it is never idle, and soon free if another reader needs a process
LIVE_WAIT_SECONDS = 0.2  # the batch of a live source ends when no frame has come for this long

_log = logging.getLogger(__name__)


def probe(
    source: PathLike,
    *,
    allow_network: bool = False,
    allow_playlists: bool = False,
    folder_fps: float = 1.0,
    timeout_seconds: float = TIMEOUT_SECONDS,
    limits: VideoLimits | None = None,
) -> VideoInfo:
    """What a video is, found by opening it in a child process.

    Raises:
        VideoLimitError: it is larger than `limits` allow.
        VideoError: it cannot be opened, holds no picture, or gives no sign of life for `timeout_seconds`.
    """
    with read_frames(
        source,
        allow_network=allow_network,
        allow_playlists=allow_playlists,
        folder_fps=folder_fps,
        timeout_seconds=timeout_seconds,
        num_processes=1,
        limits=limits,
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
    budget: ProcessBudget | None = None,
    limits: VideoLimits | None = None,
    stop: Stop | None = None,
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
            With a budget it is the most that this reader takes of it.
        batch_frames: How many frames a batch has at most.
        timeout_seconds: A child that gives no sign of life for this long is killed.
        allow_network: Whether http(s) addresses may be opened.
        allow_playlists: Whether playlists may be opened: files that name other files or addresses.
        folder_fps: Pictures per second of a folder of frames.
        budget: Shared with other readers.
        limits: What the video may have, as its header says, and what each process may take.
        stop: Another thread sets it to end the reading, here or in the reader, within 0.1 s.

    Raises:
        VideoError: the source cannot be opened or holds no picture.
        ConfigError: an argument has a value or a type that is not allowed.
        VideoLimitError: the video is larger than `limits` allow.
        Cancelled: `stop` was set.
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
        "limits": None if limits is None else limits.for_child(),
    }
    budget = budget or ProcessBudget(num_processes)
    return FrameReader(
        resolved,
        request,
        budget,
        num_processes,
        batch_frames=batch_frames,
        timeout_seconds=timeout_seconds,
        limits=limits,
        stop=stop,
    )


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
        budget: ProcessBudget,
        max_processes: int | None,
        *,
        batch_frames: int,
        timeout_seconds: float,
        limits: VideoLimits | None,
        stop: Stop | None,
    ):
        self._source = source
        self._request = request
        self._batch_frames = batch_frames
        self._timeout_seconds = timeout_seconds
        self._limits = limits
        self._stop = stop
        self._gaps: list[Gap] = []
        self.num_frames = 0
        self.position_seconds = 0.0
        self._segment = 0  # being read
        self._plan: deque[Child] = deque()  # the children that decode this segment and the next ones
        self._children: list[Child] = []
        self._share = budget.join()
        # Also runs when the interpreter ends, so that an open reader leaves no process behind.
        self._finalizer = weakref.finalize(self, _end, self._children, self._share)
        self._state = SourceState.of(source)
        try:
            self._start(max_processes)
        except BaseException:
            self.close()
            raise
        self._picture: Picture | None = None  # the last one; samples that repeat it come without a picture

    def _start(self, max_processes: int | None) -> None:
        first = self._start_child()
        message = first.receive()
        self.info = VideoInfo(**message["info"])
        if self._limits is not None:
            self._limits.check(self.info, self._source.location)
        self._num_segments: int = message["num_segments"]
        self._shape = (*(self._request["size_pixels"] or (self.info.height_pixels, self.info.width_pixels)), 3)
        # The others need not search for the end.
        self._request = {**self._request, "steady_end_pts": message["steady_end_pts"]}
        self._share.wanted = max(1, min(max_processes or MAX_PROCESSES, self._num_segments, MAX_PROCESSES))
        self._balance()

    def _start_child(self) -> Child:
        child = Child(self._request, self._source, self._timeout_seconds, self._stop)
        self._children.append(child)
        return child

    def _balance(self) -> None:
        """Keep to the share of processes, hand segments out, and end the children that get no more of them."""
        while self._num_waiting > len(set(self._children) - set(self._plan)) and self._share.take():
            try:
                self._start_child()
            except VideoError as error:  # the frames do not depend on the number of children
                _log.warning("%d instead of %d processes decode: %s", len(self._children), self._share.wanted, error)
                self._share.give_back()
                self._share.wanted = len(self._children)
        # Those that are to end soonest get no more.
        working = sorted(self._children, key=self._plan.count)[self._share.num_excess :]
        while self._num_waiting:
            child = min(working, key=self._plan.count)
            if self._plan.count(child) == SEGMENTS_AHEAD:
                break
            child.send({"segment": self._segment + len(self._plan)})
            self._plan.append(child)
        for child in set(self._children) - set(self._plan):
            self._children.remove(child)
            child.kill()
            self._share.give_back()

    @property
    def _num_waiting(self) -> int:
        """Number of segments that no child has yet."""
        return self._num_segments - self._segment - len(self._plan)

    @property
    def num_processes(self) -> int:
        """How many processes decode at the moment."""
        return len(self._children)

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
            child = self._plan[0]
            if pending and self.info.is_live and not child.is_ready(LIVE_WAIT_SECONDS):
                break
            message = child.receive()
            if message["type"] == "gap":
                self._gaps.append(Gap(**message["gap"]))
            elif message["type"] == "segment":
                self._segment += 1
                self._plan.popleft()
                self._balance()
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


def _end(children: list[Child], share: ProcessShare) -> None:
    while children:
        children.pop().kill()
    share.leave()


def _batch(pending: Sequence[tuple[float, float, Picture]]) -> FrameBatch:
    return FrameBatch(
        frames=np.stack([picture for _, _, picture in pending]),
        sample_seconds=np.array([sample for sample, _, _ in pending]),
        timestamps_seconds=np.array([seconds for _, seconds, _ in pending]),
    )
