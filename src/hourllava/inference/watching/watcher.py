"""Watching: decode a video, encode its frames, keep their features as a memory.

    watcher = Watcher(encoder, encode)
    memory = attend(watcher.start(VideoPart("lecture.mp4", end_seconds=600.0)))

Frames are encoded by the thread that owns the device.
"""

import dataclasses
import functools
import logging
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from hourllava.errors import InputError, MemoryFileError, VideoError
from hourllava.inference.memories.cache import MemoryCache
from hourllava.inference.memories.encoder import EncoderIdentity
from hourllava.inference.memories.memory import Memory
from hourllava.inference.memories.snapshot import WatchedSource
from hourllava.inference.watching.frame_encoder import Encode, FrameEncoder
from hourllava.inference.watching.growing import MemoryGrower, VideoPart, note
from hourllava.inference.watching.job import WatchJob, WatchJobs, cached_job
from hourllava.inference.watching.progress import OnProgress, ProgressMeter
from hourllava.inference.watching.run import Run
from hourllava.video import SourceState, shown_name, source_state
from hourllava.video.budget import ProcessBudget
from hourllava.video.child import Stop
from hourllava.video.source import SourceKind, resolve_source

_log = logging.getLogger(__name__)


class Watcher:
    """Makes memories with the vision tower of one model. Threads may use it.

    Args:
        encoder: the tower.
        encode: hands frames to the thread that owns the device, which calls `encoder.launch`.
        budget: the decoding processes of all videos together; None: one for each usable core, at most 16.

    Attributes:
        frame_encoder: as given.
    """

    def __init__(
        self,
        encoder: FrameEncoder,
        encode: Encode,
        budget: ProcessBudget | None = None,
    ) -> None:
        self.frame_encoder = encoder
        self._grower = MemoryGrower(encoder, encode, budget or ProcessBudget())
        self._jobs = WatchJobs()
        self._num_closed = 0

    @property
    def encoder(self) -> EncoderIdentity:
        """Identity of the tower; it is computed once."""
        return self.frame_encoder.identity

    def start(
        self,
        part: VideoPart,
        *,
        memory: Memory | None = None,
        cache: MemoryCache | None = None,
        digest: str | None = None,
        num_processes: int | None = None,
        keeps_running: bool = False,
    ) -> WatchJob:
        """Begin to watch a part of a video, or join the job that does; see `HourLlava.start_watch`."""
        # The digest is taken before anything is read: the cache must keep a memory under the digest of its content.
        state = _state(part, digest, ask_server=cache is not None and memory is None)
        name = shown_name(part.video)
        if memory is not None:
            memory.check_fits(self.encoder, fps=part.fps)
            cache = None
        elif cache is not None and state.digest is None:
            _log.warning("the memory is not kept: nothing identifies the content of %s", state.source.location)
            cache = None
        identity = (
            None
            if state.digest is None
            else Identity(state.digest, part.fps, self.encoder, part.start_seconds, part.end_seconds)
        )
        equal = object() if identity is None else (identity, None if memory is None else id(memory))
        job = self._jobs.join(equal, cache, keeps_running=keeps_running)
        if job is not None:
            return job
        if cache is not None and identity is not None and (cached := cache.get(cache.key(*identity))) is not None:
            if state.source.kind is not SourceKind.URL:
                state.is_unchanged()  # raises if the file is another one by now
            return cached_job(name, cached)

        def work(run: Run) -> Memory:
            source = WatchedSource(name, state.digest)
            grown = self._grower.grow(part, memory, source, run.report, num_processes=num_processes, stop=run.stop)
            longest = functools.reduce(lambda _, longer: longer, grown, memory)
            if longest is None:
                raise _shows_nothing(part)
            _keep(longest, state, identity, run.close_caches())
            return longest

        return self._jobs.start(equal, name, work, cache, keeps_running=keeps_running)

    def ask_to_close(self) -> None:
        """Cancel all jobs and what `follow` gives, without waiting for them."""
        self._num_closed += 1
        self._jobs.ask_to_close()

    def close(self) -> None:
        """As `ask_to_close`, and wait until the threads and processes of jobs are gone."""
        self._num_closed += 1
        self._jobs.close()

    def follow(
        self,
        part: VideoPart,
        *,
        on_progress: OnProgress | None = None,
        cancel: Stop | None = None,
        num_processes: int | None = None,
    ) -> Iterator[Memory]:
        """The growing memory of a part of a video, after every batch of frames; see `HourLlava.follow`."""
        meter = ProgressMeter()

        def report(frames_done: int, frames_total: int | None) -> None:
            if on_progress is not None:
                on_progress(meter.at(frames_done, frames_total))

        source = WatchedSource(shown_name(part.video), None)
        num_closed = self._num_closed
        stop = _Either(cancel, lambda: self._num_closed != num_closed)
        return self._grower.grow(part, None, source, report, num_processes=num_processes, stop=stop)

    def remember_frames(
        self, frames: Tensor | np.ndarray, timestamps_seconds: Sequence[float], duration_seconds: float | None
    ) -> Memory:
        """The memory of given frames; see `HourLlava.remember_frames`."""
        if frames.ndim != 4 or frames.shape[-1] != 3 or frames.dtype not in (torch.uint8, np.uint8):
            raise InputError(f"frames must be uint8 [T, H, W, 3], got {frames.dtype} {list(frames.shape)}")
        times = np.asarray(timestamps_seconds, np.float64)
        if len(times) != len(frames) or not len(times):
            raise InputError(
                f"got {len(frames)} frames and {len(times)} times; give one time for each frame, at least one"
            )
        step = float(np.median(np.diff(times))) if len(times) > 1 else 1.0
        memory = self._grower.empty(1.0 / step if step > 0 else 1.0, WatchedSource("frames", None))
        length = float(times[-1] - times[0] + step) if duration_seconds is None else duration_seconds
        self._grower.add_frames(memory, torch.as_tensor(frames), times, length)
        return memory


@dataclasses.dataclass(frozen=True)
class _Either:
    """A stop for two reasons: the caller's own, and the end of the model."""

    cancel: Stop | None
    is_closed: Callable[[], bool]

    def is_set(self) -> bool:
        return self.is_closed() or (self.cancel is not None and self.cancel.is_set())


class Identity(NamedTuple):
    """What decides the content of a memory: the arguments of `MemoryCache.key`."""

    digest: str
    fps: float
    encoder: EncoderIdentity
    start_seconds: float
    end_seconds: float | None


def _state(part: VideoPart, digest: str | None, *, ask_server: bool) -> SourceState:
    allowed = {"allow_network": part.allow_network, "allow_playlists": part.allow_playlists}
    if digest is None:
        return source_state(part.video, ask_server=ask_server, **allowed)
    return dataclasses.replace(SourceState.of(resolve_source(part.video, **allowed)), digest=digest)


def _shows_nothing(part: VideoPart) -> VideoError:
    name, end = shown_name(part.video), "its end" if part.end_seconds is None else f"{part.end_seconds:g} s"
    return VideoError(f"{name} shows nothing from {part.start_seconds:g} s to {end}; choose another part")


def _keep(memory: Memory, state: SourceState, identity: Identity | None, caches: list[MemoryCache]) -> None:
    """Keep a memory in caches, if the video is still the one whose identity this is."""
    if identity is None:
        return
    if not state.is_unchanged():
        note(memory, source=WatchedSource(memory.source.name, None))
        if caches:
            _log.warning("the memory is not kept: %s grew or changed while it was read", memory.source.name)
        return
    for cache in caches:
        try:
            cache.put(cache.key(*identity), memory)
        except MemoryFileError as error:  # a full disk must not cost the answer
            _log.warning("the memory is not kept for the next time: %s", error)
