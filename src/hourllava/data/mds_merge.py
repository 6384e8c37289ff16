"""One index over the shards of several folders, whose data stays where it is."""

import os
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from hourllava.data.atomic import replacing
from hourllava.data.mds_format import (
    INDEX_NAME,
    LENGTHS_NAME,
    ShardInfo,
    check_file,
    index_text,
    parse_index,
    parse_lengths,
)
from hourllava.errors import DataError


def worker_folders(folder: Path) -> list[Path]:
    """The sub-folders of `folder` with an index, in the order of their names, numbers by value (2 before 10)."""
    found = [path.parent for path in folder.glob(f"*/{INDEX_NAME}")]
    return sorted(
        found, key=lambda path: [(p.isdigit(), int(p) if p.isdigit() else 0, p) for p in re.split(r"(\d+)", path.name)]
    )


def read_folder(folder: Path) -> tuple[list[ShardInfo], np.ndarray | None]:
    """The shards of a folder's index, each there with its size, and int32 lengths [samples, 3] if it has them.

    Raises:
        DataError: the index or a shard is missing or damaged.
    """
    path = folder / INDEX_NAME
    try:
        shards = parse_index(path.read_bytes(), str(path))
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}; write the shards first") from error
    for shard in shards:
        check_file(folder / shard.stored.basename, shard.stored, hashes=False)
    lengths_path = folder / LENGTHS_NAME
    num_samples = sum(shard.samples for shard in shards)
    return shards, parse_lengths(
        lengths_path.read_bytes(), str(lengths_path), num_samples
    ) if lengths_path.exists() else None


def merge_indexes(out: Path, sources: Sequence[Path | tuple[Path, str]] | None = None) -> int:
    """Write `out/index.json` (and `lengths.npy` if every source has one) over the shards of several folders.

    Args:
        out: the folder of the merged index.
        sources: folders with an index, or (folder, "first" | "second") for half of its shards, cut where the samples
            are nearest to half; by default the sub-folders of `out`. The index's paths are relative to `out`.

    Returns the number of samples.

    Raises:
        DataError: there is no source, an index or a shard is missing or damaged, or `out` cannot be written.
    """
    if sources is None:
        sources = worker_folders(out)
    if not sources:
        raise DataError(f"{out} has no sub-folder with {INDEX_NAME}; name the folder that `data shard` wrote")
    shards: list[ShardInfo] = []
    lengths: list[np.ndarray | None] = []
    for source in sources:
        folder, half = source if isinstance(source, tuple) else (source, None)
        found, found_lengths = read_folder(folder)
        if half:
            found, found_lengths = _half(found, found_lengths, half)
        prefix = _path_from(out, folder)
        shards += [shard.moved(prefix) if prefix != "." else shard for shard in found]
        lengths.append(found_lengths)
    try:
        out.mkdir(parents=True, exist_ok=True)
        known = [part for part in lengths if part is not None]
        if len(known) == len(lengths):
            with replacing(out / LENGTHS_NAME) as temporary, temporary.open("wb") as file:
                np.save(file, np.concatenate(known))
        else:  # those of an earlier merge do not belong to this index
            (out / LENGTHS_NAME).unlink(missing_ok=True)
        with replacing(out / INDEX_NAME) as temporary:
            temporary.write_text(index_text(shards, merged=True), encoding="utf-8")
    except OSError as error:
        raise DataError(f"{out} cannot be written: {error.strerror or error}; use a folder you may write to") from error
    return sum(shard.samples for shard in shards)


def _half(shards: list[ShardInfo], lengths: np.ndarray | None, half: str) -> tuple[list[ShardInfo], np.ndarray | None]:
    """The shards before or after the cut at which the samples are nearest to half; the earlier cut if two are."""
    before = np.cumsum([0, *(shard.samples for shard in shards)])
    cut = int(np.argmin(np.abs(2 * before - before[-1])))
    cut_samples = int(before[cut])
    if half == "first":
        return shards[:cut], None if lengths is None else lengths[:cut_samples]
    return shards[cut:], None if lengths is None else lengths[cut_samples:]


def _path_from(out: Path, folder: Path) -> str:
    try:
        return Path(os.path.relpath(folder.resolve(), out.resolve())).as_posix()
    except ValueError:  # another drive
        return folder.resolve().as_posix()
