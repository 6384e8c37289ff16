"""Which content a source holds: its digest, and whether it has changed.

A memory is kept under the digest of its video, so one digest must never stand for two contents. The state of a file is
noted before it is hashed and compared after it was read, so a file replaced in between is noticed. Some sources have no
digest, and no memory of them is kept: pipes, playlists (they name other files), and addresses whose server gives
neither date nor tag.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from hourllava.errors import VideoError
from hourllava.video.address import content_validators, parse_address
from hourllava.video.source import Source, SourceKind, frame_files, resolve_source

DIGEST_BLOCK_BYTES = 1 << 20
DIGEST_BLOCKS = 256
DIGEST_PICTURES = 4096  # of a folder of more pictures only some are read


@dataclass(frozen=True)
class SourceState:
    """The content of a source at one moment.

    Attributes:
        source: The source.
        stamp: Inode, length and time of change of a file or of all pictures of a folder; length, date and tag of an
            address; None if there are none.
        digest: "sha256:" and 64 hexadecimal digits; None if the content cannot be identified.
    """

    source: Source
    stamp: str | tuple[int, ...] | None
    digest: str | None = None

    @classmethod
    def of(cls, source: Source) -> SourceState:
        """The state of a file now, without a digest: one call of the file system."""
        return cls(source, _file_stamp(source))

    def is_unchanged(self) -> bool:
        """Whether the source is as it was; True if that cannot be known.

        False, and no error, for a file that only grew (a recording) and for an address of another date.

        Raises:
            VideoError: the file or folder changed in another way: the frames read may be of two videos.
        """
        if self.stamp is None:
            return True
        if self.source.kind is SourceKind.URL:
            try:
                return _address_stamp(self.source) == self.stamp
            except VideoError:
                return False
        try:
            is_folder = self.source.kind is SourceKind.FOLDER
            now = _folder_stamp(_pictures(Path(self.source.location))) if is_folder else _file_stamp(self.source)
        except OSError:  # the file or one of the pictures is gone
            now = None
        if now == self.stamp:
            return True
        if isinstance(now, tuple) and isinstance(self.stamp, tuple):
            (*file_before, size_before, _), (*file_now, size_now, _) = self.stamp, now
            if file_now == file_before and size_now > size_before:
                return False
        raise VideoError(f"{self.source.location} changed while it was read: wait until it is complete, then retry")


def source_state(
    source: str | os.PathLike[str],
    *,
    allow_network: bool = False,
    allow_playlists: bool = False,
    ask_server: bool = True,
) -> SourceState:
    """The state of a source now, with a digest of its content if it can have one.

    - A file up to 256 MiB: all bytes are hashed.
    - A larger file: its length and 256 blocks of 1 MiB are hashed, evenly spread, with the first and the last. This
      takes less than a second. Another recording, cut or encoding changes the digest; an edit of single bytes between
      the blocks does not.
    - A folder: names and contents of its pictures. Above 4,096 pictures or 256 MiB: names, lengths and times of change
      of all pictures, and the contents of 256.
    - An address: itself with the length, date and tag that its server gives.

    Args:
        source: A video, a folder of frames, or an address.
        allow_network: Whether http(s) addresses may be opened.
        allow_playlists: Whether a playlist may be opened; it has no digest.
        ask_server: Whether the server of an address is asked; otherwise an address has no digest.

    Raises:
        VideoError: the source cannot be opened.
    """
    resolved = resolve_source(source, allow_network=allow_network, allow_playlists=allow_playlists)
    if resolved.is_playlist or resolved.kind is SourceKind.STREAM:
        return SourceState.of(resolved)
    digest = hashlib.sha256()
    stamp: str | tuple[int, ...] | None
    try:
        if resolved.kind is SourceKind.URL:
            stamp = _address_stamp(resolved) if ask_server else None
            if stamp is None:
                return SourceState(resolved, None)
            digest.update(f"{parse_address(resolved.opened).request_url}\n{stamp}".encode())
        elif resolved.kind is SourceKind.FOLDER:
            pictures = _pictures(Path(resolved.location))
            stamp = _folder_stamp(pictures)
            _hash_folder(pictures, digest)
        else:
            stamp = _file_stamp(resolved)
            _hash_file(Path(resolved.location), digest)
    except OSError as error:
        reason = error.strerror or error
        raise VideoError(
            f"{resolved.location} cannot be read: {reason}: check that it is there and readable"
        ) from error
    return SourceState(resolved, stamp, f"sha256:{digest.hexdigest()}")


def source_digest(source: str | os.PathLike[str], *, allow_network: bool = False) -> str | None:
    """Digest of a source's content, see `source_state`; None if it has none.

    Raises:
        VideoError: the source cannot be opened.
    """
    return source_state(source, allow_network=allow_network).digest


def _address_stamp(source: Source) -> str | None:
    return content_validators(parse_address(source.opened))


def _file_stamp(source: Source) -> tuple[int, ...] | None:
    """Device, inode, length and time of change of a file; None for other sources, or if it is gone."""
    if source.kind not in (SourceKind.FILE, SourceKind.DRAWN):
        return None
    try:
        status = Path(source.location).stat()
    except FileNotFoundError:
        return None
    return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)


def _pictures(folder: Path) -> list[tuple[Path, os.stat_result]]:
    return [(path, path.stat()) for path in frame_files(folder)]


def _folder_stamp(pictures: list[tuple[Path, os.stat_result]]) -> str:
    digest = hashlib.sha256()
    for path, status in pictures:
        numbers = f"{status.st_dev} {status.st_ino} {status.st_size} {status.st_mtime_ns}"
        digest.update(os.fsencode(path.name) + b"\n" + numbers.encode() + b"\n")
    return digest.hexdigest()


def _hash_folder(pictures: list[tuple[Path, os.stat_result]], digest: hashlib._Hash) -> None:
    num_bytes = sum(status.st_size for _, status in pictures)
    is_large = len(pictures) > DIGEST_PICTURES or num_bytes > DIGEST_BLOCKS * DIGEST_BLOCK_BYTES
    stride = max(1, len(pictures) // DIGEST_BLOCKS) if is_large else 1
    for i, (path, status) in enumerate(pictures):
        digest.update(os.fsencode(path.name) + f"\n{status.st_size}\n".encode())
        if is_large:
            digest.update(f"{status.st_mtime_ns}\n".encode())
        if i % stride == 0:
            with path.open("rb") as file:
                digest.update(file.read(DIGEST_BLOCK_BYTES) if is_large else file.read())


def _hash_file(path: Path, digest: hashlib._Hash) -> None:
    with path.open("rb") as file:
        num_bytes = os.fstat(file.fileno()).st_size
        digest.update(f"{num_bytes}\n".encode())
        if num_bytes <= DIGEST_BLOCKS * DIGEST_BLOCK_BYTES:
            while block := file.read(DIGEST_BLOCK_BYTES):
                digest.update(block)
            return
        for i in range(DIGEST_BLOCKS):
            file.seek((num_bytes - DIGEST_BLOCK_BYTES) * i // (DIGEST_BLOCKS - 1))
            digest.update(file.read(DIGEST_BLOCK_BYTES))
