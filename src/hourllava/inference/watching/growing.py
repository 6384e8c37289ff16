"""A memory that grows by the frames of a video.

Child processes decode, this process reads their frames, and the vision tower encodes them, all at the same time. A few
batches of frames are on the way, so what is in use beside the memory does not depend on the length of the video.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from hourllava.errors import VideoError
from hourllava.inference.memories.continuing import num_remembered, resume_seconds
from hourllava.inference.memories.memory import Memory
from hourllava.inference.memories.snapshot import MemorySnapshot, WatchedSource
from hourllava.inference.watching.frame_encoder import (
    BATCHES_AHEAD,
    Encode,
    FrameEncoder,
    in_flight,
)
from hourllava.model.devices import HostCopy
from hourllava.video import FrameBatch, FrameReader, Gap, VideoLimits, read_frames, shown_name
from hourllava.video.budget import ProcessBudget
from hourllava.video.child import Stop
from hourllava.video.reader import BATCH_FRAMES, check_sampling

Report = Callable[[int, int | None], object]
"""Told the number of frames that are done, and the number of all frames, if it is known."""


@dataclass(frozen=True)
class VideoPart:
    """Which part of a video is watched, and how densely.

    Attributes:
        video: as for `HourLlava.watch`.
        fps: frames sampled per second.
        start_seconds, end_seconds: on the player's clock; None stands for the video's end.
        allow_network: whether a URL may be opened.
        allow_playlists: whether a playlist may be opened.
        limits: for a video of a stranger.

    Raises:
        ConfigError: a number is outside what is allowed.
    """

    video: str | Path
    fps: float = 1.0
    start_seconds: float = 0.0
    end_seconds: float | None = None
    allow_network: bool = False
    allow_playlists: bool = False
    limits: VideoLimits | None = None

    def __post_init__(self) -> None:
        check_sampling(self.fps, self.start_seconds, self.end_seconds)


class MemoryGrower:
    """Makes memories grow, with one vision tower.

    Args:
        encoder: the tower.
        encode: hands frames to the thread that owns the device.
        budget: the decoding processes of all videos together.
    """

    def __init__(self, encoder: FrameEncoder, encode: Encode, budget: ProcessBudget) -> None:
        self._encoder = encoder
        self._encode = encode
        self._budget = budget

    def empty(self, fps: float, source: WatchedSource) -> Memory:
        """A memory without frames."""
        identity = self._encoder.identity
        features = torch.empty(0, *identity.frame_shape, dtype=torch.bfloat16)
        return Memory(features, [], [], fps=fps, duration_seconds=0.0, source=source, encoder=identity)

    def add_frames(
        self, memory: Memory, frames_THW3: Tensor, times: npt.NDArray[np.float64], duration_seconds: float
    ) -> None:
        """Append frames of the caller to an empty memory."""
        batches = frames_THW3.split(BATCH_FRAMES)
        for batch, features in in_flight(batches, self._hand_over):
            new = times[len(memory) : len(memory) + len(batch)]
            memory.append(features, new, new, duration_seconds=duration_seconds)

    def grow(
        self,
        part: VideoPart,
        memory: Memory | None,
        source: WatchedSource,
        report: Report,
        *,
        num_processes: int | None = None,
        stop: Stop | None = None,
    ) -> Iterator[Memory]:
        """Append the frames of a part to a memory, or to a new one, and yield it after every batch.

        Args:
            part: what to watch.
            memory: is to go on with this video; None: a new one.
            source: the video, for the memory.
            report: called before the first batch and after each.
            num_processes: that decode, at most.
            stop: another thread sets it to end this.

        Raises:
            MemoryFileError: the memory does not go on with this video.
            VideoError, VideoLimitError, ConfigError, InputError: as `HourLlava.watch`.
            Cancelled: `stop` was set.
        """
        old = memory.snapshot() if memory is not None and len(memory) else None
        reader, num_frames = self._open(part, old, num_processes, stop)
        # A live source may be silent for long, so its frames are remembered before the next ones come.
        num_ahead = 0 if reader.info.is_live else BATCHES_AHEAD
        with (
            reader,
            closing(in_flight(reader, lambda batch: self._hand_over(batch.frames), num_ahead, stop)) as encoded,
        ):
            num_done, limits = 0, part.limits or VideoLimits()
            limits.check_frames(num_frames or 0, part.fps, reader.info.path)
            report(num_done, num_frames)
            for batch, features in encoded:
                num_known = 0 if old is None else num_remembered(old, features, batch)
                old = None
                if memory is None:
                    memory = self.empty(part.fps, source)
                if num_known < len(batch):
                    _append(memory, batch, features, num_known, reader, source)
                num_done += len(batch)
                limits.check_frames(num_done, part.fps, reader.info.path)
                report(num_done, num_frames)
                if num_known < len(batch):
                    yield memory
            if old is not None:
                num_remembered(old, torch.empty(0), None)
            if memory is not None:
                note(memory, gaps=[gap for gap in reader.gaps if gap not in memory.gaps])

    def _hand_over(self, frames_NHW3: npt.NDArray[np.uint8] | Tensor) -> Future[HostCopy]:
        return self._encode(self._encoder.staged(frames_NHW3))

    def _open(
        self, part: VideoPart, memory: MemorySnapshot | None, num_processes: int | None, stop: Stop | None
    ) -> tuple[FrameReader, int | None]:
        """A reader of the part, and how many frames it will give, about.

        With a memory, the reader starts at the last remembered frames: they are read again and compared.
        """
        size = self._encoder.model.config.vision_config.image_size

        def read(start: float, end: float | None) -> FrameReader:
            return read_frames(
                part.video,
                fps=part.fps,
                start_seconds=start,
                end_seconds=end,
                size_pixels=(size, size),
                allow_network=part.allow_network,
                allow_playlists=part.allow_playlists,
                num_processes=num_processes,
                budget=self._budget,
                limits=part.limits,
                stop=stop,
            )

        def bounds(offset_seconds: float) -> tuple[float, float | None]:
            """Start and end counted from the first picture, as the reader counts."""
            start = max(0.0, part.start_seconds - offset_seconds)
            end = None if part.end_seconds is None else max(0.0, part.end_seconds - offset_seconds)
            if memory is not None:
                start = max(0.0, resume_seconds(memory))
                end = None if end is None else max(end, float(memory.sample_seconds[-1]) + 0.5 / part.fps)
            return start, end

        reader = read(*bounds(0.0))
        exact = bounds(reader.info.player_offset_seconds)
        if exact != bounds(0.0):  # the reader has just found that sound comes before the first picture
            reader.close()
            if reader.info.is_live:
                raise VideoError(
                    f"{shown_name(part.video)} can be read only once, and its sound begins before its pictures, so "
                    "no part of it can be found: save it to a file, or watch all of it"
                )
            reader = read(*exact)
        start, end = exact
        ends = [seconds for seconds in (end, reader.info.duration_seconds) if seconds is not None]
        return reader, max(1, round((min(ends) - start) * part.fps)) if ends else None


def note(memory: Memory, gaps: Sequence[Gap] = (), source: WatchedSource | None = None) -> None:
    """Tell a memory what is known of its video, without frames."""
    memory.append(memory.features[:0], [], [], duration_seconds=memory.duration_seconds, gaps=gaps, source=source)


def _append(
    memory: Memory, batch: FrameBatch, features: Tensor, num_known: int, reader: FrameReader, source: WatchedSource
) -> None:
    """Append a batch, without its first frames if the memory knows them."""
    first_seconds = float((memory if len(memory) else batch).sample_seconds[0])
    shown_until = float(batch.sample_seconds[-1]) + 1.0 / memory.fps
    known_end = reader.info.duration_seconds
    duration = (shown_until if known_end is None else min(shown_until, known_end)) - first_seconds
    memory.append(
        features[num_known:],
        batch.timestamps_seconds[num_known:],
        batch.sample_seconds[num_known:],
        duration_seconds=duration,
        source=source,
        player_offset_seconds=reader.info.player_offset_seconds,
    )
