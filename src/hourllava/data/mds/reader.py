"""Reads MDS data sets: random access through mmap, many folders at once, cheap to send to worker processes.

Reading a row costs one search for its shard and one copy of the requested columns. A shard is opened and checked when
one of its rows is first read. The 256 shards used last stay open: each holds a file descriptor, and 1,024 are usually
allowed. Of a data set with cached shards only 32 stay open, because open shards cannot be removed from the cache.
"""

import hashlib
import json
import mmap
import struct
import sys
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from hourllava.data.mds.cache import LocalShard, is_cached, open_shard
from hourllava.data.mds.encodings import CODING_ERRORS, find_coder
from hourllava.data.mds.format import (
    INDEX_NAME,
    LENGTHS_NAME,
    LENGTHS_SETTINGS_NAME,
    ShardInfo,
    check_file,
    check_table,
    parse_index,
    parse_lengths,
)
from hourllava.data.mds.remote import join, read_bytes, read_if_there
from hourllava.errors import DataError, PartlyDoneError

_OPEN_SHARDS, _OPEN_CACHED_SHARDS = 256, 32
_MAX_REPORTED = 5
_TABLE_PIECE_BYTES = 1 << 22
_OFFSETS = struct.Struct("<2I")  # where a row begins and ends


class ShardReader:
    """One open shard file; rows by number.

    Raises:
        DataError: the file is missing, cut short, or its table of samples is damaged.
    """

    def __init__(self, local: LocalShard, shard: ShardInfo) -> None:
        self.path, self._shard = local.path, shard
        with local.file as file:
            check_file(local.path, shard.raw_data, hashes=False)
            try:
                # The map keeps the file's descriptor, and with it the lock on a file of the cache.
                self._data = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
            except (OSError, ValueError) as error:  # ValueError: an empty file
                raise DataError(f"{local.path} cannot be opened: {error}; write the shard again") from error
        edges = [*range(0, shard.head_bytes, _TABLE_PIECE_BYTES), shard.head_bytes]
        check_table((self._data[begin:end] for begin, end in pairwise(edges)), shard, str(local.path))
        self._coders = [find_coder(encoding) for encoding in shard.column_encodings]
        self._sizes_format = struct.Struct(f"<{sum(size is None for size in shard.column_sizes)}I")

    def __len__(self) -> int:
        return self._shard.samples

    def row(self, number: int, columns: Iterable[str] | None = None, *, decode_images: bool = True) -> dict[str, Any]:
        """Decode a row, or only some of its columns. Without `decode_images`, images are the bytes of their files.

        Raises:
            DataError: a column does not exist, or the row is damaged.
        """
        names = self._shard.column_names
        wanted = names if columns is None else tuple(columns)
        row = {}
        for name, data in self._views(number, wanted).items():
            k = names.index(name)
            coder = self._coders[k]
            try:
                row[name] = (coder.decode if decode_images else coder.unpack)(data)
            except CODING_ERRORS as error:
                raise DataError(
                    f"{self.path}: row {number}, column {name!r} is no {self._shard.column_encodings[k]}: {error}; "
                    "write the shard again"
                ) from error
        return row

    def raw(self, number: int, columns: Iterable[str]) -> dict[str, bytes]:
        """The undecoded bytes of some columns of a row.

        Raises:
            DataError: a column does not exist, or the row is damaged.
        """
        return {name: bytes(view) for name, view in self._views(number, columns).items()}

    def _views(self, number: int, columns: Iterable[str]) -> dict[str, memoryview]:
        """As `raw`, but without a copy: an array of a megabyte is copied only once, by its decoding."""
        begin, end = _OFFSETS.unpack_from(self._data, 4 + 4 * number)
        values_begin = begin + self._sizes_format.size
        sizes = iter(self._sizes_format.unpack_from(self._data, begin) if values_begin <= end else ())
        edges = [values_begin]
        for size in self._shard.column_sizes:
            edges.append(edges[-1] + (next(sizes, 0) if size is None else size))
        if edges[-1] != end:
            raise DataError(f"{self.path}: row {number} is damaged, its columns do not fill it; write the shard again")
        found = {}
        for name in columns:
            if name not in self._shard.column_names:
                allowed = ", ".join(self._shard.column_names)
                raise DataError(f"{self.path} has no column {name!r}; it has: {allowed}")
            k = self._shard.column_names.index(name)
            found[name] = self._data[edges[k] : edges[k + 1]]
        return found


@dataclass(frozen=True)
class _Source:
    folder: str  # path or address
    num_samples: int


class MdsDataset:
    """The rows of one or more MDS folders, one after the other; a map-style data set.

    Folders may differ in their columns. Pickling takes the index along, but no open shard.

    Args:
        sources: folders with `index.json`, or the index files themselves: paths, or addresses that fsspec knows.
        cache_folder: for copies of remote and compressed shards; by default `hourllava/shards` in $XDG_CACHE_HOME or
            ~/.cache.

    Raises:
        DataError: an index is missing or damaged, or names an unknown or refused column encoding.
    """

    def __init__(self, sources: str | Path | Sequence[str | Path], *, cache_folder: Path | None = None) -> None:
        self._cache_folder = cache_folder
        self._sources: list[_Source] = []
        self._shards: list[tuple[str, ShardInfo]] = []  # (folder, entry)
        for source in [sources] if isinstance(sources, str | Path) else sources:
            folder = str(source).removeprefix("file://").removesuffix("/").removesuffix(f"/{INDEX_NAME}")
            where = join(folder, INDEX_NAME)
            shards = parse_index(read_bytes(where), where)
            self._shards += [(folder, shard) for shard in shards]
            self._sources.append(_Source(folder, sum(shard.samples for shard in shards)))
        self._ends = list(accumulate(shard.samples for _, shard in self._shards))
        self._set_up()

    def _set_up(self) -> None:
        # No reference back to this object: so its file descriptors close with it, not when the collector runs.
        cached = any(is_cached(folder, shard) for folder, shard in self._shards)
        num_open = _OPEN_CACHED_SHARDS if cached else _OPEN_SHARDS
        self._open = lru_cache(num_open)(partial(_open_reader, self._shards, self._cache_folder))

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_open"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._set_up()

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.row(index)

    def has_column(self, name: str) -> np.ndarray:
        """bool [samples]: whether each row has this column."""
        has = [name in shard.column_names for _, shard in self._shards]
        return np.repeat(np.array(has, bool), [shard.samples for _, shard in self._shards])

    def row(self, index: int, columns: Iterable[str] | None = None, *, decode_images: bool = True) -> dict[str, Any]:
        """Decode a row, or only some of its columns; a negative index counts from the end.

        Images are PIL images, or the bytes of their JPEG files if not `decode_images`.

        Raises:
            IndexError: there is no such row.
            DataError: the row's shard is missing or damaged, or a column is not there.
        """
        shard, number = self._find(index)
        return shard.row(number, columns, decode_images=decode_images)

    def raw(self, index: int, columns: Iterable[str]) -> dict[str, bytes]:
        """The bytes of some columns of a row, not decoded; errors as of `row`."""
        shard, number = self._find(index)
        return shard.raw(number, columns)

    def _find(self, index: int) -> tuple[ShardReader, int]:
        position = index + len(self) if index < 0 else index
        if not 0 <= position < len(self):
            raise IndexError(f"row {index} of {len(self)}")
        number = bisect_right(self._ends, position)
        return self._open(number), position - (self._ends[number - 1] if number else 0)

    def lengths(self) -> np.ndarray:
        """int32 [samples, 3]: frames or views, kept visual tokens, text tokens; from the `lengths.npy` of every folder.

        Raises:
            DataError: a folder has none, or one of another index.
        """
        parts = []
        for source in self._sources:
            where = join(source.folder, LENGTHS_NAME)
            parts.append(parse_lengths(read_bytes(where), where, source.num_samples))
        return np.concatenate(parts) if parts else np.zeros((0, 3), np.int32)

    def lengths_settings(self) -> dict[str, Any] | None:
        """The settings of the lengths' measuring (`lengths.json`); None if a folder has none, or two folders differ."""
        found = [read_lengths_settings(source.folder) for source in self._sources]
        return found[0] if found and all(settings == found[0] for settings in found) else None

    def fingerprint(self) -> str:
        """Digest of all rows. It changes if shards are added, removed or written again, but not if they move."""
        shards = [shard.model_dump(exclude={"size_limit"}) for _, shard in self._shards]
        return hashlib.sha256(json.dumps(shards, sort_keys=True).encode()).hexdigest()

    def verify(self, *, progress: bool = False) -> None:
        """Check that every shard of the index exists, is whole, and has a sound table of samples and the right hashes.

        Args:
            progress: show a progress bar on stderr.

        Raises:
            PartlyDoneError: some shards are damaged; the message names the first five.
            DataError: all are damaged.
        """
        problems = []
        for folder, shard in tqdm(self._shards, unit="shard", file=sys.stderr, disable=not progress):
            try:
                check_file(_open_reader([(folder, shard)], self._cache_folder, 0).path, shard.raw_data, hashes=True)
            except DataError as error:
                problems.append(str(error))
        if problems:
            more = f"; and {len(problems) - _MAX_REPORTED} more" if len(problems) > _MAX_REPORTED else ""
            listed = "; ".join(problems[:_MAX_REPORTED])
            message = f"{len(problems)} of {len(self._shards)} shards are damaged: {listed}{more}"
            raise (PartlyDoneError if len(problems) < len(self._shards) else DataError)(message)


def _open_reader(shards: Sequence[tuple[str, ShardInfo]], cache_folder: Path | None, number: int) -> ShardReader:
    folder, shard = shards[number]
    local = open_shard(folder, shard, cache_folder)
    try:
        return ShardReader(local, shard)
    except DataError:
        local.discard()
        raise


def read_lengths_settings(folder: str) -> dict[str, Any] | None:
    """The settings of the measuring of a folder's lengths; None if it has none.

    Raises:
        DataError: their file cannot be read.
    """
    data = read_if_there(join(folder, LENGTHS_SETTINGS_NAME))
    try:
        settings = json.loads(data or b"")
    except (ValueError, RecursionError):
        return None
    return settings if isinstance(settings, dict) else None
