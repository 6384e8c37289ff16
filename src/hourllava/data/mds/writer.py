"""Writes MDS shards in bounded memory. A run that is killed at any moment and started again ends with the same bytes.

A shard is encoded in memory (64 MiB by default), written under a temporary name and renamed. Then `progress.json` names
the finished shards. A run that starts again keeps them and needs the rows from `position` on. The index comes last, so
a folder with an index is complete. A lock keeps other writers out of the folder.
"""

import io
import json
import os
from array import array
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from hourllava.data.mds.encodings import CODING_ERRORS, find_coder
from hourllava.data.mds.format import (
    INDEX_NAME,
    LENGTHS_NAME,
    MAX_SHARD_BYTES,
    FileInfo,
    ShardInfo,
    check_file,
    check_hash_names,
    hash_file,
    index_text,
    parse_index,
)
from hourllava.data.mds.remote import shard_path
from hourllava.errors import ConfigError, DataError
from hourllava.files import TEMPORARY_SUFFIX, flush_to_disk, replacing
from hourllava.locks import lock_folder as lock_folder

DEFAULT_SIZE_LIMIT_BYTES = 1 << 26
LEDGER_NAME = "skipped.jsonl"
_PROGRESS_NAME = "progress.json"
_LENGTHS_SO_FAR_NAME = "lengths.partial"  # int32, three per sample
_LENGTHS_PER_SAMPLE = 3


class ShardWriter:
    """Writes rows of one set of columns to a folder; a context manager that finishes when its block ends well.

        with ShardWriter(folder, {"video": "str", "text": "json"}) as writer:
            for row in islice(rows, writer.position, None):  # 0, or the number of rows that are already done
                writer.write(row)

    Args:
        folder: made if missing.
        columns: name -> encoding.
        size_limit_bytes: of a shard; only a row that is larger by itself exceeds it, in a shard of its own.
        hashes: names of hashes of every shard, sorted ("sha1", "xxh64", ...).
        lengths: whether `write` gets the lengths of every row, for `lengths.npy`.

    Raises:
        DataError: an encoding or hash is unknown, or the folder cannot be written, holds a run with other settings, or
            is in use by another process.
    """

    def __init__(
        self,
        folder: Path,
        columns: Mapping[str, str],
        *,
        size_limit_bytes: int = DEFAULT_SIZE_LIMIT_BYTES,
        hashes: Sequence[str] = (),
        lengths: bool = False,
    ) -> None:
        if not columns or not 0 < size_limit_bytes <= MAX_SHARD_BYTES:
            raise ConfigError(
                f"got {len(columns)} columns and a size limit of {size_limit_bytes} bytes; 1 column or more and 1 to "
                f"{MAX_SHARD_BYTES} bytes are allowed"
            )
        check_hash_names(hashes)
        self.folder = folder
        self._names = sorted(columns)
        self._coders = [find_coder(columns[name]) for name in self._names]
        self._settings: dict[str, Any] = {
            "column_encodings": [columns[name] for name in self._names],
            "column_names": self._names,
            "column_sizes": [coder.size_bytes for coder in self._coders],
            "compression": None,
            "format": "mds",
            "hashes": list(hashes),
            "size_limit": size_limit_bytes,
            "version": 2,
        }
        self._header = json.dumps(self._settings, sort_keys=True).encode()
        self._size_limit_bytes = size_limit_bytes
        self._lengths = array("i") if lengths else None
        self._shards: list[ShardInfo] = []
        self._samples: list[bytes] = []
        self._empty_shard_bytes = 8 + len(self._header)
        self._shard_bytes = self._empty_shard_bytes
        self.num_skipped = 0  # including those of an interrupted run
        self.finished = False  # the folder is complete and takes no more rows
        self._lock = ExitStack()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._lock.enter_context(lock_folder(folder))
            self._continue()
        except OSError as error:
            self._lock.close()
            raise self._unwritable(error) from error
        except DataError:
            self._lock.close()
            raise

    def _unwritable(self, error: OSError) -> DataError:
        return DataError(f"{self.folder} cannot be written: {error.strerror or error}; the next run continues here")

    def _continue(self) -> None:
        """Keep the shards that an interrupted run has finished, and remove the rest of it."""
        for leftover in self.folder.glob(f"*{TEMPORARY_SUFFIX}"):
            leftover.unlink()
        index_path, progress_path = self.folder / INDEX_NAME, self.folder / _PROGRESS_NAME
        self._shards, progress = [], {"skipped": 0, "ledger_bytes": 0}
        if index_path.exists():
            self._shards = parse_index(index_path.read_bytes(), str(index_path))
            self.finished = True
            ledger = self.folder / LEDGER_NAME
            progress["skipped"] = len(ledger.read_bytes().splitlines()) if ledger.exists() else 0
        elif progress_path.exists():
            self._shards, progress = _read_progress(progress_path)
        for shard in self._shards:
            settings = shard.model_dump(mode="json", exclude={"samples", "raw_data", "zip_data"})
            if settings != self._settings:
                raise DataError(
                    f"{self.folder} holds shards with other columns, hashes or size limit; choose another folder or "
                    "remove this one"
                )
            check_file(shard_path(self.folder, shard.raw_data.basename), shard.raw_data, hashes=False)
        self.num_skipped = progress["skipped"]
        if self.finished:
            self._remove_working_files()
            return
        self._ledger = (self.folder / LEDGER_NAME).open("ab")
        self._ledger.truncate(progress["ledger_bytes"])
        if self._lengths is not None:
            done = self.num_samples * _LENGTHS_PER_SAMPLE
            with (self.folder / _LENGTHS_SO_FAR_NAME).open("ab") as file:
                file.truncate(done * self._lengths.itemsize)

    @property
    def num_samples(self) -> int:
        """Rows written so far, including those of an interrupted run."""
        return sum(shard.samples for shard in self._shards) + len(self._samples)

    @property
    def position(self) -> int:
        """Rows of the input that are done, written or skipped: the number of the next row."""
        return self.num_samples + self.num_skipped

    def write(self, row: Mapping[str, Any], lengths: Sequence[int] | None = None) -> None:
        """Add a row; may write a shard.

        Args:
            row: a value for every column.
            lengths: frames or views, kept visual tokens, text tokens; only for a writer with `lengths`.

        Raises:
            DataError: as `encode`, and no row is added; or the folder cannot be written.
        """
        self.add(self.encode(row), lengths)

    def add(self, sample: bytes, lengths: Sequence[int] | None = None) -> None:
        """As `write`, for a row that `encode` has encoded."""
        assert not self.finished, "a finished folder takes no rows"
        assert (lengths is None) == (self._lengths is None), "lengths for all rows or for none"
        sample_bytes = len(sample) + 4  # and its offset
        if self._samples and self._shard_bytes + sample_bytes > self._size_limit_bytes:
            self._write_shard()
        if self._lengths is not None and lengths is not None:
            self._lengths.extend(np.asarray(lengths, np.int32).reshape(_LENGTHS_PER_SAMPLE).tolist())
        self._samples.append(sample)
        self._shard_bytes += sample_bytes

    def skip(self, entry: Mapping[str, Any]) -> None:
        """Skip a row of the input, and write `entry` with the reason to the ledger `skipped.jsonl`."""
        assert not self.finished, "a finished folder takes no rows"
        self._ledger.write(json.dumps(entry, ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n")
        self.num_skipped += 1

    def encode(self, row: Mapping[str, Any]) -> bytes:
        """The bytes of a row in a shard.

        Raises:
            DataError: a column is missing, unknown or of another type than its encoding, or the row is too large.
        """
        if row.keys() != set(self._names):
            raise DataError(f"a row has the columns {', '.join(map(str, row))}; needed: {', '.join(self._names)}")
        sizes, values = [], []
        for name, coder in zip(self._names, self._coders):
            try:
                value = coder.encode(row[name])
            except CODING_ERRORS as error:
                encoding = self._settings["column_encodings"][self._names.index(name)]
                raise DataError(f"column {name!r} cannot be written as {encoding}: {error}; change the row") from error
            if coder.size_bytes is None:
                sizes.append(len(value))
            values.append(value)
        sample_bytes = 4 * len(sizes) + sum(map(len, values))
        if self._empty_shard_bytes + 4 + sample_bytes > MAX_SHARD_BYTES:
            raise DataError(f"a row of {sample_bytes} bytes does not fit into a shard of {MAX_SHARD_BYTES}; split it")
        return np.array(sizes, "<u4").tobytes() + b"".join(values)

    def _write_shard(self) -> None:
        offsets = np.cumsum([4 + 4 * (len(self._samples) + 1) + len(self._header), *map(len, self._samples)])
        head = np.array([len(self._samples), *offsets], "<u4").tobytes()
        data = b"".join([head, self._header, *self._samples])
        name = f"shard.{len(self._shards):05}.mds"
        file = FileInfo(
            basename=name, bytes=len(data), hashes={n: hash_file(io.BytesIO(data), n) for n in self._settings["hashes"]}
        )
        shard = ShardInfo(samples=len(self._samples), raw_data=file, zip_data=None, **self._settings)
        try:
            with replacing(self.folder / name) as temporary:
                temporary.write_bytes(data)
            if self._lengths is not None:
                with (self.folder / _LENGTHS_SO_FAR_NAME).open("ab") as lengths_file:
                    self._lengths.tofile(lengths_file)
                flush_to_disk(self.folder / _LENGTHS_SO_FAR_NAME)
                del self._lengths[:]
            self._ledger.flush()
            flush_to_disk(self.folder / LEDGER_NAME)
            self._shards.append(shard)
            self._samples, self._shard_bytes = [], self._empty_shard_bytes
            progress = json.loads(index_text(self._shards, merged=False))
            progress |= {
                "skipped": self.num_skipped,
                "ledger_bytes": os.fstat(self._ledger.fileno()).st_size,
            }
            with replacing(self.folder / _PROGRESS_NAME) as temporary:
                temporary.write_text(json.dumps(progress), encoding="utf-8")
        except OSError as error:
            raise self._unwritable(error) from error

    def close(self) -> None:
        """Write the last shard, the lengths and then the index; nothing if the folder is finished."""
        if self.finished:
            return
        if self._samples:
            self._write_shard()
        try:
            self._ledger.close()
            if self._lengths is not None:
                values = np.fromfile(self.folder / _LENGTHS_SO_FAR_NAME, np.int32).reshape(-1, _LENGTHS_PER_SAMPLE)
                with replacing(self.folder / LENGTHS_NAME) as temporary, temporary.open("wb") as file:
                    np.save(file, values)
            if not self.num_skipped:
                (self.folder / LEDGER_NAME).unlink()
            with replacing(self.folder / INDEX_NAME) as temporary:
                temporary.write_text(index_text(self._shards, merged=False), encoding="utf-8")
            self.finished = True
            self._remove_working_files()
        except OSError as error:
            raise self._unwritable(error) from error

    def _remove_working_files(self) -> None:
        for name in (_PROGRESS_NAME, _LENGTHS_SO_FAR_NAME):
            (self.folder / name).unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Finish the folder; after an error, keep the written shards for the next run."""
        try:
            if error is None:
                self.close()
        finally:
            if hasattr(self, "_ledger"):
                self._ledger.close()
            self._lock.close()


def _read_progress(path: Path) -> tuple[list[ShardInfo], dict[str, int]]:
    """The finished shards of an interrupted run, and its ledger: {"skipped": records, "ledger_bytes": size}."""
    text = path.read_bytes()
    shards, progress = parse_index(text, str(path)), json.loads(text)
    counts = {name: progress.get(name) for name in ("skipped", "ledger_bytes")}
    if not all(isinstance(count, int) and count >= 0 for count in counts.values()):
        raise DataError(f"{path} is damaged; remove {path.parent} and run again, it is made anew")
    return shards, counts
