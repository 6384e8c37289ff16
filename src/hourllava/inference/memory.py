"""The memory of a watched video: pooled patch features and the time of every frame, asked any number of times.

A memory holds features after pooling and before the projector. They fit every checkpoint with the same vision tower
(stage 3 of training freezes it). An hour at 1 FPS has 3600 x 64 x 1152 numbers of two bytes, 0.53 GB. A memory is used
only where it fits: its video is compared by digest, its encoder by identity.

There are two clocks. A memory counts times from the first picture, because the model was trained so. A player counts
from the first picture or sound, whichever is earlier, and shows the first picture at `player_offset_seconds`. All times
for people (evidence, subtitles, JSON) are on the player's clock.

    memory = model.watch("lecture.mp4")
    memory.save("lecture.memory.safetensors")
    memory = Memory.load("lecture.memory.safetensors")

Shapes: T frames, C tower width.
"""

import copy
import hashlib
import math
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path, PureWindowsPath
from typing import Self
from urllib.parse import urlsplit

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from hourllava.clock import format_clock
from hourllava.errors import InputError, MemoryFileError
from hourllava.inference.encoder import EncoderIdentity
from hourllava.inference.memory_file import (
    Stamp,
    damaged,
    file_stamp,
    read_memory_file,
    read_released_features,
    write_memory_file,
)
from hourllava.video.types import Gap

Seconds = npt.NDArray[np.float64]

# Loading a file reads features up to this size and maps larger ones. An hour of nano's features has 22 MB.
MAX_READ_BYTES = 32 * 10**6

_FEATURE_DTYPES = (torch.bfloat16, torch.float16, torch.float32, torch.float64)


@dataclass(frozen=True)
class WatchedSource:
    """The video that a memory was made of.

    Attributes:
        name: path or URL as the user gave it. A saved memory holds only its last part, so that no folder, password or
            token leaks.
        digest: identity of the video's content, from `hourllava.video.source_digest`; None for frames given as arrays
            and for videos without an identity.

    Raises:
        InputError: the name or the digest is no text.
    """

    name: str
    digest: str | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not isinstance(self.digest, str | None):
            raise InputError(f"a source has a name and a digest, both text, got {self.name!r} and {self.digest!r}")

    @property
    def file_name(self) -> str:
        """The last part of the name."""
        path = urlsplit(self.name).path if "://" in self.name else self.name
        return PureWindowsPath(path).name  # splits at both kinds of slashes


class Memory:
    """What a model remembers of a video: pooled features of all frames, with times.

        memory = model.watch("lecture.mp4")
        memory.save("lecture.memory.safetensors")
        memory = Memory.load("lecture.memory.safetensors")
        answer = model.ask(memory, "When is the first graph shown?")

    No thread may read a memory while another appends to it. Tensors taken from `features` before an `append` stay
    valid.

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
        if features.ndim != 3 or features.dtype not in _FEATURE_DTYPES:
            raise InputError(
                f"features must be floating-point [frames, tokens, width], got {features.dtype} {list(features.shape)}"
            )
        if not (math.isfinite(fps) and fps > 0):
            raise InputError(f"fps is {fps}; it must be above 0")
        if encoder is not None and features.shape[1:] != encoder.frame_shape:
            raise InputError(
                f"features are {list(features.shape[1:])} a frame; their encoder makes {list(encoder.frame_shape)}"
            )
        self.fps = float(fps)
        self.source = source
        self.encoder = encoder
        self.timestamps_seconds, self.sample_seconds = _checked_times(
            len(features), timestamps_seconds, sample_seconds, np.empty(0), np.empty(0)
        )
        self.duration_seconds = _checked_duration(duration_seconds)
        self.gaps = _checked_gaps(gaps)
        self.player_offset_seconds = _checked_duration(player_offset_seconds, "player_offset_seconds")
        self.version = 0
        """How often frames were appended. Results computed from an older version are out of date."""
        # The first T entries of `_rows` are the features, the others are room to grow.
        self._rows = _checked_finite(features.detach()).to("cpu").contiguous()
        self._mapped: tuple[Path, Stamp] | None = (
            None  # the file that `_rows` is mapped from, and its stamp when loaded
        )

    def __len__(self) -> int:
        return len(self.timestamps_seconds)

    @property
    def num_frames(self) -> int:
        """T."""
        return len(self)

    @property
    def features(self) -> Tensor:
        """[T, grid * grid, C] on the CPU. It is not a copy: do not write to it."""
        return self._rows[: len(self)]

    @property
    def num_bytes(self) -> int:
        """Size of features and times. A saved file is some hundred bytes larger."""
        return self.features.nbytes + self.timestamps_seconds.nbytes + self.sample_seconds.nbytes

    def snapshot(self) -> Self:
        """All attributes at this moment. Later appends do not change them."""
        return copy.copy(self)

    @property
    def content_seed(self) -> int:
        """63-bit seed of forgetting, computed from the source's digest (if it has one) and the times of the frames.

        Features do not influence it: another device or dtype rounds them differently, and would then keep other tokens
        of the same video.
        """
        digest = hashlib.sha256(f"{self.source.digest} {len(self)}".encode())
        digest.update(self.timestamps_seconds.tobytes())
        digest.update(self.sample_seconds.tobytes())
        return int.from_bytes(digest.digest()[:8], "little") >> 1

    def append(
        self,
        features: Tensor,
        timestamps_seconds: npt.ArrayLike,
        sample_seconds: npt.ArrayLike,
        *,
        duration_seconds: float | None = None,
        gaps: Sequence[Gap] = (),
    ) -> None:
        """Add later frames. The buffer doubles when it is full, so frames may come one at a time.

        Args:
            features: [N, grid * grid, C] of the new frames, on any device; rounded to the memory's dtype.
            timestamps_seconds, sample_seconds: [N], later than the memory's own.
            duration_seconds: new length of the watched part; by default the last timestamp, if that is later than the
                old length.
            gaps: further unreadable stretches.

        Raises:
            InputError: shapes differ, times do not continue the memory's, or a feature is not finite. The memory is
                unchanged then.
        """
        if features.shape[1:] != self._rows.shape[1:]:
            raise InputError(
                f"appended features are {list(features.shape[1:])} a frame, the memory's {list(self._rows.shape[1:])}; "
                "encode them with the same encoder"
            )
        timestamps, samples = _checked_times(
            len(features), timestamps_seconds, sample_seconds, self.timestamps_seconds, self.sample_seconds
        )
        if duration_seconds is None:
            duration_seconds = max([self.duration_seconds, *timestamps[-1:].tolist()])
        duration_seconds, gaps = _checked_duration(duration_seconds), _checked_gaps(gaps)
        features = _checked_finite(features.detach().to(self._rows.dtype))
        if len(timestamps) > len(self._rows):
            grown = self._rows.new_empty(max(len(timestamps), 2 * len(self)), *self._rows.shape[1:])
            grown[: len(self)] = self.features
            self._rows, self._mapped = grown, None
        self._rows[len(self) : len(timestamps)] = features
        self.version += len(features) > 0
        self.timestamps_seconds, self.sample_seconds = timestamps, samples
        self.duration_seconds, self.gaps = duration_seconds, self.gaps + gaps

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
        name, again = self.source.file_name, "watch the video again with this model"
        shape = self._rows.shape[1:]
        if shape != encoder.frame_shape:
            raise MemoryFileError(
                f"the memory of {name} has {shape[0]} tokens of width {shape[1]} a frame, the model needs "
                f"{encoder.frame_shape[0]} of width {encoder.frame_shape[1]}; {again}"
            )
        if self.encoder is not None and self.encoder != encoder:
            raise MemoryFileError(
                f"the memory of {name} was made by another vision encoder ({self.encoder.digest[:12]}, the model's is "
                f"{encoder.digest[:12]}); {again}"
            )
        if fps is not None and not math.isclose(fps, self.fps, rel_tol=1e-6):
            raise MemoryFileError(
                f"the memory of {name} holds {self.fps:g} frames per second, asked for were {fps:g}; watch the video "
                f"again at {fps:g}, or ask at {self.fps:g}"
            )
        if digest is not None and digest != self.source.digest:
            got = "is of another video, or the video has changed since" if self.source.digest else "names no video file"
            raise MemoryFileError(f"the memory of {name} {got}; watch the video again")

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the memory to a file. Whatever happens, the file is the old one or the whole new one.

        Args:
            path: of the file; `hourllava ask` takes names that end in `.safetensors`. Its folder must exist.

        Raises:
            MemoryFileError: the disk is full, or the place cannot be written to.
        """
        fields = {
            "fps": self.fps,
            "duration_seconds": self.duration_seconds,
            "source": {"name": self.source.file_name, "digest": self.source.digest},
            "encoder": None if self.encoder is None else asdict(self.encoder),
            "gaps": self.gaps,
            "player_offset_seconds": self.player_offset_seconds,
        }
        tensors = {
            "features": self.features,
            "timestamps_seconds": torch.from_numpy(self.timestamps_seconds),
            "sample_seconds": torch.from_numpy(self.sample_seconds),
        }
        write_memory_file(Path(path), tensors, fields)

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
            memory._mapped = path.absolute(), stamp
        return memory

    def check_file_unchanged(self) -> None:
        """Check that nobody has written into the file that features are mapped from.

        Raises:
            MemoryFileError: somebody has; load the file again.
        """
        if self._mapped is None:
            return
        path, before = self._mapped
        now = file_stamp(path)
        # Another file of that name does not matter: this memory still maps the old one.
        if now is not None and now[0] == before[0] and now != before:
            raise MemoryFileError(f"{path} was written to since it was loaded; load it again")

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

    def __repr__(self) -> str:
        return (
            f"Memory({self.source.file_name}: {len(self)} frames at {self.fps:g} fps, "
            f"{format_clock(self.duration_seconds)}, {self.num_bytes / 1e6:.1f} MB)"
        )


def _checked_times(
    num_frames: int, timestamps_seconds: npt.ArrayLike, sample_seconds: npt.ArrayLike, *before: Seconds
) -> tuple[Seconds, Seconds]:
    """Timestamps and sample times: those of `before`, followed by the new ones."""
    new = [np.array(times, np.float64) for times in (timestamps_seconds, sample_seconds)]
    if any(times.shape != (num_frames,) for times in new):
        shapes = " and ".join(str(list(times.shape)) for times in new)
        raise InputError(f"{num_frames} frames need as many timestamps and sample times, got {shapes}")
    if not all(np.isfinite(times).all() for times in new):
        raise InputError("timestamps and sample times must be finite numbers of seconds")
    timestamps, samples = (np.concatenate(pair) for pair in zip(before, new))
    if (np.diff(timestamps) < 0).any():
        raise InputError("timestamps go back in time; give frames in the order of presentation, after the memory's own")
    if (np.diff(samples) <= 0).any():
        raise InputError("sample times must increase; the same frames may have been given twice")
    return timestamps, samples


def _checked_finite(features: Tensor) -> Tensor:
    # aminmax passes NaN on. For 80 MB it takes 5 ms, isfinite 200.
    if features.numel() and not all(math.isfinite(extreme) for extreme in torch.aminmax(features)):
        raise InputError(
            "features hold numbers that are not finite; encode the video in float32 or bfloat16, with undamaged weights"
        )
    return features


def _checked_duration(seconds: float, name: str = "duration_seconds") -> float:
    if not (math.isfinite(seconds) and seconds >= 0):
        raise InputError(f"{name} is {seconds}; it must be 0 or more")
    return float(seconds)


def _checked_gaps(gaps: Sequence[Gap]) -> tuple[Gap, ...]:
    checked = tuple(Gap(float(start), float(end), str(reason)) for start, end, reason in gaps)
    if not all(math.isfinite(gap.start_seconds) and math.isfinite(gap.end_seconds) for gap in checked):
        raise InputError("gaps must have finite times")
    return checked
