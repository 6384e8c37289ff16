"""Records of memories: which videos a client had watched. The memories themselves lie in a `MemoryCache`.

A record is a file of JSON, written whole. All methods wait for the disk: call them in a thread.
"""

import contextlib
import dataclasses
import json
import os
import re
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hourllava.errors import StorageError
from hourllava.files import replacing
from hourllava.serving.protocol import Video

_MEMORY_ID = re.compile(r"mem-[0-9a-f]{32}")


@dataclass(frozen=True)
class MemoryRecord:
    """A video that a client had watched. The memory itself is found by digest and part, so it may be shared.

    Attributes:
        id: `mem-` and 32 hexadecimal digits, random; from `MemoryRecords.new_id`.
        file_id: of the uploaded video; None for a file of the media folder.
        media_path: below the media folder; None for an upload.
        name: of the video, to be shown.
        digest: of the video's content.
        fps: frames sampled per second.
        start_seconds, end_seconds: the part, on the player's clock; end None: to the end.
        created_at: seconds since 1970.
        owner: name of the key that asked for it; empty without keys.
        is_cancelled: whether the client ended the watching; then a restarted server does not begin it again.
    """

    id: str
    file_id: str | None
    media_path: str | None
    name: str
    digest: str
    fps: float
    start_seconds: float
    end_seconds: float | None
    created_at: int
    owner: str
    is_cancelled: bool = False

    def video(self, path: Path | None) -> Video:
        """The video for an engine.

        Args:
            path: of its file, which may be gone: a memory that is ready does not need it.
        """
        return Video(
            "" if path is None else str(path), self.digest, self.fps, self.start_seconds, self.end_seconds, self.name
        )


class MemoryRecords:
    """Records of memories, a file each.

    Args:
        folder: of the files.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @staticmethod
    def new_id() -> str:
        """A random id."""
        return f"mem-{secrets.token_hex(16)}"

    def add(self, record: MemoryRecord) -> None:
        """Keep a record, in place of one with the same id.

        Raises:
            StorageError: the disk is full, or cannot be written to.
        """
        assert _MEMORY_ID.fullmatch(record.id), record.id
        with storage_errors(), replacing(self._folder / f"{record.id}.json") as temporary:
            temporary.write_text(json.dumps(dataclasses.asdict(record)), encoding="utf-8")

    def get(self, memory_id: str) -> MemoryRecord | None:
        """The record of an id; None if there is none."""
        if not _MEMORY_ID.fullmatch(memory_id):
            return None
        fields = read_record(self._folder / f"{memory_id}.json")
        return None if fields is None else MemoryRecord(**fields)

    def list(self, owner: str | None = None) -> list[MemoryRecord]:
        """The records of an owner, or all; the oldest first."""
        found = [self.get(path.stem) for path in oldest_first(self._folder.glob("mem-*.json"))]
        return [record for record in found if record is not None and owner in (None, record.owner)]

    def delete(self, memory_id: str) -> bool:
        """Remove a record; whether there was one."""
        try:
            if _MEMORY_ID.fullmatch(memory_id):
                (self._folder / f"{memory_id}.json").unlink()
                return True
        except FileNotFoundError:
            pass
        return False


def read_record(path: Path) -> dict[str, Any] | None:
    """The fields of a record; None if there is none."""
    try:
        fields: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    return fields


def oldest_first(paths: Iterator[Path]) -> list[Path]:
    """Files that are there, by the time of their last change."""
    found: list[tuple[int, str, Path]] = []
    for path in paths:
        with contextlib.suppress(FileNotFoundError):  # deleted meanwhile
            found.append((path.stat().st_mtime_ns, path.name, path))
    return [path for _, _, path in sorted(found)]


@contextlib.contextmanager
def storage_errors() -> Iterator[None]:
    """Errors of the file system, without paths of the server."""
    try:
        yield
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else "input or output failed"
        raise StorageError(
            f"the server cannot write to its disk ({reason}); free some space, or tell its owner"
        ) from error
