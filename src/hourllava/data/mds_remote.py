"""Shards that lie elsewhere (`s3://...`, through fsspec) or are compressed: copied to a local cache.

A file is in the cache whole or not at all, with its size and hashes checked once, on the way in.
"""

import bz2
import gzip
import hashlib
import importlib
import posixpath
import threading
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from hourllava.data.atomic import replacing
from hourllava.data.mds_format import FileInfo, ShardInfo, check_file
from hourllava.errors import DataError

_PIECE_BYTES = 1 << 22
_FETCHING = threading.Lock()  # threads of one process share the name of the temporary file


def is_remote(source: str) -> bool:
    """Whether a folder or file is named by an address and not by a path."""
    return "://" in source


def join(folder: str, basename: str) -> str:
    """The path or address of a file of a folder; `..` in `basename` leads out of it."""
    if not is_remote(folder):
        return str(Path(folder) / basename)
    protocol, path = folder.split("://", 1)
    return f"{protocol}://{posixpath.normpath(posixpath.join(path, basename))}"


def read_bytes(source: str) -> bytes:
    """Read a whole small file, local or not.

    Raises:
        DataError: it cannot be read.
    """
    with _open(source) as file:
        try:
            return file.read()
        except OSError as error:
            raise DataError(f"{source} cannot be read: {error}; check the connection") from error


def local_shard(folder: str, shard: ShardInfo, cache_folder: Path | None) -> Path:
    """The path of a shard's uncompressed file: in its folder if it lies there, else in the cache, fetched if needed.

    Raises:
        DataError: it cannot be fetched or decompressed, has another size, or another hash (checked when fetched).
    """
    raw = shard.raw_data
    if shard.zip_data is None and not is_remote(folder):
        return Path(join(folder, raw.basename))
    source = join(folder, shard.stored.basename)
    # A shard written again has another size or hash, and so another name here.
    key = hashlib.sha256(f"{source}\n{shard.model_dump_json()}".encode()).hexdigest()[:32]
    if cache_folder is None:
        raise DataError(
            f"{source} must be copied to a cache folder, and this user has no home folder; set HOME or XDG_CACHE_HOME"
        )
    path = cache_folder / f"{key}.mds"
    with _FETCHING:
        if not path.exists():
            _fetch(source, shard, path)
    return path


def _fetch(source: str, shard: ShardInfo, path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            with _open(source) as file:
                _copy(file, temporary, shard.stored)
            _check(temporary, shard.stored, source)
            if shard.compression is not None:
                packed = temporary.rename(temporary.with_name(f"{temporary.name}.packed"))
                try:
                    with packed.open("rb") as file, _decompressor(shard.compression)(file) as plain:
                        _copy(plain, temporary, shard.raw_data)
                finally:
                    packed.unlink()
                _check(temporary, shard.raw_data, source)
    except (OSError, EOFError, ValueError) as error:
        raise DataError(f"{source} cannot be fetched to {path.parent}: {error}; check both, then try again") from error


def _copy(file: IO[bytes], path: Path, info: FileInfo) -> None:
    """Copy at most one byte more than the file should have: enough to notice, and no bomb fills the disk."""
    missing_bytes = info.bytes + 1
    with path.open("wb") as out:
        while missing_bytes and (piece := file.read(min(_PIECE_BYTES, missing_bytes))):
            out.write(piece)
            missing_bytes -= len(piece)


def _check(path: Path, info: FileInfo, source: str) -> None:
    try:
        check_file(path, info, hashes=True)
    except DataError as error:
        raise DataError(str(error).replace(str(path), source)) from error


def _decompressor(compression: str) -> Callable[[IO[bytes]], Any]:
    kind = compression.split(":")[0]  # "zstd:7" names the level
    if kind == "gz":
        return lambda file: gzip.GzipFile(fileobj=file)
    if kind == "bz2":
        return bz2.BZ2File
    if kind != "zstd":
        raise DataError(
            f"compression {compression!r} is not read; allowed: none, zstd, gz, bz2; write the shards again"
        )
    try:
        zstandard = importlib.import_module("zstandard")
    except ImportError as error:
        raise DataError("shards compressed with zstd need the package zstandard; run: pip install zstandard") from error
    return lambda file: zstandard.ZstdDecompressor().stream_reader(file)


def _open(source: str) -> Any:
    try:
        if not is_remote(source):
            return Path(source).open("rb")
        fsspec = importlib.import_module("fsspec")
        return fsspec.open(source, "rb").open()
    except (OSError, ValueError, ImportError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise DataError(f"{source} cannot be read: {reason}; check the name, or install the store's package") from error
