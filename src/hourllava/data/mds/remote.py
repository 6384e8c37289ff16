"""Reads files of data sets by path or address (`s3://...`, through fsspec), and checks the paths that an index names.

A store that does not answer is tried three times, with growing pauses: during a run of days some requests fail.
"""

import errno
import importlib
import os
import posixpath
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, TypeVar

from hourllava.errors import DataError, HourLlavaError

TRIES = 3
_PAUSE_SECONDS = 1.0  # before the second try, give or take half; twice that before the third
_PIECE_BYTES = 1 << 22
_FINAL_ERRNOS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG})  # of the disk here, not of the store
_FINAL_ERRORS = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError, ImportError, ValueError)
_chance = random.SystemRandom()  # training's own draws stay as they are
Result = TypeVar("Result")


def is_remote(source: str) -> bool:
    """Whether a folder or file has an address instead of a path."""
    return "://" in source


def join(folder: str, basename: str) -> str:
    """The path or address of a file of a folder; `..` in `basename` leads out of it.

    Raises:
        DataError: it leads out of the store's bucket or host.
    """
    if not is_remote(folder):
        return str(Path(folder) / basename)
    protocol, path = folder.split("://", 1)
    joined = posixpath.normpath(posixpath.join(path, basename))
    if joined.lstrip("/").split("/")[0] != path.lstrip("/").split("/")[0]:
        raise DataError(f"{folder} names {basename!r}, which leads out of its store; write the index again")
    return f"{protocol}://{joined}"


def shard_path(folder: Path, basename: str) -> Path:
    """The path of a file that the index of a local folder names.

    Raises:
        DataError: a link leads out of the data set: a file of an index must lie where the index says.
    """
    path, base = folder / basename, Path(os.path.realpath(folder))
    named = Path(os.path.normpath(base / basename))
    found = Path(os.path.realpath(named))
    inside = named.parent if basename.startswith("..") else base
    # A folder that the Hugging Face client has fetched holds only links into `blobs` beside it.
    blobs = [parent.parent / "blobs" for parent in base.parents if parent.name == "snapshots"]
    if found == named or any(found.is_relative_to(allowed) for allowed in (inside, *blobs)):
        return path
    raise DataError(f"{path} is a link to {found}, out of the data set; copy the file, or run data merge on its folder")


def read_bytes(source: str) -> bytes:
    """Read a whole small file, local or not.

    Raises:
        DataError: it cannot be read.
    """
    data = read_if_there(source)
    if data is None:
        raise DataError(f"{source} cannot be read: there is no such file; check the name")
    return data


def read_if_there(source: str) -> bytes | None:
    """Read a whole small file, local or not; None if there is none.

    Raises:
        DataError: it exists, or may exist, but cannot be read.
    """

    def read() -> bytes:
        with _open(source) as file:
            return file.read()

    try:
        return with_tries(read, TRIES if is_remote(source) else 1)
    except FileNotFoundError:
        return None
    except HourLlavaError:
        raise
    except Exception as error:
        raise DataError(
            f"{source} cannot be read: {reason_of(error)}; check the name, or install the store's package"
        ) from error


def download(source: str, path: Path, num_bytes: int, check: Callable[[], None]) -> None:
    """Copy a file, local or not, but not more than one byte beyond the size that it should have.

    Args:
        source: path or address.
        path: of the copy.
        num_bytes: size that it should have.
        check: raises a DataError if the copy is wrong.

    Raises:
        DataError: from `check`.
        Exception: any error of a store's package.
    """

    def copy() -> None:
        with _open(source) as file, path.open("wb") as out:
            copy_at_most(file, out, num_bytes + 1)
        check()

    with_tries(copy, TRIES if is_remote(source) else 1)


def copy_at_most(file: IO[bytes], out: IO[bytes], num_bytes: int) -> None:
    """Copy the rest of a file, but at most `num_bytes`, so that no decompression bomb fills the disk."""
    while num_bytes > 0 and (piece := file.read(min(_PIECE_BYTES, num_bytes))):
        out.write(piece)
        num_bytes -= len(piece)


def with_tries(action: Callable[[], Result], tries: int) -> Result:
    """Do something that may fail temporarily, up to `tries` times."""
    for number in range(tries):
        if number:
            time.sleep(_PAUSE_SECONDS * 2 ** (number - 1) * _chance.uniform(0.5, 1.5))  # not all processes at once
        try:
            return action()
        except _FINAL_ERRORS:
            raise
        except Exception as error:
            if number == tries - 1 or (isinstance(error, OSError) and error.errno in _FINAL_ERRNOS):
                raise
    raise AssertionError("at least one try")


def reason_of(error: Exception) -> str:
    """What went wrong, on one line."""
    reason = error.strerror if isinstance(error, OSError) and error.strerror else error
    return " ".join(str(reason).split()) or type(error).__name__


def _open(source: str) -> Any:
    if not is_remote(source):
        return Path(source).open("rb")
    return importlib.import_module("fsspec").open(source, "rb").open()
