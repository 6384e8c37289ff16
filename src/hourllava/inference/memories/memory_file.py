"""Memory files, ours and the release's. A file of ours is always whole, or not there.

Ours are safetensors files: `features` [T, tokens, C] in the dtype of the memory, `timestamps_seconds` and
`sample_seconds` float64 [T], and everything else as JSON under one metadata key. Reading maps the file, so an hour
(0.5 GB) and a day (12 GB) open in milliseconds; the disk is read when the features are used. (`Memory.load` uses all of
them once, to look for numbers that are not finite: 35 ms for an hour in the page cache.) A file that was cut short is
refused, because safetensors knows its length. Flipped bits in the features are noticed only if they make a number
infinite or NaN.
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
from hourllava.files import flush_to_disk
from hourllava.locks import try_flock
from hourllava.model.forgetting import evenly_spaced

FORMAT_VERSION = 2
"""Grows when older versions of this library cannot read the file, or would read it wrongly.

Version 1 lacks `player_offset_seconds`; it is read as 0.
"""

READ_VERSIONS = (1, FORMAT_VERSION)

UNFINISHED_SUFFIX = ".unfinished"
"""Ends the name of the temporary folder in which a file is written. Only a killed process leaves one behind."""

# A temporary folder without a lock counts as left behind from this age on: its writer may not have locked a younger one
# yet. File systems without locks need the second age: a file being written changes all the time, except in its last
# flush.
_UNLOCKED_FOR_SECONDS = 10.0
_UNFINISHED_FOR_SECONDS = 900.0

_METADATA_KEY = "hourllava_memory"
_MAX_HEADER_BYTES = 2**20  # of the header in a stamp

# torch.load raises these for bytes that are no pickle of tensors; UnpicklingError also for pickles it refuses.
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
    """Write a memory file. An old file of that name is replaced when the new one is whole and on the disk.

    Args:
        path: of the file; its folder must exist.
        tensors: contiguous, on the CPU; they are not copied.
        fields: plain data.

    Raises:
        MemoryFileError: the file cannot be written; an old file is unchanged.
    """
    _check_place(path)
    metadata = {_METADATA_KEY: json.dumps({"format_version": FORMAT_VERSION, **fields})}
    try:
        remove_unfinished(path.parent, path.name)
        # In a temporary folder, because safetensors makes further files under names of its own.
        with (
            tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.", suffix=UNFINISHED_SUFFIX) as folder,
            _locked(folder),
        ):
            unfinished = Path(folder, "memory")
            unfinished.touch()
            mode = unfinished.stat().st_mode  # from the user's umask; safetensors would allow only the owner
            save_file(tensors, unfinished, metadata)
            unfinished.chmod(mode)
            flush_to_disk(unfinished)
            unfinished.replace(path)
        flush_to_disk(path.parent)
    except (OSError, SafetensorError) as error:
        reason = str(error).removeprefix("Error while serializing: ")
        raise MemoryFileError(
            f"{path} cannot be written ({reason}); free space there or choose a folder you may write to"
        ) from error


def remove_unfinished(folder: Path, name: str | None = None) -> None:
    """Remove the temporary folders of processes that were killed while they wrote a memory.

    Args:
        folder: of memory files.
        name: of the memory file; None for all files.
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
    """Show other processes that the folder is in use. If this process is killed, the kernel drops the lock."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try_flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _is_abandoned(folder: Path) -> bool:
    """Whether no process holds the lock of a folder; False where the file system has no locks."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        return try_flock(descriptor, fcntl.LOCK_EX) is True
    finally:
        os.close(descriptor)


def read_memory_file(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors of a memory file, mapped, and the fields that `write_memory_file` was given.

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
    """Number of frames and fields of a memory file. Its features are not read.

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
    """The frames of a released feature file that are used: features [T, tokens, C], times [T] and duration in seconds.

    Raises:
        MemoryFileError: as `open_released_features`.
    """
    features, duration_seconds = open_released_features(path)
    chosen = evenly_spaced(len(features), num_released_frames(len(features), duration_seconds))
    times_seconds = np.linspace(0.0, duration_seconds, len(features))[chosen]
    return features[torch.from_numpy(chosen)], times_seconds, duration_seconds


def num_released_frames(num_stored_frames: int, duration_seconds: float) -> int:
    """How many frames of a released feature file are used: one per second, or all if there are fewer."""
    return min(num_stored_frames, max(int(duration_seconds), 1))


def open_released_features(path: Path) -> tuple[Tensor, float]:
    """All features [frames, tokens, C] of a released feature file, mapped and not read, and its duration in seconds.

    Raises:
        MemoryFileError: the file is missing, damaged, of another shape, or holds anything but tensors and numbers.
    """
    try:
        _check_regular(path)
        # weights_only: the pickle may hold only tensors and plain data.
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
"""Inode, length and header of a memory file."""


def file_stamp(path: Path) -> Stamp | None:
    """A stamp that changes when a memory file is replaced or written to; None if there is no such file.

    The date is not part of it, because the cache sets a new date at every use.
    """
    try:
        if not path.is_file():  # opening a pipe would block
            return None
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            num_bytes = int.from_bytes(file.read(8), "little")
            return status.st_ino, status.st_size, file.read(min(num_bytes, _MAX_HEADER_BYTES))
    except OSError:
        return None


def damaged(path: Path, reason: object) -> MemoryFileError:
    """The error for a damaged memory file."""
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
    """The true reason: safetensors says "missing" of every file that it cannot open."""
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
    """Check that a path names a regular file, because reading a pipe or a device would block.

    Raises:
        OSError: there is no such file, or its folder may not be searched.
        MemoryFileError: it is a pipe, device or socket, or the name holds a NUL.
    """
    _check_place(path)
    mode = path.stat().st_mode
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):  # opening a folder fails
        raise MemoryFileError(f"{path} is no regular file; save the memory to a file and give that")


def _check_place(path: Path) -> None:
    if "\0" in str(path):
        raise MemoryFileError(f"{str(path)!r} is no file name; a name has no NUL")
