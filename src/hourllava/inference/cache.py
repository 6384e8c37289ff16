"""A folder of memories, so that a video is watched once per machine and not once per question.

A memory is found by what decides its content: the video's digest, the frame rate, the encoder and the part that was
watched; never by the video's name. The folder is kept below a size by removing what was used longest ago. Several
processes may use it at once without locks: entries appear whole by a rename, and an entry that is removed while another
process has it open stays readable for that one.

    cache = MemoryCache()
    key = cache.key(source_digest("lecture.mp4"), 1.0, encoder_identity(model))
    memory = cache.get(key)  # None: watch the video, then cache.put(key, memory)

A video without a digest (a pipe, a playlist, an address whose content the server does not identify) is not kept.
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
from hourllava.inference.encoder import EncoderIdentity
from hourllava.inference.memory import Memory
from hourllava.inference.memory_file import FORMAT_VERSION, read_fields, remove_unfinished

DEFAULT_MAX_BYTES = 20 * 10**9  # some 38 hours at 1 FPS
_SIZE_VARIABLE = "HOURLLAVA_CACHE_BYTES"
_SUFFIX = ".memory.safetensors"

# Part of every key: grows when a video is read in another way than before, so that what was kept is watched again.
# 2: playlists and addresses without a date or tag are not kept, and files are compared before and after.
_READING_VERSION = 2

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class CacheEntry:
    """A memory in the cache. `last_used_seconds` counts since 1970, as `time.time()`."""

    key: str
    source_name: str
    num_frames: int
    duration_seconds: float
    num_bytes: int
    last_used_seconds: float


class MemoryCache:
    """Memories on the disk, least recently used ones removed first.

    Args:
        folder: made when first written to; by default `hourllava/memories` in $XDG_CACHE_HOME or ~/.cache. A user who
            has no home and names no folder has no cache: nothing is kept, and a warning says so.
        max_bytes: the most the memories may take together; by default $HOURLLAVA_CACHE_BYTES or 20 GB.

    Raises:
        ConfigError: the size is no whole number of bytes from 0 up.
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
        """Name of the memory of one part of one video, as seen by one encoder.

        Args:
            digest: identity of the video's content.
            fps: frames sampled per second.
            encoder: of the model.
            start_seconds, end_seconds: part that was watched; None stands for the video's own end.
        """
        end = None if end_seconds is None else float(end_seconds)
        identity = [FORMAT_VERSION, _READING_VERSION, digest, float(fps), encoder.digest, float(start_seconds), end]
        return hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:40]

    def get(self, key: str) -> Memory | None:
        """The memory of that name, now the most recently used; None if it is not here.

        A damaged entry is removed, with a warning in the log; one that cannot be opened now stays, with a warning.
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
        """Store a memory, then remove the least recently used others until all fit.

        Returns:
            False if the memory alone is larger than the cache, or there is no cache; it is not stored then.

        Raises:
            MemoryFileError: the folder cannot be written to, or the disk is full.
        """
        path = self._path(key)
        if self.folder is None or path is None or memory.num_bytes > self.max_bytes:
            return False
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise MemoryFileError(
                f"the cache folder {self.folder} cannot be made ({error.strerror or error}); set XDG_CACHE_HOME to a "
                "folder you may write to"
            ) from error
        remove_unfinished(self.folder)
        memory.save(path)
        self._evict(keep=path)
        return True

    def entries(self) -> list[CacheEntry]:
        """All readable memories, the most recently used first; features are not loaded."""
        entries = []
        for last_used_seconds, num_bytes, path in reversed(self._files()):
            try:
                num_frames, fields = read_fields(path)
                name, duration_seconds = fields["source"]["name"], fields["duration_seconds"]
            except (MemoryFileError, KeyError, TypeError):
                continue  # damaged, or removed since; `get` and `clear` deal with it
            key = path.name.removesuffix(_SUFFIX)
            entries.append(CacheEntry(key, name, num_frames, duration_seconds, num_bytes, last_used_seconds))
        return entries

    def clear(self) -> int:
        """Remove all memories.

        Returns:
            bytes freed

        Raises:
            PartlyDoneError: some may not be removed; the others are.
            MemoryFileError: none may.
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
        """(last used, bytes, path) of each memory, the least recently used first."""
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
    """Entries used in the future, by a clock that was ahead, were used just before now, in their order: they age on."""
    ahead = [path for last_used_seconds, _, path in files if last_used_seconds > now_seconds]
    for i, path in enumerate(ahead):
        seconds = now_seconds - 0.001 * (len(ahead) - i)
        with contextlib.suppress(OSError):  # another user's, or removed meanwhile
            os.utime(path, (seconds, seconds))


def _remove(path: Path) -> OSError | None:
    """Remove a file; why it stays, if it does."""
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
