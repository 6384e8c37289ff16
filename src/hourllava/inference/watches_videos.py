"""The half of `HourLlava` that watches videos; the other half, `engine`, asks about them."""

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Unpack

import numpy as np
from torch import Tensor

from hourllava.inference.memories.encoder import EncoderIdentity
from hourllava.inference.memories.memory import Memory
from hourllava.inference.questions.options import WatchOptions
from hourllava.inference.watching.growing import VideoPart
from hourllava.inference.watching.job import WatchJob, attend
from hourllava.inference.watching.progress import OnProgress, Progress, progress_bar
from hourllava.inference.watching.watcher import Watcher
from hourllava.video.child import Stop


class WatchesVideos:
    """Makes memories of videos and of frames, for any number of threads at once.

    Args:
        watcher: of the model.
    """

    def __init__(self, watcher: Watcher) -> None:
        self._watcher = watcher

    @property
    def encoder(self) -> EncoderIdentity:
        """Identity of this model's vision encoder; `ask` refuses memories of another one."""
        return self._watcher.encoder

    def watch(
        self,
        video: str | Path,
        *,
        on_progress: OnProgress | None = None,
        cancel: Stop | None = None,
        progress: bool = True,
        **options: Unpack[WatchOptions],
    ) -> Memory:
        """Watch a video: decode it, encode its frames, keep their features.

            memory = model.watch("lecture.mp4", cache=MemoryCache())
            memory.save("lecture.memory.safetensors")

        A video that another thread watches already, with the same settings, is not watched again: both get the same
        memory. Ctrl-C, and an exception in `on_progress`, end the watching and its processes before they are raised.

        Args:
            video: a video file (docs/sources.md lists the formats), a folder of numbered frames, `-` for standard
                input, or a URL.
            on_progress: called in this thread, at most ten times a second and at the end; not if the cache has the
                memory.
            cancel: an event, such as a `threading.Event`, that another thread sets to end this within one batch of
                frames.
            progress: whether to show a progress bar on stderr.
            **options: see `WatchOptions`.

        Returns:
            the memory of `options` if it was given, else a new one.

        Raises:
            VideoError: the video cannot be read, shows nothing in that part, or changed while it was read.
            VideoLimitError: it is larger than `limits` allow.
            MemoryFileError: `memory` is of another video, encoder or frame rate.
            ConfigError: a number is outside what is allowed.
            InputError: the features are not finite: the weights are damaged.
            Cancelled: `cancel` was set.
        """
        job = self.start_watch(video, **options)
        with progress_bar(progress) as show:

            def tell(now: Progress) -> None:
                show(now)
                if on_progress is not None:
                    on_progress(now)

            return attend(job, tell, cancel)

    def start_watch(
        self, video: str | Path, *, keeps_running: bool = False, **options: Unpack[WatchOptions]
    ) -> WatchJob:
        """Begin to watch a video in a thread of its own, or join the job that watches it already.

            job = model.start_watch("lecture.mp4")
            memory = job.result()

        Args:
            video: as for `watch`.
            keeps_running: whether the job goes on when all callers have cancelled.
            **options: see `WatchOptions`.

        Raises:
            VideoError: there is no such video; what is found later is raised by `WatchJob.result`.
            MemoryFileError, ConfigError: as `watch`.
        """
        others: dict[str, Any] = dict(options)
        names = {field.name for field in dataclasses.fields(VideoPart)} & others.keys()
        part = VideoPart(video, **{name: others.pop(name) for name in names})
        return self._watcher.start(part, keeps_running=keeps_running, **others).keep(self)

    def follow(
        self,
        video: str | Path,
        *,
        fps: float = 1.0,
        allow_network: bool = False,
        allow_playlists: bool = False,
        num_processes: int | None = None,
        on_progress: OnProgress | None = None,
        cancel: Stop | None = None,
    ) -> Iterator[Memory]:
        """Watch a live source or a long file, and yield the growing memory after every batch of frames.

            for memory in model.follow("-"):  # standard input
                print(model.ask(memory, "What has just happened?").text)

        Any thread may ask about it at any time; an answer is about the frames that it has at that moment. Leaving the
        loop, or `close()`, ends the watching and its processes at once. The memory grows without bound, by 0.53 GB an
        hour at 1 FPS with the published models' tower, and takes up to three times that while it moves to a larger
        buffer: stop iterating when it is long enough.

        Args:
            video: as for `watch`.
            fps: frames sampled per second.
            allow_network, allow_playlists, num_processes: as for `watch`.
            on_progress: called in the thread that iterates, after every batch of frames.
            cancel: an event that another thread sets to end this, also while no frame comes.

        Yields:
            the same memory, longer each time.

        Raises:
            VideoError, ConfigError, InputError, Cancelled: as `watch`.
        """
        part = VideoPart(video, fps, allow_network=allow_network, allow_playlists=allow_playlists)
        memories = self._watcher.follow(part, on_progress=on_progress, cancel=cancel, num_processes=num_processes)
        return _kept(memories, self)

    def remember_frames(
        self, frames: Tensor | np.ndarray, timestamps_seconds: Sequence[float], *, duration_seconds: float | None = None
    ) -> Memory:
        """Make a memory of frames that the caller has.

        Args:
            frames: uint8 RGB [T, H, W, 3].
            timestamps_seconds: [T] when each frame appears, increasing, on any clock; evidence is on the same clock.
            duration_seconds: from the first frame to the end of the last one; by default the last frame stays for the
                median step.

        Raises:
            InputError: there are no frames, they have another form, or their number differs from that of the times.
        """
        return self._watcher.remember_frames(frames, timestamps_seconds, duration_seconds)


def _kept(memories: Iterator[Memory], model: WatchesVideos) -> Iterator[Memory]:
    """Memories from an iterator that keeps the model alive, whose thread encodes."""
    yield from memories
    del model
