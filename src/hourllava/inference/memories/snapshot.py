"""A memory at one moment: what questions, files and comparisons read. It never changes.

A `Memory` that grows publishes a new snapshot. So a thread can ask about one while another thread appends.

Shapes: T frames, C tower width.
"""

import hashlib
import math
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path, PureWindowsPath
from urllib.parse import urlsplit

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from hourllava.clock import format_clock
from hourllava.errors import InputError, MemoryFileError
from hourllava.inference.memories.encoder import EncoderIdentity
from hourllava.inference.memories.memory_file import Stamp, file_stamp, write_memory_file
from hourllava.video.types import Gap

Seconds = npt.NDArray[np.float64]

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


@dataclass(frozen=True, eq=False, repr=False)
class MemorySnapshot:
    """What a memory holds at one moment; from `Memory.snapshot`. It never changes, whatever the memory does later.

    Attributes:
        features: [T, grid * grid, C] on the CPU. It is not a copy: do not write to it.
        timestamps_seconds: [T] when each frame appears, counted from the first picture of the video.
        sample_seconds: [T] the sampled times, on the same clock.
        fps: frames sampled per second.
        duration_seconds: length of the watched part.
        source: the video.
        encoder: identity of the vision encoder; None if unknown (released feature files).
        gaps: unreadable stretches, on the same clock.
        player_offset_seconds: when a player shows the first picture.
        version: how often the frames, or the source, of the memory have changed. Results computed from another version
            are out of date.
        mapped_from: the file that `features` are mapped from, and its stamp when it was loaded; None if they were read.
    """

    features: Tensor
    timestamps_seconds: Seconds
    sample_seconds: Seconds
    fps: float
    duration_seconds: float
    source: WatchedSource
    encoder: EncoderIdentity | None
    gaps: tuple[Gap, ...]
    player_offset_seconds: float
    version: int = 0
    mapped_from: tuple[Path, Stamp] | None = None

    def __post_init__(self) -> None:
        for times in (self.timestamps_seconds, self.sample_seconds):
            times.flags.writeable = False

    def __len__(self) -> int:
        return len(self.timestamps_seconds)

    @property
    def num_frames(self) -> int:
        """T."""
        return len(self)

    @property
    def num_bytes(self) -> int:
        """Size of features and times. A saved file is some hundred bytes larger."""
        return self.features.nbytes + self.timestamps_seconds.nbytes + self.sample_seconds.nbytes

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
        shape = self.features.shape[1:]
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

    def check_file_unchanged(self) -> None:
        """Check that nobody has written into the file that features are mapped from.

        Raises:
            MemoryFileError: somebody has; load the file again.
        """
        if self.mapped_from is None:
            return
        path, before = self.mapped_from
        now = file_stamp(path)
        # Another file of that name does not matter: this memory still maps the old one.
        if now is not None and now[0] == before[0] and now != before:
            raise MemoryFileError(f"{path} was written to since it was loaded; load it again")

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the memory to a file; see `Memory.save`."""
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
            "timestamps_seconds": torch.tensor(self.timestamps_seconds),
            "sample_seconds": torch.tensor(self.sample_seconds),
        }
        write_memory_file(Path(path), tensors, fields)

    def __repr__(self) -> str:
        return (
            f"Memory({self.source.file_name}: {len(self)} frames at {self.fps:g} fps, "
            f"{format_clock(self.duration_seconds)}, {self.num_bytes / 1e6:.1f} MB)"
        )


def checked_features(features: Tensor, encoder: EncoderIdentity | None) -> Tensor:
    """Features on the CPU.

    Raises:
        InputError: they are no grids of finite numbers, or their shape is not that of the encoder.
    """
    if features.ndim != 3 or features.dtype not in _FEATURE_DTYPES:
        raise InputError(
            f"features must be floating-point [frames, tokens, width], got {features.dtype} {list(features.shape)}"
        )
    if encoder is not None and features.shape[1:] != encoder.frame_shape:
        raise InputError(
            f"features are {list(features.shape[1:])} a frame; their encoder makes {list(encoder.frame_shape)}"
        )
    return checked_finite(features.detach()).to("cpu").contiguous()


def checked_times(
    num_frames: int, timestamps_seconds: npt.ArrayLike, sample_seconds: npt.ArrayLike, *before: Seconds
) -> tuple[Seconds, Seconds]:
    """Timestamps and sample times: those of `before`, followed by the new ones.

    Raises:
        InputError: their number is another, they go back, or they are not finite.
    """
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


def checked_finite(features: Tensor) -> Tensor:
    """The features.

    Raises:
        InputError: a number is not finite.
    """
    # aminmax passes NaN on. For 80 MB it takes 5 ms, isfinite 200.
    if features.numel() and not all(math.isfinite(extreme) for extreme in torch.aminmax(features)):
        raise InputError(
            "features hold numbers that are not finite; encode the video in float32 or bfloat16, with undamaged weights"
        )
    return features


def checked_duration(seconds: float, name: str = "duration_seconds") -> float:
    """The length.

    Raises:
        InputError: it is not finite, or below 0.
    """
    if not (math.isfinite(seconds) and seconds >= 0):
        raise InputError(f"{name} is {seconds}; it must be 0 or more")
    return float(seconds)


def checked_gaps(gaps: Sequence[Gap]) -> tuple[Gap, ...]:
    """The gaps, as files and callers give them.

    Raises:
        InputError: a time is not finite.
    """
    checked = tuple(Gap(float(start), float(end), str(reason)) for start, end, reason in gaps)
    if not all(math.isfinite(gap.start_seconds) and math.isfinite(gap.end_seconds) for gap in checked):
        raise InputError("gaps must have finite times")
    return checked
