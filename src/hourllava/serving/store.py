"""What a server keeps on the disk: uploaded files, beside records of memories.

    store = Store(Path("hourllava-store"))
    with store.new_upload("lecture.mp4", "user_data", owner="") as upload:
        upload.write(b"...")
        record = upload.commit()
    print(record.id, record.digest, store.path(record.id))

An upload is a folder of its own, and its name is made here. It is written as `.ID.partial` and renamed when it is
whole, so a killed server leaves nothing half. The next start removes what it left. Several processes may use one store.
All methods wait for the disk: call them in a thread. Memories themselves lie in a `MemoryCache` in the store's folder.
"""

import contextlib
import dataclasses
import hashlib
import json
import re
import secrets
import shutil
import time
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath
from types import TracebackType
from typing import Literal, Self

from hourllava.errors import DataError, StorageError, one_line
from hourllava.files import TEMPORARY_SUFFIX, flush_to_disk
from hourllava.locks import lock_folder
from hourllava.serving.media import SUBTITLE_SUFFIXES
from hourllava.serving.records import MemoryRecords, oldest_first, read_record, storage_errors

FileKind = Literal["video", "subtitles", "other"]

MIN_FREE_BYTES = 256 * 2**20
"""Bytes that uploads leave free on the disk, for memories and records."""

_FREE_CHECK_BYTES = 16 * 2**20  # the free space is looked at once in so many bytes
_HEAD_BYTES = 4096
_MAX_NAME = 255
_ABANDONED_SECONDS = 3600.0  # a temporary record of this age is left by a killed process
_FILE_ID = re.compile(r"file-[0-9a-f]{32}")


@dataclass(frozen=True)
class FileRecord:
    """An uploaded file.

    Attributes:
        id: `file-` and 32 hexadecimal digits, random.
        filename: as the client called it, without folders; only to be shown.
        bytes: its size.
        created_at: seconds since 1970.
        purpose: as the client said.
        digest: "sha256:" and the SHA-256 of the whole file in hexadecimal digits.
        owner: name of the key that uploaded it; empty without keys.
        kind: `subtitles` by its name; `other` for text and empty files; else `video`, which watching will show.
    """

    id: str
    filename: str
    bytes: int
    created_at: int
    purpose: str
    digest: str
    owner: str
    kind: FileKind


class Upload:
    """A file that is coming in; from `Store.new_upload`. A `with` block that ends without `commit` removes it.

    Args:
        store: keeps it.
        filename, purpose, owner: for its record.

    Attributes:
        purpose: may be changed until `commit`: in a form it can come after the file.
    """

    def __init__(self, store: "Store", filename: str, purpose: str, owner: str) -> None:
        self._store, self._filename, self.purpose, self._owner = store, filename, purpose, owner
        self.id = f"file-{secrets.token_hex(16)}"
        self._sha256 = hashlib.sha256()
        self._head = b""
        self.num_bytes = 0
        self._unchecked_bytes = 0
        self._folder = store.uploads / f".{self.id}.partial"
        with contextlib.ExitStack() as on_failure, storage_errors():
            # Another process that starts meanwhile sees by the lock that this one is alive.
            on_failure.enter_context(lock_folder(store.uploads, _lock_name(self.id)))
            store.check_room(0)
            self._folder.mkdir()
            on_failure.callback(shutil.rmtree, self._folder, ignore_errors=True)
            self._file = (self._folder / "content").open("wb")
            on_failure.callback(self._close)
            self._on_end = on_failure.pop_all()

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Add the next bytes.

        Raises:
            StorageError: the disk is full, or cannot be written to. The upload is removed.
        """
        try:
            with storage_errors():
                self._unchecked_bytes += len(data)
                if self._unchecked_bytes >= _FREE_CHECK_BYTES:
                    self._store.check_room(len(data))
                    self._unchecked_bytes = 0
                self._file.write(data)
        except BaseException:
            self.abort()
            raise
        if len(self._head) < _HEAD_BYTES:
            self._head += bytes(data[: _HEAD_BYTES - len(self._head)])
        self._sha256.update(data)
        self.num_bytes += len(data)

    def commit(self) -> FileRecord:
        """The file is whole: keep it.

        Raises:
            StorageError: the disk is full, or cannot be written to. The upload is removed.
        """
        name = shown_filename(self._filename)
        record = FileRecord(
            id=self.id,
            filename=name,
            bytes=self.num_bytes,
            created_at=int(time.time()),
            purpose=self.purpose,
            digest=f"sha256:{self._sha256.hexdigest()}",
            owner=self._owner,
            kind=_kind(name, self._head),
        )
        with contextlib.closing(self), storage_errors():
            self._file.close()
            (self._folder / "record.json").write_text(json.dumps(dataclasses.asdict(record)), encoding="utf-8")
            for written in (self._folder / "content", self._folder / "record.json", self._folder):
                flush_to_disk(written)
            self._folder.rename(self._store.uploads / self.id)
            flush_to_disk(self._store.uploads)
        return record

    def abort(self) -> None:
        """Remove what was written, unless `commit` has kept it. A second call does nothing."""
        self._on_end.close()

    close = abort

    def _close(self) -> None:
        with contextlib.suppress(OSError):  # a full disk: what is buffered is lost with the file
            self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.abort()


class Store:
    """The files of a server.

    Args:
        folder: is made if it is missing.
        min_free_bytes: that uploads leave free on the disk.

    Attributes:
        uploads: folder of the uploaded files.
        memories_folder: for the `MemoryCache` of an engine.
        memories: records of memories.

    Raises:
        StorageError: the folder cannot be made or written to.
    """

    def __init__(self, folder: Path, *, min_free_bytes: int = MIN_FREE_BYTES) -> None:
        self.folder = folder.absolute()
        self.min_free_bytes = min_free_bytes
        self.uploads = self.folder / "uploads"
        self.memories_folder = self.folder / "memories"
        records = self.folder / "records"
        with storage_errors():
            for each in (self.uploads, self.memories_folder, records):
                each.mkdir(parents=True, exist_ok=True)
            self._remove_unfinished(records)
        self.memories = MemoryRecords(records)

    def new_upload(self, filename: str, purpose: str = "user_data", owner: str = "") -> Upload:
        """Begin to take a file.

        Raises:
            StorageError: the disk is full, or cannot be written to.
        """
        return Upload(self, filename, purpose, owner)

    def get(self, file_id: str) -> FileRecord | None:
        """The record of a file; None if there is none of this id."""
        if not _FILE_ID.fullmatch(file_id):
            return None
        fields = read_record(self.uploads / file_id / "record.json")
        return None if fields is None else FileRecord(**fields)

    def list(self, owner: str | None = None) -> list[FileRecord]:
        """The files of an owner, or all; the oldest first."""
        found = [self.get(path.parent.name) for path in oldest_first(self.uploads.glob("file-*/record.json"))]
        return [record for record in found if record is not None and owner in (None, record.owner)]

    def path(self, file_id: str) -> Path:
        """Where the content of a file lies, if it is there.

        Raises:
            DataError: this is no id of a file.
        """
        if not _FILE_ID.fullmatch(file_id):
            raise DataError(f"{file_id[:100]!r} is no id of a file; ids come with uploads")
        return self.uploads / file_id / "content"

    def delete(self, file_id: str) -> bool:
        """Remove a file at once and whole; whether there was one. Who has it open can read on."""
        if not _FILE_ID.fullmatch(file_id):
            return False
        gone = self.uploads / f".{file_id}.deleted"
        try:
            (self.uploads / file_id).rename(gone)
        except FileNotFoundError:
            return False
        shutil.rmtree(gone, ignore_errors=True)
        return True

    def check_room(self, num_bytes: int) -> None:
        """Check that the disk has room for so many more bytes.

        Raises:
            StorageError: it has not.
        """
        with storage_errors():
            free_bytes = shutil.disk_usage(self.uploads).free
        if free_bytes - num_bytes < self.min_free_bytes:
            raise StorageError(
                f"the server's disk is full: {free_bytes / 1e6:,.0f} MB are free, {self.min_free_bytes / 1e6:,.0f} MB "
                f"are to stay free, and {num_bytes / 1e6:,.0f} MB are needed; delete files or memories"
            )

    def _remove_unfinished(self, records: Path) -> None:
        """Remove what killed processes left; what living ones write is locked."""
        for left in self.uploads.glob(".file-*"):
            file_id = left.name[1:].partition(".")[0]
            # The lock is another process's: it writes.
            with contextlib.suppress(DataError), lock_folder(self.uploads, _lock_name(file_id), wait_seconds=0):
                for state in ("partial", "deleted"):
                    shutil.rmtree(self.uploads / f".{file_id}.{state}", ignore_errors=True)
        for left in records.glob(f"*{TEMPORARY_SUFFIX}"):
            with contextlib.suppress(FileNotFoundError):
                if time.time() - left.stat().st_mtime > _ABANDONED_SECONDS:
                    left.unlink()


def shown_filename(name: str) -> str:
    """A client's name of a file, to be shown: its last part, on one line, at most 255 letters."""
    last = PureWindowsPath(name).name  # splits at both kinds of slashes
    return one_line(last.encode(errors="replace").decode())[:_MAX_NAME].strip() or "upload"


def _lock_name(file_id: str) -> str:
    return f".{file_id}.lock"


def _kind(filename: str, head: bytes) -> FileKind:
    if Path(filename).suffix.lower() in SUBTITLE_SUFFIXES:
        return "subtitles"
    return "other" if _is_text(head) else "video"


def _is_text(head: bytes) -> bool:
    """Whether a file's first bytes are UTF-8 without control characters, or nothing; no container begins so."""
    try:
        text = head.decode()
    except UnicodeDecodeError as error:
        if error.end < len(head) or error.start < len(head) - 3:  # not just a letter that is cut in two
            return False
        text = head[: error.start].decode()
    return not re.search(r"[\x00-\x08\x0e-\x1a\x1c-\x1f]", text)
