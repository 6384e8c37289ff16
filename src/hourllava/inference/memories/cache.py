"""A folder of memories, so that a video is watched once per machine and not once per question.

The key of a memory consists of what decides its content: the video's digest, the frame rate, the encoder and the
watched part. The video's name plays no role. When the folder grows above its size, the least recently used memories are
removed. Several processes may use the folder at once, without locks: an entry appears whole, by a rename, and an entry
that is removed stays readable for a process that has it open.

    cache = MemoryCache()
    key = cache.key(source_digest("lecture.mp4"), 1.0, encoder_identity(model))
    memory = cache.get(key)  # None: watch the video, then cache.put(key, memory)

The memory of a video without a digest is not kept: a pipe, a playlist, a URL whose server sends no date or tag.
"""

import contextlib
import hashlib
import json
import logging
import os
from dataclasses import dataclass
from pathlib import Path

from hourllava.errors import ConfigError, MemoryFileError, PartlyDoneError
from hourllava.folders import user_cache_folder
from hourllava.inference.memories.encoder import EncoderIdentity
from hourllava.inference.memories.memory import Memory
from hourllava.inference.memories.memory_file import FORMAT_VERSION, read_fields, remove_unfinished

DEFAULT_MAX_BYTES = 20 * 10**9  # some 38 hours at 1 FPS
_SIZE_VARIABLE = "HOURLLAVA_CACHE_BYTES"
_SUFFIX = ".memory.safetensors"

# Part of every key. It grows when the same video would be read differently, so that videos are watched again.
# 2: playlists and URLs without a date or tag are not kept, and files are compared before and after.
_READING_VERSION = 2

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class CacheEntry:
    """A memory in the cache.

    Attributes:
        key: from `MemoryCache.key`.
        source_name: file name of the video.
        num_frames: of the memory.
        duration_seconds: length of the watched part.
        num_bytes: size of the file.
        last_used_seconds: since 1970, as `time.time()`.
    """

    key: str
    source_name: str
    num_frames: int
    duration_seconds: float
    num_bytes: int
    last_used_seconds: float


class MemoryCache:
    """Memories on the disk, least recently used ones removed first.

    Args:
        folder: made at the first `put`; by default `hourllava/memories` in $XDG_CACHE_HOME or ~/.cache. Without a
            folder and a home, nothing is kept, and a warning says so.
        max_bytes: limit on the size of all memories together; by default $HOURLLAVA_CACHE_BYTES or 20 GB.

    Attributes:
        folder: of the memories; None if there is none.
        max_bytes: as given.

    Raises:
        ConfigError: the limit is no whole number, or below 0.
    """

    def __init__(self, folder: str | os.PathLike[str] | None = None, max_bytes: int | None = None) -> None:
        self.folder = user_cache_folder("memories") if folder is None else Path(folder)
        if self.folder is None:
            _log.warning("memories are not kept: this user has no home folder; set HOME or XDG_CACHE_HOME to keep them")
        self.max_bytes = _default_max_bytes() if max_bytes is None else max_bytes
        if self.max_bytes < 0:
            raise ConfigError(f"a cache of {self.max_bytes} bytes cannot be; give 0 (nothing is kept) or more")

    def key(
        self,
        digest: str,
        fps: float,
        encoder: EncoderIdentity,
        start_seconds: float = 0.0,
        end_seconds: float | None = None,
    ) -> str:
        """The name under which the memory of one part of one video is kept.

        Args:
            digest: identity of the video's content, from `hourllava.video.source_digest`.
            fps: frames sampled per second.
            encoder: of the model.
            start_seconds, end_seconds: the watched part; None stands for the video's end.
        """
        end = None if end_seconds is None else float(end_seconds)
        identity = [FORMAT_VERSION, _READING_VERSION, digest, float(fps), encoder.digest, float(start_seconds), end]
        return hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:40]

    def get(self, key: str) -> Memory | None:
        """The memory of a key, which becomes the most recently used; None if it is not in the cache.

        A damaged entry is removed. An entry that cannot be opened at the moment stays. The log warns of both.
        """
        path = self._path(key)
        if path is None:
            return None
        try:
            memory = Memory.load(path)
        except MemoryFileError as error:
            if isinstance(error.__cause__, FileNotFoundError):
                return None
            if isinstance(error.__cause__, OSError | RuntimeError):  # no descriptor, no room to map it, no permission
                _log.warning("a cached memory is not used: %s", error)
            else:
                _log.warning("a cached memory is removed: %s", error)
                _remove(path)
            return None
        except MemoryError:
            _log.warning("a cached memory is not used: there is no room to map %s", path)
            return None
        with contextlib.suppress(OSError):  # another user's cache can be read but not touched
            os.utime(path)
        return memory

    def put(self, key: str, memory: Memory) -> bool:
        """Keep a memory, then remove the least recently used others until all fit.

        Returns:
            whether the memory was kept: False if it alone is larger than the cache, or there is no folder.

        Raises:
            MemoryFileError: the folder cannot be written to, or the disk is full.
        """
        path, snapshot = self._path(key), memory.snapshot()
        if self.folder is None or path is None or snapshot.num_bytes > self.max_bytes:
            return False
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise MemoryFileError(
                f"the cache folder {self.folder} cannot be made ({error.strerror or error}); set XDG_CACHE_HOME to a "
                "folder you may write to"
            ) from error
        remove_unfinished(self.folder)
        snapshot.save(path)
        self._evict(keep=path)
        return True

    def entries(self) -> list[CacheEntry]:
        """All readable memories, the most recently used first. Features are not loaded."""
        entries = []
        for last_used_seconds, num_bytes, path in reversed(self._files()):
            try:
                num_frames, fields = read_fields(path)
                name, duration_seconds = fields["source"]["name"], fields["duration_seconds"]
            except (MemoryFileError, KeyError, TypeError):
                continue  # damaged, or removed meanwhile; `get` and `clear` deal with it
            key = path.name.removesuffix(_SUFFIX)
            entries.append(CacheEntry(key, name, num_frames, duration_seconds, num_bytes, last_used_seconds))
        return entries

    def usage(self) -> tuple[int, int]:
        """(number of memories, bytes of all together)."""
        files = self._files()
        return len(files), sum(num_bytes for _, num_bytes, _ in files)

    def remove(self, key: str) -> bool:
        """Remove a memory; whether it was there.

        Raises:
            MemoryFileError: it cannot be removed.
        """
        path = self._path(key)
        reason = None if path is None else _remove(path)
        if path is None or isinstance(reason, FileNotFoundError):
            return False
        if reason is not None:
            raise MemoryFileError(
                f"a memory in {self.folder} cannot be removed ({reason.strerror or reason}); change its permissions"
            ) from reason
        return True

    def clear(self) -> int:
        """Remove all memories.

        Returns:
            the number of freed bytes.

        Raises:
            PartlyDoneError: some memories cannot be removed; the others are.
            MemoryFileError: no memory can be removed.
        """
        if self.folder is None:
            return 0
        remove_unfinished(self.folder)
        files = self._files()
        freed_bytes, kept = 0, []
        for _, num_bytes, path in files:
            reason = _remove(path)
            if reason is None:
                freed_bytes += num_bytes
            elif not isinstance(reason, FileNotFoundError):
                kept.append(reason)
        if kept:
            raise (PartlyDoneError if len(kept) < len(files) else MemoryFileError)(
                f"{len(kept)} of {len(files)} memories in {self.folder} cannot be removed "
                f"({kept[0].strerror or kept[0]}), {freed_bytes / 1e6:.1f} MB were freed; change its permissions"
            )
        return freed_bytes

    def _path(self, key: str) -> Path | None:
        return None if self.folder is None else self.folder / f"{key}{_SUFFIX}"

    def _files(self) -> list[tuple[float, int, Path]]:
        """(last use in seconds, bytes, path) of each memory, the least recently used first."""
        files: list[tuple[float, int, Path]] = []
        for path in () if self.folder is None else self.folder.glob(f"*{_SUFFIX}"):
            with contextlib.suppress(FileNotFoundError):  # removed by another process meanwhile
                status = path.stat()
                files.append((status.st_mtime, status.st_size, path))
        return sorted(files)

    def _evict(self, keep: Path) -> None:
        with contextlib.suppress(FileNotFoundError):  # removed by another process meanwhile
            _set_back_from_future(self._files(), keep.stat().st_mtime)
        files = self._files()
        excess_bytes = sum(num_bytes for _, num_bytes, _ in files) - self.max_bytes
        for _, num_bytes, path in files:
            if excess_bytes <= 0:
                break
            if path != keep:
                _remove(path)
                excess_bytes -= num_bytes


def _set_back_from_future(files: list[tuple[float, int, Path]], now_seconds: float) -> None:
    """Date entries of the future (their clock was ahead) just before now, in the same order, so that they can age."""
    ahead = [path for last_used_seconds, _, path in files if last_used_seconds > now_seconds]
    for i, path in enumerate(ahead):
        seconds = now_seconds - 0.001 * (len(ahead) - i)
        with contextlib.suppress(OSError):  # another user's, or removed meanwhile
            os.utime(path, (seconds, seconds))


def _remove(path: Path) -> OSError | None:
    """Remove a file; give the error if it stays."""
    try:
        path.unlink()
    except OSError as error:
        return error
    return None


def _default_max_bytes() -> int:
    configured = os.environ.get(_SIZE_VARIABLE, "")
    if not configured:
        return DEFAULT_MAX_BYTES
    try:
        return int(configured)
    except ValueError as error:
        raise ConfigError(f"{_SIZE_VARIABLE} is {configured!r}; give a whole number of bytes") from error
