"""A folder of memories, so that a video is watched once per machine and not once per question.

A memory is found by what decides its content: the video's digest, the frame rate, the encoder and the part that was
watched; never by the video's name. The folder is kept below a size by removing what was used longest ago. Several
processes may use it at once without locks: entries appear whole by a rename, and an entry that is removed while another
process has it open stays readable for that one.

    cache = MemoryCache()
    key = cache.key(source_digest("lecture.mp4"), 1.0, encoder_identity(model))
    memory = cache.get(key)  # None: watch the video, then cache.put(key, memory)
"""

import contextlib
import hashlib
import json
import logging
import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

from hourllava.errors import ConfigError, MemoryFileError, PartlyDoneError
from hourllava.inference.encoder import EncoderIdentity
from hourllava.inference.memory import Memory
from hourllava.inference.memory_file import FORMAT_VERSION, UNFINISHED_SUFFIX, read_fields

DEFAULT_MAX_BYTES = 20 * 10**9  # some 38 hours at 1 FPS
_SIZE_VARIABLE = "HOURLLAVA_CACHE_BYTES"
_SUFFIX = ".memory.safetensors"

# A file being written changes all the time, but for the last flush; one this old was left by a killed process.
_UNFINISHED_FOR_SECONDS = 900.0

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
        folder: made when first written to; by default `hourllava/memories` in $XDG_CACHE_HOME or ~/.cache.
        max_bytes: the most the memories may take together; by default $HOURLLAVA_CACHE_BYTES or 20 GB.

    Raises:
        ConfigError: the size is no whole number of bytes from 0 up.
    """

    def __init__(self, folder: str | os.PathLike[str] | None = None, max_bytes: int | None = None) -> None:
        self.folder = _default_folder() if folder is None else Path(folder)
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
        identity = [FORMAT_VERSION, digest, float(fps), encoder.digest, float(start_seconds), end]
        return hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:40]

    def get(self, key: str) -> Memory | None:
        """The memory of that name, now the most recently used; None if it is not here.

        A damaged entry is removed, with a warning in the log.
        """
        path = self._path(key)
        try:
            memory = Memory.load(path)
        except MemoryFileError as error:
            if not isinstance(error.__cause__, FileNotFoundError):
                _log.warning("a cached memory is removed: %s", error)
                _remove(path)
            return None
        with contextlib.suppress(OSError):  # another user's cache can be read but not touched
            os.utime(path)
        return memory

    def put(self, key: str, memory: Memory) -> bool:
        """Store a memory, then remove the least recently used others until all fit.

        Returns:
            False if the memory alone is larger than the cache; it is not stored then.

        Raises:
            MemoryFileError: the folder cannot be written to, or the disk is full.
        """
        if memory.num_bytes > self.max_bytes:
            return False
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise MemoryFileError(
                f"the cache folder {self.folder} cannot be made ({error.strerror or error}); set XDG_CACHE_HOME to a "
                "folder you may write to"
            ) from error
        self._remove_unfinished()
        path = self._path(key)
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
            PartlyDoneError: some cannot be removed.
            MemoryFileError: none can.
        """
        self._remove_unfinished()
        files = self._files()
        freed_bytes = sum(num_bytes for _, num_bytes, path in files if _remove(path))
        num_left = sum(path.exists() for _, _, path in files)  # those that another process has removed are gone, too
        if num_left:
            message = (
                f"{num_left} of {len(files)} memories in {self.folder} cannot be removed ({freed_bytes / 1e6:.1f} MB "
                "freed); check who may write there"
            )
            raise (PartlyDoneError if num_left < len(files) else MemoryFileError)(message)
        return freed_bytes

    def _path(self, key: str) -> Path:
        return self.folder / f"{key}{_SUFFIX}"

    def _files(self) -> list[tuple[float, int, Path]]:
        """(last used, bytes, path) of each memory, the least recently used first."""
        files = []
        for path in self.folder.glob(f"*{_SUFFIX}"):
            with contextlib.suppress(FileNotFoundError):  # removed by another process meanwhile
                status = path.stat()
                files.append((status.st_mtime, status.st_size, path))
        return sorted(files)

    def _evict(self, keep: Path) -> None:
        files = self._files()
        excess_bytes = sum(num_bytes for _, num_bytes, _ in files) - self.max_bytes
        for _, num_bytes, path in files:
            if excess_bytes <= 0:
                break
            if path != keep:
                _remove(path)
                excess_bytes -= num_bytes

    def _remove_unfinished(self) -> None:
        for folder in self.folder.glob(f".*{UNFINISHED_SUFFIX}"):
            with contextlib.suppress(OSError):  # just finished, or another user's
                changed_seconds = max(path.stat().st_mtime for path in (folder, *folder.iterdir()))
                if changed_seconds < time.time() - _UNFINISHED_FOR_SECONDS:
                    shutil.rmtree(folder, ignore_errors=True)


def _remove(path: Path) -> bool:
    """Whether this call has removed the file; one that may not be removed stays."""
    try:
        path.unlink()
    except OSError:
        return False
    return True


def _default_folder() -> Path:
    # The XDG specification: an empty or relative setting counts as none.
    configured = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (configured if configured.is_absolute() else Path.home() / ".cache") / "hourllava" / "memories"


def _default_max_bytes() -> int:
    configured = os.environ.get(_SIZE_VARIABLE, "")
    if not configured:
        return DEFAULT_MAX_BYTES
    try:
        return int(configured)
    except ValueError as error:
        raise ConfigError(f"{_SIZE_VARIABLE} is {configured!r}; give a whole number of bytes") from error
