"""The videos of a feature run, the places of their features, and the videos that may have killed a run.

While a video is read, a file `.NAME.attempt` lies beside the place of its features. If that file is there when a run
begins, an earlier run was killed while it read this video, perhaps because its frames did not fit into memory. Such
videos come last, one at a time. After `MAX_ATTEMPTS` killed runs a video is not tried again.
"""

import json
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from hourllava.data.records.media import VIDEO_SUFFIXES, feature_name
from hourllava.errors import DataError
from hourllava.files import TEMPORARY_SUFFIX
from hourllava.inference.memories.memory_file import UNFINISHED_SUFFIX
from hourllava.locks import lock_folder

MAX_ATTEMPTS = 5
"""Killed runs after which a video is given up: several, because a cluster that takes machines back kills runs, too."""

_LOCK = re.compile(r"\.features-(\d+)-of-(\d+)\.lock")


@dataclass(frozen=True)
class Item:
    """A video and where its features go."""

    video: Path
    out: Path


def find_items(sources: Sequence[Path], out: Path, suffix: str, names: Sequence[str] | None = None) -> list[Item]:
    """The videos of files and folders, sorted, each with the place of its features.

    The features of `s/v.mp4` in a source folder lie at `OUT/s/v<suffix>`, those of a source file directly in OUT. A
    source that does not exist is an item, too: it ends up in the ledger.

    Args:
        sources: files and folders.
        out: folder of the features.
        suffix: of their files.
        names: paths below the source folders, which are then not searched.

    Raises:
        DataError: a folder without videos, or two videos whose features would have one name.
    """
    places: dict[Path, Path] = {}
    for source in sources:
        if names is not None:
            videos = [source / name for name in names]
        elif source.is_dir():
            videos = sorted(path for path in source.rglob("*") if path.suffix.lower() in VIDEO_SUFFIXES)
            if not videos:
                raise DataError(f"{source} holds no video; videos end in {' '.join(sorted(VIDEO_SUFFIXES))}")
        else:
            videos = [source]
        for video in videos:
            relative = Path(video.name) if video == source else video.relative_to(source)
            place = out / feature_name(relative.as_posix(), suffix)
            if places.get(place, video).absolute() != video.absolute():
                raise DataError(f"{places[place]} and {video} would both become {place}; rename one, or make two runs")
            places[place] = video
    return [Item(video, place) for place, video in sorted(places.items())]


def remove_unfinished(places: Sequence[Path]) -> None:
    """Remove what killed runs left of these files, but nothing of other shards, which may be running."""
    names: dict[Path, set[str]] = {}
    for place in places:
        names.setdefault(place.parent, set()).add(place.name)
    for folder, ours in names.items():
        if not folder.is_dir():
            continue
        for path in folder.iterdir():
            if path.name.endswith(UNFINISHED_SUFFIX) and path.name[1:].rsplit(".", 2)[0] in ours:
                shutil.rmtree(path, ignore_errors=True)
            elif path.name.endswith(TEMPORARY_SUFFIX) and path.name.rsplit(".", 2)[0] in ours:
                path.unlink(missing_ok=True)


@contextmanager
def hold_shard(out: Path, shard: tuple[int, int]) -> Iterator[None]:
    """Hold shard k of N of a folder of features: other runs may make other shards of N, but not the same videos.

    Raises:
        DataError: another run holds videos of this shard.
        OSError: the folder cannot be written to.
    """
    index, count = shard
    with lock_folder(out, f".features-{index}-of-{count}.lock"):
        for path in out.glob(".features-*.lock"):
            match = _LOCK.fullmatch(path.name)
            if match is not None and int(match[2]) != count:
                with lock_folder(out, path.name):  # a DataError, unless a killed run left the lock
                    pass
        yield


def num_attempts(item: Item) -> int:
    """How many runs were killed while they read this video, as it is now."""
    with suppress(OSError, ValueError, LookupError, TypeError, RecursionError):
        noted = json.loads(_attempt_path(item.out).read_bytes())
        if noted["video"] == _state(item.video):
            return int(noted["attempts"])
    return 0


def note_attempts(item: Item, count: int) -> None:
    """Note how many runs a video may have killed; 0 removes the note."""
    path = _attempt_path(item.out)
    with suppress(OSError):  # if nothing can be written, writing the features fails as well, with an error of its own
        if count:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps({"attempts": count, "video": _state(item.video)}), encoding="utf-8")
        else:
            path.unlink(missing_ok=True)


def refusal(item: Item) -> str:
    """The ledger's reason for a video that is not tried again."""
    return (
        f"{item.video}: {MAX_ATTEMPTS} runs were killed while they read it, perhaps for memory; convert or cut it, or "
        f"remove {_attempt_path(item.out)} to try again"
    )


def _attempt_path(out: Path) -> Path:
    return out.with_name(f".{out.name}.attempt")


def _state(video: Path) -> list[int]:
    status = video.stat()
    return [status.st_size, status.st_mtime_ns]
