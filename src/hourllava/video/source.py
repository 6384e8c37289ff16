"""What may be opened: files, folders of numbered frames, and addresses where the caller allows the network.

A playlist inside a file can name other files and addresses. FFmpeg's protocol whitelist keeps a local file from
reaching the network, and an address from reaching local files.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
import urllib.error
import urllib.request
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from urllib.parse import unquote, urlsplit

from hourllava.errors import VideoError

REFERENCE_SUFFIX = ".world.json"
IMAGE_SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"})
LOCAL_PROTOCOLS = "file,crypto,data"
NETWORK_PROTOCOLS = "http,https,tcp,tls,crypto,data"
DIGEST_BLOCK_BYTES = 1 << 20
DIGEST_BLOCKS = 256
URL_TIMEOUT_SECONDS = 30


class SourceKind(StrEnum):
    """How a source is read."""

    FILE = "file"
    STREAM = "stream"  # a named pipe or device: cannot be read twice
    FOLDER = "folder"
    REFERENCE = "reference"  # to a MarathonWorld video
    URL = "url"


@dataclass(frozen=True)
class Source:
    """A checked source: `location` is an absolute path or an http(s) address."""

    kind: SourceKind
    location: str

    @property
    def ffmpeg_url(self) -> str:
        """Name for FFmpeg; a path is marked as one, or "a:b.mp4" would be taken for protocol a."""
        return self.location if self.kind is SourceKind.URL else f"file:{self.location}"

    @property
    def protocols(self) -> str:
        """FFmpeg's protocol whitelist for this source and everything nested in it."""
        return NETWORK_PROTOCOLS if self.kind is SourceKind.URL else LOCAL_PROTOCOLS


def resolve_source(source: str | os.PathLike[str], *, allow_network: bool = False) -> Source:
    """Check that a source may be opened and exists.

    Raises:
        VideoError: no such file, a folder without pictures, an address while the network is not allowed.
    """
    text = os.fspath(source)
    if scheme := re.match(r"([A-Za-z][A-Za-z0-9+.-]*)://", text):
        name = scheme[1].lower()
        if name in ("http", "https"):
            if not allow_network:
                raise VideoError(f"{text} is on the network, which is off: pass allow_network=True, or download it")
            return Source(SourceKind.URL, text)
        if name != "file":
            raise VideoError(f"{text}: {name}:// is not supported: give a path, file://, http:// or https://")
        parts = urlsplit(text)
        if parts.netloc not in ("", "localhost"):
            raise VideoError(f"{text} names the host {parts.netloc}: file:// addresses must be of this machine")
        text = unquote(parts.path)
    path = Path(text).absolute()
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError) as error:  # ValueError: a null byte in the name
        reason = "no such file" if isinstance(error, FileNotFoundError) else str(error)
        raise VideoError(f"{text}: {reason}: give the path of a video file or of a folder of frames") from error
    if stat.S_ISDIR(mode):
        if not frame_files(path):
            allowed = " ".join(sorted(IMAGE_SUFFIXES))
            raise VideoError(f"{text} is a folder without pictures: give a video file, or frames named *{allowed}")
        return Source(SourceKind.FOLDER, str(path))
    if not stat.S_ISREG(mode):
        return Source(SourceKind.STREAM, str(path))
    if not os.access(path, os.R_OK):
        raise VideoError(f"{text} may not be read by this user: change its permissions")
    if path.stat().st_size == 0:
        raise VideoError(f"{text} is empty (0 bytes): copy or record it again")
    return Source(SourceKind.REFERENCE if path.name.endswith(REFERENCE_SUFFIX) else SourceKind.FILE, str(path))


def frame_files(folder: Path) -> list[Path]:
    """The pictures of a folder, in natural order of their names (frame2 before frame10)."""
    pictures = [path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file()]
    return sorted(pictures, key=lambda path: [_natural(part) for part in re.split(r"(\d+)", path.name)])


def _natural(part: str) -> tuple[int, str]:
    return (int(part), "") if part.isdecimal() else (-1, part)


def source_digest(source: str | os.PathLike[str], *, allow_network: bool = False) -> str:
    """Identity of a source's content: "sha256:" and 64 hexadecimal digits.

    A file up to 256 MiB is hashed whole. Of a larger one its length and 256 blocks of 1 MiB are hashed, evenly spread,
    the first and last included, so that the cost stays below a second: any other recording, cut, re-encoding or
    appended picture changes it; an edit of single bytes between the blocks does not. A folder is hashed by the names
    and the contents of its frames; an address by itself with the length, date and tag the server gives for it.

    Raises:
        VideoError: the source cannot be opened.
    """
    resolved = resolve_source(source, allow_network=allow_network)
    digest = hashlib.sha256()
    try:
        if resolved.kind is SourceKind.URL:
            request = urllib.request.Request(resolved.location, method="HEAD")
            with urllib.request.urlopen(request, timeout=URL_TIMEOUT_SECONDS) as response:
                headers = [response.headers.get(name, "") for name in ("Content-Length", "Last-Modified", "ETag")]
            digest.update("\n".join([resolved.location, *headers]).encode())
        elif resolved.kind is SourceKind.FOLDER:
            for path in frame_files(Path(resolved.location)):
                digest.update(f"{path.name}\n{path.stat().st_size}\n".encode())
                digest.update(path.read_bytes())
        elif resolved.kind in (SourceKind.FILE, SourceKind.REFERENCE):
            _hash_file(Path(resolved.location), digest)
        else:
            raise VideoError(f"{resolved.location} can be read once only, so it has no digest: save it to a file")
    except (OSError, urllib.error.URLError) as error:
        raise VideoError(f"{resolved.location} cannot be read: {error}: check that it is there and readable") from error
    return f"sha256:{digest.hexdigest()}"


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
