"""A cache of remote and compressed shards, shared by all processes of a machine.

One process fetches a shard while the others wait for it. A shard is in the cache whole or not at all: its size, table
and hashes are checked first. When the cache exceeds its limit, the shards that were opened longest ago are removed. A
shard that a process has open stays, because its reader holds a shared flock on the file.

    HOURLLAVA_SHARD_CACHE_BYTES    the limit; by default half of the disk that the cache lies on
"""

import bz2
import fcntl
import gzip
import hashlib
import importlib
import logging
import os
import shutil
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from hourllava.data.mds.format import FileInfo, ShardInfo, check_file, check_table
from hourllava.data.mds.remote import copy_at_most, download, is_remote, join, reason_of, shard_path
from hourllava.errors import ConfigError, DataError, HourLlavaError
from hourllava.files import TEMPORARY_SUFFIX, remove_leftovers, replacing
from hourllava.folders import user_cache_folder
from hourllava.locks import lock_folder, try_flock

_SIZE_VARIABLE = "HOURLLAVA_SHARD_CACHE_BYTES"
_FETCH_WAIT_SECONDS = 600.0  # wait for another process that fetches a shard; then fetch it here, too
_LEFT_AFTER_SECONDS = 3600.0  # a file that is being fetched changes all the time; one this old is a leftover
_REMOVED_WAIT_SECONDS = 0.01
_TABLE_PIECE_BYTES = 1 << 22

_log = logging.getLogger(__name__)
_said: set[str] = set()


@dataclass(frozen=True)
class LocalShard:
    """The uncompressed file of a shard, open. While it or a map of it is open, no process removes it from the cache."""

    path: Path
    file: IO[bytes]
    is_cached: bool

    def discard(self) -> None:
        """Remove a damaged file from the cache, so that it is fetched again when it is next opened."""
        if self.is_cached:
            self.path.unlink(missing_ok=True)


def default_cache_folder() -> Path:
    """`hourllava/shards` in $XDG_CACHE_HOME or ~/.cache.

    Raises:
        ConfigError: neither is known: a user without a home.
    """
    folder = user_cache_folder("shards")
    if folder is None:
        raise ConfigError(
            "this user has no home folder for the cache of shards; set XDG_CACHE_HOME to a folder that you may write to"
        )
    return folder


def max_cache_bytes(folder: Path) -> int:
    """The limit of a cache: $HOURLLAVA_SHARD_CACHE_BYTES, or half of its disk.

    Raises:
        ConfigError: the variable is not a whole number of bytes from 0 up.
    """
    configured = os.environ.get(_SIZE_VARIABLE, "")
    if not configured:
        return shutil.disk_usage(folder).total // 2
    if not configured.isdecimal():
        raise ConfigError(f"{_SIZE_VARIABLE} is {configured!r}; use a whole number of bytes, such as 200000000000")
    return int(configured)


def is_cached(folder: str, shard: ShardInfo) -> bool:
    """Whether a shard is read from the cache instead of its folder."""
    return shard.zip_data is not None or is_remote(folder)


def open_shard(folder: str, shard: ShardInfo, cache_folder: Path | None) -> LocalShard:
    """Open a shard's uncompressed file: in its folder if it lies there, else in the cache, fetched if needed.

    Raises:
        DataError: it cannot be opened, fetched or decompressed, or, when fetched, differs from the index.
        ConfigError: as `max_cache_bytes`, `default_cache_folder`.
    """
    if not is_cached(folder, shard):
        path = shard_path(Path(folder), shard.raw_data.basename)
        try:
            return LocalShard(path, path.open("rb"), is_cached=False)
        except (OSError, ValueError) as error:
            raise DataError(
                f"{path} is named by the index but cannot be read: {reason_of(error)}; copy or write it again"
            ) from error
    stored = shard.stored.basename
    source = join(folder, stored) if is_remote(folder) else str(shard_path(Path(folder), stored))
    # A shard written again has another size or hash, and so another name here.
    key = hashlib.sha256(f"{source}\n{shard.model_dump_json()}".encode()).hexdigest()[:32]
    path = (cache_folder or default_cache_folder()) / f"{key}.mds"
    file = _open_held(path, shard.raw_data.bytes)
    if file is None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with ExitStack() as held:
                with suppress(DataError):  # another process takes too long: both fetch it, each into its own file
                    held.enter_context(lock_folder(path.parent, f"{key}.lock", wait_seconds=_FETCH_WAIT_SECONDS))
                    remove_leftovers(path.parent, (path.name, f"packed.{path.name}"))
                file = _open_held(path, shard.raw_data.bytes) or _fetch(source, shard, path)
        except HourLlavaError:
            raise
        except Exception as error:
            raise DataError(
                f"{source} cannot be fetched to {path.parent}: {reason_of(error)}; check both, then try again"
            ) from error
    return LocalShard(path, file, is_cached=True)


def _open_held(path: Path, num_bytes: int) -> IO[bytes] | None:
    """Open a file of the cache and keep others from removing it; None unless it is there whole."""
    while True:
        try:
            file = path.open("rb")
        except FileNotFoundError:
            return None
        held = try_flock(file.fileno(), fcntl.LOCK_SH)
        status = os.fstat(file.fileno())
        if held is not False and status.st_nlink and status.st_size == num_bytes:
            with suppress(OSError):  # another user's cache can be read but not touched
                os.utime(path)
            return file
        file.close()
        if held is False or not status.st_nlink:  # another process is removing it
            time.sleep(_REMOVED_WAIT_SECONDS)
            continue
        path.unlink(missing_ok=True)  # cut short by a power cut or by hand
        return None


def _fetch(source: str, shard: ShardInfo, path: Path) -> IO[bytes]:
    raw, stored = shard.raw_data, shard.stored
    limit_bytes = max_cache_bytes(path.parent)
    if raw.bytes > limit_bytes:
        raise DataError(f"{source} takes {raw.bytes} bytes, the shard cache {limit_bytes}; raise {_SIZE_VARIABLE}")
    _make_room(path.parent, limit_bytes - raw.bytes)
    with replacing(path) as temporary:
        packed = temporary.with_name(f"packed.{temporary.name}")
        fetched = temporary if shard.compression is None else packed
        try:
            download(source, fetched, stored.bytes, lambda: _check(fetched, stored, source))
            if shard.compression is not None:
                _unpack(packed, temporary, shard, source)
        finally:
            packed.unlink(missing_ok=True)
        file = temporary.open("rb")
        try:
            check_table(_table(file, shard), shard, source)
        except DataError:
            file.close()
            raise
        file.seek(0)
        try_flock(file.fileno(), fcntl.LOCK_SH)
    _make_room(path.parent, limit_bytes)  # other processes may have fetched shards at the same time
    return file


def _unpack(packed: Path, path: Path, shard: ShardInfo, source: str) -> None:
    """Decompress a shard, but refuse a file that is no shard before it fills the disk."""
    open_packed, errors = _decompressor(shard.compression or "")
    try:
        with packed.open("rb") as file, open_packed(file) as plain, path.open("wb") as out:
            check_table(_table(plain, shard, out), shard, source)
            copy_at_most(plain, out, shard.raw_data.bytes + 1 - shard.head_bytes)
    except errors as error:
        raise DataError(f"{source} cannot be decompressed: {reason_of(error)}; copy or write it again") from error
    _check(path, shard.raw_data, source)


def _table(file: IO[bytes], shard: ShardInfo, out: IO[bytes] | None = None) -> Iterator[bytes]:
    """The pieces of a shard's table of samples, each copied to `out` before it is yielded."""
    missing_bytes = shard.head_bytes
    while missing_bytes and (piece := file.read(min(_TABLE_PIECE_BYTES, missing_bytes))):
        if out is not None:
            out.write(piece)
        missing_bytes -= len(piece)
        yield piece


def _check(path: Path, info: FileInfo, source: str) -> None:
    try:
        check_file(path, info, hashes=True)
    except DataError as error:
        raise DataError(str(error).replace(str(path), source)) from error


def _make_room(folder: Path, most_bytes: int) -> None:
    """Remove unused shards, those opened longest ago first, until at most `most_bytes` are left."""
    files, excess_bytes = [], -most_bytes
    for path in folder.iterdir():
        with suppress(FileNotFoundError):  # another process has just removed it
            status = path.stat()
            if path.name.endswith(TEMPORARY_SUFFIX) and status.st_mtime < time.time() - _LEFT_AFTER_SECONDS:
                path.unlink()
                continue
            excess_bytes += status.st_size
            if path.suffix == ".mds":
                files.append((status.st_mtime, status.st_size, path))
    if excess_bytes <= 0:
        return
    for _, num_bytes, path in sorted(files):
        if _remove_unused(path):
            excess_bytes -= num_bytes
            if excess_bytes <= 0:
                _say_once(
                    "full", f"{folder} is full: old shards go, and are fetched again if wanted; raise {_SIZE_VARIABLE}"
                )
                return
    _say_once("over", f"{folder} is larger than {_SIZE_VARIABLE} allows: processes have all of its shards open")


def _remove_unused(path: Path) -> bool:
    """Remove a shard from the cache unless a process has it open; returns whether it is gone."""
    try:
        descriptor = os.open(path, os.O_RDWR)  # NFS gives exclusive locks only on files open for writing
    except FileNotFoundError:
        return True
    except OSError:
        return False
    try:
        unused = try_flock(descriptor, fcntl.LOCK_EX)
        if unused is None:
            _say_once("blind", f"the file system of {path.parent} cannot lock: nothing is removed from this cache")
        if unused:
            path.unlink(missing_ok=True)
        return bool(unused)
    finally:
        os.close(descriptor)


def _say_once(key: str, message: str) -> None:
    if key not in _said:
        _log.warning("%s", message)
    _said.add(key)


def _decompressor(compression: str) -> tuple[Callable[[IO[bytes]], Any], tuple[type[Exception], ...]]:
    """The function that opens a compressed file, and the errors that it raises for a damaged one."""
    kind = compression.split(":")[0]  # "zstd:7" names the level
    damage = (EOFError, ValueError, zlib.error, gzip.BadGzipFile)
    if kind == "gz":
        return lambda file: gzip.GzipFile(fileobj=file), damage
    if kind == "bz2":
        return bz2.BZ2File, (*damage, OSError)
    if kind != "zstd":
        raise DataError(
            f"compression {compression!r} is not read; allowed: none, zstd, gz, bz2; write the shards again"
        )
    try:
        zstandard = importlib.import_module("zstandard")
    except ImportError as error:
        raise DataError("shards compressed with zstd need the package zstandard; run: pip install zstandard") from error
    return lambda file: zstandard.ZstdDecompressor().stream_reader(file), (*damage, zstandard.ZstdError)
