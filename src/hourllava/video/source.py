"""What may be opened: files, folders of numbered frames, pipes, and, if the caller allows the network, addresses.

A playlist names other files and addresses, so playlists are refused unless the caller allows them. Even then FFmpeg's
protocol whitelist keeps a local playlist from the network, and a playlist at an address from local files.
"""

from __future__ import annotations

import os
import re
import reprlib
import stat
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Self
from urllib.parse import unquote, urlsplit

from hourllava.errors import VideoError
from hourllava.openers import opener_of
from hourllava.video.address import hide_secrets, parse_address
from hourllava.video.formats import FORMATS, HEAD_BYTES, PLAYLIST_FORMATS, describe_playlist, playlist_name

IMAGE_SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"})
LOCAL_PROTOCOLS = "file,crypto,data"
NETWORK_PROTOCOLS = "http,https,tcp,tls,crypto,data"
SHOWN_LETTERS = 200  # of a name in a message, at most


class SourceKind(StrEnum):
    """How a source is read."""

    FILE = "file"
    STREAM = "stream"  # a named pipe, a descriptor or a device: cannot be read twice
    FOLDER = "folder"
    DRAWN = "drawn"  # has an opener in `hourllava.openers`
    URL = "url"


@dataclass(frozen=True)
class Source:
    """A checked source.

    Attributes:
        kind: How it is read.
        location: An absolute path, or an http(s) address without its secrets; shown in messages.
        opened: What FFmpeg opens, if not `location`: the whole address, or the path of a descriptor.
        is_playlist: Whether it may name other sources: the caller allows it, and a local file looks like a playlist.
        descriptor: The open descriptor of this process that a stream is read from.
        opener: `module:Class` that opens it; see `hourllava.openers`.
    """

    kind: SourceKind
    location: str
    opened: str = field(default="", repr=False)
    is_playlist: bool = False
    descriptor: int | None = None
    opener: str = ""

    @property
    def ffmpeg_url(self) -> str:
        """Name for FFmpeg. A path gets `file:` before it; otherwise "a:b.mp4" would be taken for protocol a."""
        return (self.opened or self.location) if self.kind is SourceKind.URL else f"file:{self.opened or self.location}"

    @property
    def protocols(self) -> str:
        """FFmpeg's protocol whitelist for this source and everything nested in it."""
        return NETWORK_PROTOCOLS if self.kind is SourceKind.URL else LOCAL_PROTOCOLS

    @property
    def formats(self) -> str:
        """FFmpeg's format whitelist for this source and everything nested in it."""
        return ",".join(FORMATS + PLAYLIST_FORMATS if self.is_playlist else FORMATS)

    def as_message(self) -> dict[str, Any]:
        """Plain data for the child process; `from_message` is its inverse."""
        return asdict(self)

    @classmethod
    def from_message(cls, message: dict[str, Any]) -> Self:
        """The source that `as_message` was called on."""
        return cls(**{**message, "kind": SourceKind(message["kind"])})


def shown_name(source: str | os.PathLike[str]) -> str:
    """A source as it may be shown, kept and logged: addresses without their secrets."""
    return hide_secrets(os.fsdecode(source))


def _short(text: str) -> str:
    """A name for a message; the middle of a long one is left out."""
    half = SHOWN_LETTERS // 2
    return text if len(text) <= SHOWN_LETTERS else f"{text[:half]}...{text[-half:]}"


def resolve_source(
    source: str | os.PathLike[str], *, allow_network: bool = False, allow_playlists: bool = False
) -> Source:
    """Check that a source exists and may be opened; `-` is standard input.

    Raises:
        VideoError: no such file, a folder without pictures, an address while the network is not allowed, a playlist
            while playlists are not.
    """
    try:
        text = os.fsdecode(source)
    except TypeError as error:
        raise VideoError(f"{reprlib.repr(source)} is no name of a video: give a path or an address as text") from error
    if not text.strip():
        raise VideoError("the name of the video is empty: give the path of a video file or of a folder of frames")
    shown = _short(shown_name(text))
    if scheme := re.match(r"([A-Za-z][A-Za-z0-9+.-]*)://", text):
        name = scheme[1].lower()
        if name in ("http", "https"):
            if not allow_network:
                raise VideoError(f"{shown} is on the network, which is off: pass allow_network=True, or download it")
            address = parse_address(text)
            return Source(SourceKind.URL, address.shown, address.full, is_playlist=allow_playlists)
        if name != "file":
            raise VideoError(f"{shown}: {name}:// is not supported: give a path, file://, http:// or https://")
        text = _path_of_file_address(text)
    if text == "-":
        text = "/dev/stdin"
    try:
        path = Path(text).absolute()
        descriptor = descriptor_of(str(path))
        status = path.stat() if descriptor is None else os.fstat(descriptor)
        if descriptor is not None:
            named = _name_of_descriptor(descriptor, status)
            if named is None:
                return _opened_stream(text, descriptor)
            path = named
        return _resolve_path(path, shown, status.st_mode, allow_playlists)
    except (OSError, ValueError) as error:  # ValueError: a null byte in the name
        reason = "no such file" if isinstance(error, FileNotFoundError) else getattr(error, "strerror", None) or error
        raise VideoError(f"{shown}: {reason}: give the path of a video file or of a folder of frames") from error


def _path_of_file_address(text: str) -> str:
    try:
        parts = urlsplit(text)
    except ValueError as error:
        raise VideoError(f"{_short(text)} is no valid address: give the path of a video file") from error
    if parts.netloc not in ("", "localhost"):
        raise VideoError(f"a file:// address names the host {parts.hostname!r}: it must be of this machine")
    return unquote(parts.path)


def _resolve_path(path: Path, shown: str, mode: int, allow_playlists: bool) -> Source:
    if stat.S_ISDIR(mode):
        if next(_pictures(path), None) is None:
            allowed = " ".join(sorted(IMAGE_SUFFIXES))
            raise VideoError(f"{shown} is a folder without pictures: give a video file, or frames named *{allowed}")
        return Source(SourceKind.FOLDER, str(path))
    if not stat.S_ISREG(mode):
        return Source(SourceKind.STREAM, str(path))
    if not os.access(path, os.R_OK):
        raise VideoError(f"{shown} may not be read by this user: change its permissions")
    if path.stat().st_size == 0:
        raise VideoError(f"{shown} is empty (0 bytes): copy or record it again")
    if opener := opener_of(path.name):
        return Source(SourceKind.DRAWN, str(path), opener=opener)
    with path.open("rb") as file:
        playlist = playlist_name(file.read(HEAD_BYTES))
    if playlist and not allow_playlists:
        raise VideoError(f"{shown} cannot be opened: {describe_playlist(playlist)}")
    return Source(SourceKind.FILE, str(path), is_playlist=playlist is not None)


def descriptor_of(path: str) -> int | None:
    """The open descriptor of this process that a path stands for, such as 0 for /dev/stdin; None for other paths.

    In a decoding process the same path would be another descriptor.
    """
    for _ in range(40):  # as many links as the kernel follows
        folder, name = os.path.split(path)
        folder = os.path.realpath(folder)
        is_own = folder == "/dev/fd" or re.fullmatch(rf"/proc/{os.getpid()}(/task/\d+)?/fd", folder)
        if is_own and re.fullmatch(r"[0-9]{1,9}", name):
            return int(name)
        try:
            path = os.path.join(folder, os.readlink(path))  # noqa: PTH115, PTH118 - a link may hold no valid path
        except OSError:
            return None
    return None


def _name_of_descriptor(descriptor: int, status: os.stat_result) -> Path | None:
    """The file or folder behind a descriptor; None for other descriptors, or if its name is gone."""
    if not (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)):
        return None
    try:
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        return path if os.path.samestat(path.stat(), status) else None
    except OSError:
        return None


def _opened_stream(text: str, descriptor: int) -> Source:
    if os.isatty(descriptor):
        raise VideoError(f"{text} is a terminal: give the path of a video, or send one with < or |")
    return Source(SourceKind.STREAM, text, f"/dev/fd/{descriptor}", descriptor=descriptor)


def frame_files(folder: Path) -> list[Path]:
    """The pictures of a folder in natural order of their names: frame2 before frame10."""
    names = sorted((entry.name for entry in _pictures(folder)), key=_natural_key)
    return [folder / name for name in names]


def _pictures(folder: Path) -> Iterator[os.DirEntry[str]]:
    """The pictures of a folder in no order, with hidden ones."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if os.path.splitext(entry.name)[1].lower() in IMAGE_SUFFIXES and entry.is_file():  # noqa: PTH122 - fast
                yield entry


def _natural_key(name: str) -> list[tuple[int, str]]:
    parts = re.split(r"(\d+)", name)
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts]
