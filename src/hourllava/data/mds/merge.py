"""Merges indexes: one index over the shards of several folders, whose data stays in place."""

import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hourllava.data.mds.format import (
    INDEX_NAME,
    LENGTHS_NAME,
    LENGTHS_SETTINGS_NAME,
    ShardInfo,
    check_file,
    index_text,
    parse_index,
    parse_lengths,
)
from hourllava.data.mds.reader import read_lengths_settings
from hourllava.data.mds.remote import shard_path
from hourllava.errors import DataError
from hourllava.files import remove_leftovers, replacing


def worker_folders(folder: Path) -> list[Path]:
    """The sub-folders of `folder` with an index, in the order of their names, numbers by value (2 before 10)."""
    found = [path.parent for path in folder.glob(f"*/{INDEX_NAME}")]
    return sorted(
        found, key=lambda path: [(p.isdigit(), int(p) if p.isdigit() else 0, p) for p in re.split(r"(\d+)", path.name)]
    )


@dataclass(frozen=True)
class Measured:
    """Lengths of a folder's samples, int32 [samples, 3], and the settings of their measuring; None if unknown."""

    lengths: np.ndarray
    settings: dict[str, Any] | None


def read_folder(folder: Path) -> tuple[list[ShardInfo], Measured | None]:
    """The shards of a folder's index, whose files have the right sizes, and their lengths if it has any.

    Raises:
        DataError: the index or a shard is missing or damaged.
    """
    path = folder / INDEX_NAME
    try:
        shards = parse_index(path.read_bytes(), str(path))
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}; write the shards first") from error
    for shard in shards:
        check_file(shard_path(folder, shard.stored.basename), shard.stored, hashes=False)
    lengths_path = folder / LENGTHS_NAME
    if not lengths_path.exists():
        return shards, None
    lengths = parse_lengths(lengths_path.read_bytes(), str(lengths_path), sum(shard.samples for shard in shards))
    return shards, Measured(lengths, read_lengths_settings(str(folder)))


def merge_indexes(out: Path, sources: Sequence[Path | tuple[Path, str]] | None = None) -> int:
    """Write `out/index.json` over the shards of several folders, and their lengths if all were measured alike.

    Lengths already in `out` stay if they belong to exactly this index.

    Args:
        out: the folder of the merged index.
        sources: folders with an index, or (folder, "first" | "second") for half of its shards, cut nearest to half of
            the samples; by default the sub-folders of `out`. Paths in the index are relative to `out`.

    Returns the number of samples.

    Raises:
        DataError: there is no source, an index or a shard is missing or damaged, or `out` cannot be written.
    """
    if sources is None:
        sources = worker_folders(out)
    if not sources:
        raise DataError(f"{out} has no sub-folder with {INDEX_NAME}; name the folder that `data shard` wrote")
    shards: list[ShardInfo] = []
    parts: list[Measured | None] = []
    for source in sources:
        folder, half = source if isinstance(source, tuple) else (source, None)
        found, measured = read_folder(folder)
        if half:
            found, measured = _half(found, measured, half)
        prefix = path_from(out, folder)
        shards += [shard.moved(prefix) if prefix != "." else shard for shard in found]
        parts.append(measured)
    text = index_text(shards, merged=True)
    try:
        out.mkdir(parents=True, exist_ok=True)
        remove_leftovers(out, (INDEX_NAME, LENGTHS_NAME, LENGTHS_SETTINGS_NAME))
        index = out / INDEX_NAME
        lengths = _joined(parts)
        if lengths is not None:
            write_lengths(out, lengths)
        elif not index.exists() or index.read_text(encoding="utf-8") != text:
            write_lengths(out, None)
        with replacing(index) as temporary:
            temporary.write_text(text, encoding="utf-8")
    except OSError as error:
        raise DataError(f"{out} cannot be written: {error.strerror or error}; use a folder you may write to") from error
    return sum(shard.samples for shard in shards)


def write_lengths(folder: Path, measured: Measured | None) -> None:
    """Write lengths beside an index, or remove those that are there. They count only together with their settings."""
    settings_path, lengths_path = folder / LENGTHS_SETTINGS_NAME, folder / LENGTHS_NAME
    settings_path.unlink(missing_ok=True)
    if measured is None:
        lengths_path.unlink(missing_ok=True)
        return
    with replacing(lengths_path) as temporary, temporary.open("wb") as file:
        np.save(file, measured.lengths)
    if measured.settings is not None:
        with replacing(settings_path) as temporary:
            temporary.write_text(json.dumps(measured.settings, indent=1) + "\n", encoding="utf-8")


def _joined(parts: list[Measured | None]) -> Measured | None:
    known = [part for part in parts if part is not None]
    if len(known) < len(parts) or any(part.settings != known[0].settings for part in known):
        return None
    return Measured(np.concatenate([part.lengths for part in known]), known[0].settings)


def _half(shards: list[ShardInfo], measured: Measured | None, half: str) -> tuple[list[ShardInfo], Measured | None]:
    """The shards before or after the cut nearest to half of the samples; of two such cuts, the earlier one counts."""
    before = np.cumsum([0, *(shard.samples for shard in shards)])
    cut = int(np.argmin(np.abs(2 * before - before[-1])))
    shards_taken, samples_taken = slice(cut), slice(int(before[cut]))
    if half == "second":
        shards_taken, samples_taken = slice(cut, None), slice(int(before[cut]), None)
    return shards[shards_taken], measured and Measured(measured.lengths[samples_taken], measured.settings)


def path_from(out: Path, folder: Path) -> str:
    """A folder's path for a file in `out`: relative, with slashes."""
    try:
        return Path(os.path.relpath(folder.resolve(), out.resolve())).as_posix()
    except ValueError:  # another drive
        return folder.resolve().as_posix()
