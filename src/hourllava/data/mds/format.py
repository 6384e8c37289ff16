"""The format of an MDS data set, shared by writer and reader: index, names, sizes, hashes.

DIR/index.json             {"version": 2, "shards": [...]}, exactly as mosaicml-streaming writes it
DIR/lengths.npy            ours, optional: int32 [samples, 3] = frames or views, kept visual tokens, text tokens
DIR/lengths.json           the settings of their measuring, see `hourllava.data.batches.samples`
DIR/shard.00000.mds        uint32 n; uint32 offsets[n + 1] from the file's start; JSON settings; samples
a sample                   uint32 sizes of the columns without a fixed size, then the columns' bytes
"""

import hashlib
import importlib
import io
import json
import tokenize
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import IO, Annotated, Any, Literal

import numpy as np
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from hourllava.data.mds.encodings import find_coder
from hourllava.errors import DataError

INDEX_NAME = "index.json"
LENGTHS_NAME = "lengths.npy"
LENGTHS_SETTINGS_NAME = "lengths.json"
MAX_SHARD_BYTES = 2**32 - 1  # offsets are uint32
MAX_SAMPLES = 2**30  # of an index: a flag for each row then takes 1 GB
_STANDARD_HASHES = frozenset({"md5", "sha1", "sha224", "sha256", "sha384", "sha512", "blake2b", "blake2s"})
_XX_HASHES = frozenset({"xxh32", "xxh64", "xxh128", "xxh3_64", "xxh3_128"})
_HASH_PIECE_BYTES = 1 << 24


def _checked_basename(name: str) -> str:
    path = PurePosixPath(name)
    parts = list(path.parts)
    while parts and parts[0] == "..":
        parts.pop(0)
    if path.is_absolute() or not parts or ".." in parts or "\0" in name:
        raise ValueError("it cannot be read: a path from the index's folder is needed, with '..' at its front only")
    return name


class FileInfo(BaseModel):
    """One file of a shard. `basename` is a path from the index's folder; in a merged index it may lead out of it."""

    model_config = ConfigDict(frozen=True)
    basename: Annotated[str, AfterValidator(_checked_basename)]
    bytes: int = Field(ge=0, le=MAX_SHARD_BYTES)
    hashes: dict[str, str]


class ShardInfo(BaseModel):
    """One entry of an index; the fields are the format's."""

    model_config = ConfigDict(frozen=True)
    column_encodings: tuple[str, ...]
    column_names: tuple[str, ...]
    column_sizes: tuple[int | None, ...]  # bytes
    compression: str | None
    format: Literal["mds"]
    hashes: tuple[str, ...]
    raw_data: FileInfo
    samples: int = Field(ge=0)
    size_limit: int | str | None
    version: Literal[2]
    zip_data: FileInfo | None

    @model_validator(mode="after")
    def _check_samples(self) -> "ShardInfo":
        if self.head_bytes > self.raw_data.bytes:
            raise ValueError(f"{self.samples} samples do not fit into {self.raw_data.bytes} bytes")
        return self

    @property
    def head_bytes(self) -> int:
        """Size of the table of samples, at the file's start."""
        return 4 * (self.samples + 2)

    @property
    def stored(self) -> FileInfo:
        """The file on the disk: the compressed one if there is one."""
        return self.zip_data or self.raw_data

    def moved(self, prefix: str) -> "ShardInfo":
        """This entry for an index whose path to the shard's folder is `prefix`."""
        files = {
            name: file.model_copy(update={"basename": f"{prefix}/{file.basename}"})
            for name, file in (("raw_data", self.raw_data), ("zip_data", self.zip_data))
            if file
        }
        return self.model_copy(update=files)


def parse_index(text: str | bytes, where: str) -> list[ShardInfo]:
    """Check an index and return its shards; errors call the index `where`.

    Raises:
        DataError: it is no index of version 2, or names an unknown or refused column encoding.
    """
    try:
        index = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where} is not JSON: {error}; write the index again: hourllava data merge") from error
    if not isinstance(index, dict) or not isinstance(index.get("shards"), list):
        raise DataError(f"{where} is no MDS index; it must hold 'version' and a list 'shards'")
    for entry in (index, *index["shards"]):
        version = entry.get("version") if isinstance(entry, dict) else None
        if version != 2:
            raise DataError(f"{where} has version {version!r}; only version 2 is read; write the shards again")
    shards = []
    for number, entry in enumerate(index["shards"]):
        try:
            shard = ShardInfo.model_validate(entry)
        except ValidationError as error:
            first = error.errors()[0]
            field = "".join(f", {part}" for part in first["loc"])
            reason = first["msg"].removeprefix("Value error, ")
            got = f", got {first['input']!r:.80}" if first["loc"] else ""
            raise DataError(f"{where}: shard {number}{field}: {reason}{got}") from error
        _check_columns(shard, f"{where}: shard {number}")
        shards.append(shard)
    if (num_samples := sum(shard.samples for shard in shards)) > MAX_SAMPLES:
        raise DataError(f"{where} promises {num_samples} samples; at most {MAX_SAMPLES} are read: split the data set")
    return shards


def _check_columns(shard: ShardInfo, where: str) -> None:
    names = shard.column_names
    if not len(names) == len(set(names)) == len(shard.column_encodings) == len(shard.column_sizes):
        raise DataError(f"{where}: column names, encodings and sizes must be lists of one length, without duplicates")
    for name, encoding, size in zip(names, shard.column_encodings, shard.column_sizes):
        try:
            expected = find_coder(encoding).size_bytes
        except DataError as error:
            raise DataError(f"{where}, column {name!r}: {error}") from error
        if size != expected:
            raise DataError(f"{where}, column {name!r}: size {size}, but {encoding} takes {expected} (None: variable)")
    if (shard.compression is None) != (shard.zip_data is None):
        raise DataError(f"{where}: compression {shard.compression!r} does not fit zip_data; both or neither are needed")


def index_text(shards: Iterable[ShardInfo], *, merged: bool) -> str:
    """The index as mosaicml-streaming writes it: keys sorted, but "version" first in a merged one."""
    entries = [shard.model_dump() for shard in shards]
    index: dict[str, Any] = {"version": 2, "shards": [dict(sorted(entry.items())) for entry in entries]}
    return json.dumps(index, sort_keys=not merged)


def check_hash_names(names: Sequence[str]) -> None:
    """Check that hashes can be computed here.

    Raises:
        DataError: a name is unknown, not in the sorted order that the format demands, or needs a missing package.
    """
    if list(names) != sorted(set(names)):
        raise DataError(f"hashes {', '.join(names)} must be sorted, each once")
    for name in names:
        _new_hash(name)


def _new_hash(name: str) -> Any:
    if name in _STANDARD_HASHES:
        return hashlib.new(name)
    if name in _XX_HASHES:
        try:
            return getattr(importlib.import_module("xxhash"), name)()
        except ImportError as error:
            raise DataError(f"hash {name!r} needs the package xxhash; run: pip install xxhash") from error
    raise DataError(f"hash {name!r} is unknown; allowed: {', '.join(sorted(_STANDARD_HASHES | _XX_HASHES))}")


def hash_file(file: IO[bytes], name: str) -> str:
    """Hex digest of the rest of a file, read in pieces."""
    digest = _new_hash(name)
    while piece := file.read(_HASH_PIECE_BYTES):
        digest.update(piece)
    return str(digest.hexdigest())


def check_file(path: Path, info: FileInfo, *, hashes: bool) -> None:
    """Check that a file of a shard exists with its size and, on request, its hashes.

    Raises:
        DataError: it is missing, cut short or changed.
    """
    try:
        size_bytes = path.stat().st_size
        if size_bytes != info.bytes:
            raise DataError(f"{path} has {size_bytes} bytes, the index says {info.bytes}; copy or write it again")
        for name, expected in info.hashes.items() if hashes else ():
            with path.open("rb") as file:
                got = hash_file(file, name)
            if got != expected:
                raise DataError(f"{path} has {name} {got}, the index says {expected}; copy or write it again")
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"{path} is named by the index but cannot be read: {reason}; copy or write it again") from error


def parse_lengths(data: bytes, where: str, num_samples: int) -> np.ndarray:
    """Read `lengths.npy`: int32 [samples, 3] = frames or views, kept visual tokens, text tokens.

    Raises:
        DataError: it is damaged, or has lengths of another number of samples.
    """
    file = io.BytesIO(data)
    try:
        read_header = _HEADER_READERS[np.lib.format.read_magic(file)]
        shape, _, dtype = read_header(file)
        if dtype == np.int32 and shape == (num_samples, 3) and len(data) - file.tell() == 12 * num_samples:
            lengths: np.ndarray = np.load(io.BytesIO(data), allow_pickle=False)
            if (lengths >= 0).all():
                return lengths
            raise DataError(f"{where} holds lengths below 0; it is damaged: remove it and measure again")
    except _HEADER_ERRORS as error:
        reason = " ".join(str(error).split())
        raise DataError(f"{where} cannot be read: {reason}; write the shards with lengths, then merge again") from error
    found = f"{dtype} {shape} in {len(data)} bytes"
    raise DataError(f"{where} holds {found}, the index needs int32 ({num_samples}, 3); merge again")


_HEADER_READERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
# numpy raises these for damaged headers, because it reads headers as Python literals.
_HEADER_ERRORS = (
    OSError,
    ValueError,
    EOFError,
    LookupError,
    TypeError,
    SyntaxError,
    tokenize.TokenError,
    RecursionError,
)


def check_table(pieces: Iterable[bytes | memoryview], shard: ShardInfo, where: str) -> None:
    """Check a shard's table of samples, the file's first `shard.head_bytes` bytes, piece by piece.

    The table is not kept: as lists, the tables of 256 shards of short rows would take 0.4 GB.

    Raises:
        DataError: it is cut short, has another number of samples, or its offsets leave the file or go back. No piece
            behind the fault is read.
    """
    num_read, last, rest = 0, shard.head_bytes, b""
    for piece in pieces:
        data = rest + piece if rest else piece
        numbers = np.frombuffer(data[: len(data) // 4 * 4], "<u4").astype(np.int64)
        rest = bytes(data[4 * len(numbers) :])
        offsets = numbers
        if len(numbers) and not num_read:
            if numbers[0] != shard.samples:
                raise DataError(
                    f"{where} holds {numbers[0]} samples, the index says {shard.samples}; write the shard again"
                )
            offsets = numbers[1:]
        if (np.diff(offsets, prepend=last) < 0).any():
            break
        num_read, last = num_read + len(numbers), int(offsets[-1]) if len(offsets) else last
    if num_read != shard.samples + 2 or last != shard.raw_data.bytes:
        raise DataError(f"{where} has a damaged table of samples; write the shard again")
