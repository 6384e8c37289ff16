"""Memory files, ours and the release's. Ours are written so that a file is either whole or not there.

A safetensors file holds `features` [T, tokens, C] in the dtype of the memory, and `timestamps_seconds` and
`sample_seconds` float64 [T]; everything else is JSON under one metadata key. Reading maps the file: an hour (0.5 GB)
opens in milliseconds, a day (12 GB) too, and pages come from the disk when they are looked at (`Memory.load` looks at
all of them once, 35 ms for an hour that is in the page cache). Safetensors knows how
long a file must be, so one that was cut short is refused unread; flipped bits in the features are not noticed, unless
they make a number infinite.
"""

import contextlib
import fcntl
import json
import math
import os
import pickle
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from hourllava.errors import MemoryFileError
from hourllava.model.forgetting import evenly_spaced

FORMAT_VERSION = 2
"""Grows when older versions of this library could not read the file, or would read it wrongly.

Version 1 lacks `player_offset_seconds`: it is read as 0, a video whose first picture comes at 0 of the player's clock.
"""

READ_VERSIONS = (1, FORMAT_VERSION)

UNFINISHED_SUFFIX = ".unfinished"
"""Ends the name of the folder in which a file is written; one is left behind only by a process that was killed."""

# A folder of this age that nobody has locked was left behind: a young one may not have been locked yet. On file systems
# without locks a file being written still changes all the time, but for the last flush.
_UNLOCKED_FOR_SECONDS = 10.0
_UNFINISHED_FOR_SECONDS = 900.0

_METADATA_KEY = "hourllava_memory"
_MAX_HEADER_BYTES = 2**20  # of a file's description, that two states of it are compared by

# What torch.load raises for bytes that are no pickle of tensors, besides its refusals (UnpicklingError).
_PICKLE_ERRORS = (
    pickle.UnpicklingError,
    OSError,  # a seek beyond the end
    RuntimeError,
    EOFError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
)


def write_memory_file(path: Path, tensors: dict[str, Tensor], fields: dict[str, Any]) -> None:
    """Write a memory file, replacing one that is there only when the new one is whole and on the disk.

    Args:
        path: where to; its folder must exist.
        tensors: contiguous, on the CPU; not copied.
        fields: plain data.

    Raises:
        MemoryFileError: the file cannot be written; what was there is unchanged.
    """
    _check_place(path)
    metadata = {_METADATA_KEY: json.dumps({"format_version": FORMAT_VERSION, **fields})}
    try:
        remove_unfinished(path.parent, path.name)
        # In a folder of its own, because safetensors writes under further names that are its own choice.
        with (
            tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.", suffix=UNFINISHED_SUFFIX) as folder,
            _locked(folder),
        ):
            unfinished = Path(folder, "memory")
            unfinished.touch()
            mode = unfinished.stat().st_mode  # as the user's umask has it; safetensors would allow the owner only
            save_file(tensors, unfinished, metadata)
            unfinished.chmod(mode)
            _flush_to_disk(unfinished)
            unfinished.replace(path)
        _flush_to_disk(path.parent)
    except (OSError, SafetensorError) as error:
        reason = str(error).removeprefix("Error while serializing: ")
        raise MemoryFileError(
            f"{path} cannot be written ({reason}); free space there or choose a folder you may write to"
        ) from error


def remove_unfinished(folder: Path, name: str | None = None) -> None:
    """Remove what processes that were killed while writing have left in a folder.

    Args:
        folder: where memories are kept.
        name: of the memory file; None for all.
    """
    for left in folder.glob(f".*{UNFINISHED_SUFFIX}"):
        if name is not None and not left.name.startswith(f".{name}."):
            continue
        with contextlib.suppress(OSError):  # just finished, or another user's
            changed_seconds = max(path.stat().st_mtime for path in (left, *left.iterdir()))
            age_seconds = time.time() - changed_seconds
            if age_seconds > _UNFINISHED_FOR_SECONDS or (age_seconds > _UNLOCKED_FOR_SECONDS and _is_abandoned(left)):
                shutil.rmtree(left, ignore_errors=True)


@contextlib.contextmanager
def _locked(folder: str) -> Iterator[None]:
    """While it lasts, other processes see that the folder is in use; the kernel ends it with this process."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)


def _is_abandoned(folder: Path) -> bool:
    """Whether no process holds the lock of a folder; False where the file system has no locks."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return True


def read_memory_file(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """All of a memory file: tensors mapped into memory, and the fields given to `write_memory_file`.

    Raises:
        MemoryFileError: there is no such file, or it is cut short, damaged, no memory, or of another version.
    """
    try:
        _check_regular(path)
        with safe_open(path, framework="pt") as file:
            fields = _fields(path, file.metadata())
            return {name: file.get_tensor(name) for name in file.keys()}, fields  # noqa: SIM118  # not a dictionary
    except (OSError, SafetensorError, RuntimeError) as error:
        reason = _why_unreadable(path, error)
        raise _unreadable(path, reason) from reason


def read_fields(path: Path) -> tuple[int, dict[str, Any]]:
    """Number of frames and fields of a memory file; its features are not touched.

    Raises:
        MemoryFileError: as `read_memory_file`.
    """
    try:
        _check_regular(path)
        with safe_open(path, framework="pt") as file:
            fields = _fields(path, file.metadata())
            return file.get_slice("features").get_shape()[0], fields
    except (OSError, SafetensorError, RuntimeError, IndexError) as error:
        reason = _why_unreadable(path, error)
        raise _unreadable(path, reason) from reason


def read_released_features(path: Path) -> tuple[Tensor, npt.NDArray[np.float64], float]:
    """A feature file of the release (a pickle): features [T, tokens, C], times [T] and duration, both in seconds.

    Raises:
        MemoryFileError: as `open_released_features`.
    """
    features, duration_seconds = open_released_features(path)
    chosen = evenly_spaced(len(features), num_released_frames(len(features), duration_seconds))
    times_seconds = np.linspace(0.0, duration_seconds, len(features))[chosen]
    return features[torch.from_numpy(chosen)], times_seconds, duration_seconds


def num_released_frames(num_stored_frames: int, duration_seconds: float) -> int:
    """How many frames of a released feature file are used: one a second, if there are so many."""
    return min(num_stored_frames, max(int(duration_seconds), 1))


def open_released_features(path: Path) -> tuple[Tensor, float]:
    """What a feature file of the release holds: features [frames, tokens, C], mapped and not read, and seconds.

    Raises:
        MemoryFileError: the file is missing, damaged, of another shape, or holds anything but tensors and numbers.
    """
    try:
        _check_regular(path)
        # Nothing but tensors and plain data is read; anything else in the pickle is an error.
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except FileNotFoundError as error:
        raise MemoryFileError(f"there is no feature file {path}") from error
    except (PermissionError, IsADirectoryError) as error:
        raise MemoryFileError(f"{path} cannot be read ({error.strerror}); give a released .pt file") from error
    except _PICKLE_ERRORS as error:
        raise MemoryFileError(
            f"{path} is refused: it is damaged, or a pickle of more than tensors and numbers; download it again"
        ) from error
    if not isinstance(content, dict) or not {"vid_feat", "duration"} <= content.keys():
        raise MemoryFileError(f'{path} is no released feature file: it must hold "vid_feat" and "duration"')
    features, duration_seconds = content["vid_feat"], content["duration"]
    if not isinstance(features, Tensor) or features.ndim != 3 or 0 in features.shape:
        raise MemoryFileError(f'{path} holds a "vid_feat" that is no tensor [frames, tokens, width]; download it again')
    if not isinstance(duration_seconds, int | float) or not (math.isfinite(duration_seconds) and duration_seconds > 0):
        raise MemoryFileError(f'{path} holds a "duration" of {duration_seconds!r}; it must be seconds above 0')
    return features, float(duration_seconds)


Stamp = tuple[int, int, bytes]
"""Inode, length and description of a memory file."""


def file_stamp(path: Path) -> Stamp | None:
    """What tells whether a memory file is another one than before; None if there is none.

    Files of the cache get a new date when they are used, so the date says nothing.
    """
    try:
        if not path.is_file():  # a pipe would be waited for
            return None
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            num_bytes = int.from_bytes(file.read(8), "little")
            return status.st_ino, status.st_size, file.read(min(num_bytes, _MAX_HEADER_BYTES))
    except OSError:
        return None


def damaged(path: Path, reason: object) -> MemoryFileError:
    """The error for a file that is, or was meant to be, a memory file but cannot be used."""
    return MemoryFileError(
        f"{path} is no memory file, or cut short or damaged ({reason}); give a file that "
        "Memory.save has written, or watch the video again"
    )


def _fields(path: Path, metadata: dict[str, str] | None) -> dict[str, Any]:
    if _METADATA_KEY not in (metadata or {}):
        raise MemoryFileError(f"{path} is a safetensors file but no memory file; give one that Memory.save has written")
    assert metadata is not None
    try:
        fields = json.loads(metadata[_METADATA_KEY])
        version = fields.pop("format_version")
    except (ValueError, AttributeError, KeyError, TypeError, RecursionError) as error:
        raise damaged(path, f"its description cannot be read: {error!r}") from error
    if version not in READ_VERSIONS:
        raise MemoryFileError(
            f"{path} is a memory of format version {version}, this version of hourllava reads up to {FORMAT_VERSION}; "
            "watch the video again, or read the file with the version of hourllava that wrote it"
        )
    return fields


def _why_unreadable(path: Path, error: Exception) -> Exception:
    """Safetensors calls every file missing that it cannot open; one removed meanwhile is an error of its mapping."""
    try:
        path.open("rb").close()
    except OSError as reason:
        return reason
    return error


def _unreadable(path: Path, error: Exception) -> MemoryFileError:
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return MemoryFileError(f"there is no memory file {path}; watch the video first, then save its memory there")
    if isinstance(error, OSError):
        return MemoryFileError(f"{path} cannot be read ({error.strerror or error}); give a memory file you may read")
    if path.suffix in (".pt", ".pth"):
        return MemoryFileError(f"{path} is no memory file; read released features with Memory.load_released")
    return damaged(path, error)


def _check_regular(path: Path) -> None:
    """Refuse what would be waited for or cannot be a name.

    Raises:
        OSError: there is no such file, or it may not be looked at.
        MemoryFileError: it is a pipe, device or socket, or the name holds a NUL.
    """
    _check_place(path)
    mode = path.stat().st_mode
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):  # folders are refused by whoever opens them
        raise MemoryFileError(f"{path} is no regular file; save the memory to a file and give that")


def _check_place(path: Path) -> None:
    if "\0" in str(path):
        raise MemoryFileError(f"{str(path)!r} is no file name; a name has no NUL")


def _flush_to_disk(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
