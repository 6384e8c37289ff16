"""The memory of a watched video: pooled patch features and the time of every frame, asked any number of times.

A memory holds features after pooling and before the projector. They fit every checkpoint with the same vision tower
(stage 3 of training freezes it). An hour at 1 FPS has 3600 x 64 x 1152 numbers of two bytes, 0.53 GB. A memory is used
only where it fits: its video is compared by digest, its encoder by identity.

There are two clocks. A memory counts times from the first picture, because the model was trained so. A player counts
from the first picture or sound, whichever is earlier, and shows the first picture at `player_offset_seconds`. All times
for people (evidence, subtitles, JSON) are on the player's clock.

A memory can grow while other threads read it and ask about it: they see the state before an `append` or the state after
it, never a mixture (snapshot.py).

    memory = model.watch("lecture.mp4")
    memory.save("lecture.memory.safetensors")
    memory = Memory.load("lecture.memory.safetensors")

Shapes: T frames, C tower width.
"""

import math
import os
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from hourllava.errors import InputError, MemoryFileError
from hourllava.inference.memories.encoder import EncoderIdentity
from hourllava.inference.memories.memory_file import damaged, file_stamp, read_memory_file, read_released_features
from hourllava.inference.memories.snapshot import (
    MemorySnapshot,
    Seconds,
    WatchedSource,
    checked_duration,
    checked_features,
    checked_finite,
    checked_gaps,
    checked_times,
)
from hourllava.video.types import Gap

# Loading a file reads features up to this size and maps larger ones. An hour of nano's features has 22 MB.
MAX_READ_BYTES = 32 * 10**6

_appending = threading.Lock()  # held while rows are appended to any memory


class Memory:
    """What a model remembers of a video: pooled features of all frames, with times.

        memory = model.watch("lecture.mp4")
        memory.save("lecture.memory.safetensors")
        memory = Memory.load("lecture.memory.safetensors")
        answer = model.ask(memory, "When is the first graph shown?")

    Threads may read a memory, save it and ask about it while another thread appends to it. Each attribute is that of
    the present `snapshot()`. Take one snapshot to read several attributes of one moment. Snapshots, and tensors and
    arrays taken from a memory, never change.

    Args:
        features: [T, grid * grid, C] pooled features, finite, of any floating dtype. T may be 0: such a memory can grow
            but not be asked.
        timestamps_seconds: [T] when each frame appears, counted from the first picture of the video, not decreasing.
        sample_seconds: [T] the sampled times, on the same clock, increasing. At each, its frame was on screen.
        fps: frames sampled per second.
        duration_seconds: length of the watched part.
        source: the video.
        encoder: identity of the vision encoder; None if unknown (released feature files).
        gaps: unreadable stretches, on the same clock.
        player_offset_seconds: when a player shows the first picture; 7 if the sound begins 7 s before it.

    Raises:
        InputError: a shape, a time or a number is not as described.
    """

    def __init__(
        self,
        features: Tensor,
        timestamps_seconds: npt.ArrayLike,
        sample_seconds: npt.ArrayLike,
        *,
        fps: float,
        duration_seconds: float,
        source: WatchedSource,
        encoder: EncoderIdentity | None = None,
        gaps: Sequence[Gap] = (),
        player_offset_seconds: float = 0.0,
    ) -> None:
        if not (math.isfinite(fps) and fps > 0):
            raise InputError(f"fps is {fps}; it must be above 0")
        no_times = np.empty(0)
        self._snapshot = MemorySnapshot(
            checked_features(features, encoder),
            *checked_times(len(features), timestamps_seconds, sample_seconds, no_times, no_times),
            fps=float(fps),
            duration_seconds=checked_duration(duration_seconds),
            source=source,
            encoder=encoder,
            gaps=checked_gaps(gaps),
            player_offset_seconds=checked_duration(player_offset_seconds, "player_offset_seconds"),
        )
        # The first T entries are the features of the snapshot, the others are room to grow.
        self._rows = self._snapshot.features

    def snapshot(self) -> MemorySnapshot:
        """All attributes at this moment. Later appends do not change them."""
        return self._snapshot

    def append(
        self,
        features: Tensor,
        timestamps_seconds: npt.ArrayLike,
        sample_seconds: npt.ArrayLike,
        *,
        duration_seconds: float | None = None,
        gaps: Sequence[Gap] = (),
        source: WatchedSource | None = None,
        player_offset_seconds: float | None = None,
    ) -> None:
        """Add later frames. The buffer doubles when it is full, so frames may come one at a time.

        Args:
            features: [N, grid * grid, C] of the new frames, on any device; rounded to the memory's dtype. N may be 0.
            timestamps_seconds, sample_seconds: [N], later than the memory's own.
            duration_seconds: new length of the watched part; by default the last timestamp, if that is later than the
                old length.
            gaps: further unreadable stretches.
            source: the video as it is now, if it has changed.
            player_offset_seconds: when a player shows the first picture, if that was not known before.

        Raises:
            InputError: shapes differ, times do not continue the memory's, or a feature is not finite. The memory is
                unchanged then.
        """
        with _appending:
            now = self._snapshot
            if features.shape[1:] != now.features.shape[1:]:
                raise InputError(
                    f"appended features are {list(features.shape[1:])} a frame, the memory's "
                    f"{list(now.features.shape[1:])}; encode them with the same encoder"
                )
            timestamps, samples = checked_times(
                len(features), timestamps_seconds, sample_seconds, now.timestamps_seconds, now.sample_seconds
            )
            if duration_seconds is None:
                duration_seconds = max([now.duration_seconds, *timestamps[-1:].tolist()])
            offset = now.player_offset_seconds if player_offset_seconds is None else player_offset_seconds
            rows = self._grown_rows(checked_finite(features.detach().to(self._rows.dtype)))
            now = replace(
                now,
                features=rows[: len(timestamps)],
                timestamps_seconds=timestamps,
                sample_seconds=samples,
                duration_seconds=checked_duration(duration_seconds),
                source=source or now.source,
                gaps=now.gaps + checked_gaps(gaps),
                player_offset_seconds=checked_duration(offset, "player_offset_seconds"),
                version=now.version + (len(features) > 0 or source not in (None, now.source)),
                mapped_from=now.mapped_from if rows is self._rows else None,
            )
            self._rows, self._snapshot = rows, now

    def _grown_rows(self, new: Tensor) -> Tensor:
        """The rows with new ones behind those of the snapshot, in a larger buffer if there is no room."""
        rows, count = self._rows, len(self)
        with torch.inference_mode(False):  # a later append may be outside of it, and could not write to such a tensor
            if count + len(new) > len(rows):
                rows = rows.new_empty(max(count + len(new), 2 * count), *rows.shape[1:])
                rows[:count] = self.features
            if len(new):
                rows[count : count + len(new)] = new
        return rows

    def check_fits(self, encoder: EncoderIdentity, *, fps: float | None = None, digest: str | None = None) -> None:
        """Check that this memory was made by an encoder, and optionally at a frame rate and of a video.

        If the memory's encoder is unknown (released files), only the shape of its features is compared.

        Args:
            encoder: of the model that is asked.
            fps: wanted frames per second; None accepts any.
            digest: of the video as it is now; None accepts any.

        Raises:
            MemoryFileError: something differs; the message says what.
        """
        self._snapshot.check_fits(encoder, fps=fps, digest=digest)

    def check_file_unchanged(self) -> None:
        """Check that nobody has written into the file that features are mapped from.

        Raises:
            MemoryFileError: somebody has; load the file again.
        """
        self._snapshot.check_file_unchanged()

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the memory to a file. Whatever happens, the file is the old one or the whole new one.

        Args:
            path: of the file; `hourllava ask` takes names that end in `.safetensors`. Its folder must exist.

        Raises:
            MemoryFileError: the disk is full, or the place cannot be written to.
        """
        self._snapshot.save(path)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Open a saved memory.

        Features of more than 32 MB are mapped, not read, so they stay in the file. Another `save` to the same name and
        removing the file are safe: this memory keeps the old content. Writing into the file in place (as `cp` does) is
        not: the next question is refused, and if the file is cut during an answer the process ends (SIGBUS). Files of
        version 1 lack `player_offset_seconds`; it is 0.

        Raises:
            MemoryFileError: there is no such file, or it is cut short, damaged, no memory, or of another version.
        """
        path = Path(path)
        stamp = file_stamp(path)
        tensors, fields = read_memory_file(path)
        try:
            fields["source"] = WatchedSource(**fields["source"])
            if fields["encoder"] is not None:
                fields["encoder"] = EncoderIdentity(**fields["encoder"])
            times = (tensors[name].numpy() for name in ("timestamps_seconds", "sample_seconds"))
            features = tensors["features"]
            is_mapped = features.nbytes > MAX_READ_BYTES
            memory = cls(features if is_mapped else features.clone(), *times, **fields)
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise damaged(path, error) from error
        if is_mapped and stamp is not None:
            memory._snapshot = replace(memory._snapshot, mapped_from=(path.absolute(), stamp))
        return memory

    @classmethod
    def load_released(cls, path: str | os.PathLike[str]) -> Self:
        """Read a feature file of the release: a pickle `{"vid_feat": [T, 64, 1152], "duration": seconds}`.

        `min(T, whole seconds)` of its frames are kept, evenly spaced, as the release does in training. The file has no
        times, so its T frames count as evenly spaced from 0 to the duration. The encoder is unknown.

        Raises:
            MemoryFileError: the file is missing, damaged, of another shape, or holds anything but tensors and numbers.
        """
        path = Path(path)
        features, times_seconds, duration_seconds = read_released_features(path)
        fps = len(features) / max(int(duration_seconds), 1)
        source = WatchedSource(path.name)
        try:
            return cls(
                features, times_seconds, times_seconds, fps=fps, duration_seconds=duration_seconds, source=source
            )
        except InputError as error:
            raise MemoryFileError(f"{path} is refused: {error}; download it again") from error

    @property
    def num_frames(self) -> int:
        """T."""
        return len(self._snapshot)

    @property
    def features(self) -> Tensor:
        """[T, grid * grid, C] on the CPU. It is not a copy: do not write to it."""
        return self._snapshot.features

    @property
    def timestamps_seconds(self) -> Seconds:
        """[T] when each frame appears, counted from the first picture of the video."""
        return self._snapshot.timestamps_seconds

    @property
    def sample_seconds(self) -> Seconds:
        """[T] the sampled times, on the same clock."""
        return self._snapshot.sample_seconds

    @property
    def fps(self) -> float:
        """Frames sampled per second."""
        return self._snapshot.fps

    @property
    def duration_seconds(self) -> float:
        """Length of the watched part."""
        return self._snapshot.duration_seconds

    @property
    def source(self) -> WatchedSource:
        """The video."""
        return self._snapshot.source

    @property
    def encoder(self) -> EncoderIdentity | None:
        """Identity of the vision encoder; None if unknown."""
        return self._snapshot.encoder

    @property
    def gaps(self) -> tuple[Gap, ...]:
        """Unreadable stretches, on the clock of the samples."""
        return self._snapshot.gaps

    @property
    def player_offset_seconds(self) -> float:
        """When a player shows the first picture."""
        return self._snapshot.player_offset_seconds

    @property
    def version(self) -> int:
        """How often the frames, or the source, have changed. Results computed from another version are out of date."""
        return self._snapshot.version

    @property
    def num_bytes(self) -> int:
        """Size of features and times. A saved file is some hundred bytes larger."""
        return self._snapshot.num_bytes

    @property
    def content_seed(self) -> int:
        """63-bit seed of forgetting, computed from the source's digest (if it has one) and the times of the frames."""
        return self._snapshot.content_seed

    def __len__(self) -> int:
        return len(self._snapshot)

    def __repr__(self) -> str:
        return repr(self._snapshot)

    def __getstate__(self) -> MemorySnapshot:
        return self._snapshot

    def __setstate__(self, snapshot: MemorySnapshot) -> None:
        self._snapshot, self._rows = snapshot, snapshot.features  # a copy has no room, so it grows on its own


def _renew_lock() -> None:
    """The thread that holds the lock does not exist in a forked process."""
    global _appending
    _appending = threading.Lock()


os.register_at_fork(after_in_child=_renew_lock)
