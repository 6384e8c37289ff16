"""The media folder of a server: the only folder of the machine whose videos clients may name."""

import os
from dataclasses import dataclass
from pathlib import Path

from hourllava.errors import VideoError

MAX_LISTED = 10_000
"""Files of the media folder that are listed, at most."""

VIDEO_SUFFIXES = frozenset(
    {
        *(".3gp", ".asf", ".avi", ".flv", ".gif", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts"),
        *(".mxf", ".ogv", ".ts", ".vob", ".webm", ".wmv"),
    }
)
SUBTITLE_SUFFIXES = frozenset({".srt", ".vtt"})


@dataclass(frozen=True)
class MediaFile:
    """A file below the media folder.

    Attributes:
        path: relative to the folder, with slashes.
        bytes: its size.
        modified_at: seconds since 1970.
        kind: `video` or `subtitles`, by its name.
    """

    path: str
    bytes: int
    modified_at: int
    kind: str


def media_file(root: Path | None, relative: str) -> Path:
    """The file of a path that a client gave.

    Args:
        root: the media folder; None: there is none.
        relative: to the folder.

    Returns:
        an absolute path without links. The file is below the folder when this is called.

    Raises:
        VideoError: there is no such file there, or its name is not that of a video or of subtitles. The message is the
            same for a file that is not there and for one that lies outside.
    """
    missing = VideoError(f"the media folder has no file {relative[:200]!r}; take a path from the list of its files")
    if root is None:
        raise VideoError("this server has no media folder; upload the video, or start it with --media-root")
    try:
        folder = root.resolve(strict=True)
        path = (folder / relative).resolve(strict=True)
    except (OSError, ValueError, RuntimeError) as error:  # no such file, a null byte, a circle of links
        raise missing from error
    if not path.is_relative_to(folder) or not path.is_file() or _kind(path.name) is None:
        raise missing
    return path


def list_media(root: Path | None) -> list[MediaFile]:
    """Videos and subtitles below the media folder, by path; at most `MAX_LISTED`. Hidden ones are left out."""
    if root is None:
        return []
    found: list[MediaFile] = []
    for folder, names, files in os.walk(root):
        names[:] = sorted(name for name in names if not name.startswith("."))
        for name in sorted(files):
            kind = _kind(name)
            if kind is None or name.startswith("."):
                continue
            relative = (Path(folder) / name).relative_to(root).as_posix()
            try:
                status = media_file(root, relative).stat()
            except (OSError, VideoError):  # a link to the outside, or removed meanwhile
                continue
            found.append(MediaFile(relative, status.st_size, int(status.st_mtime), kind))
            if len(found) == MAX_LISTED:
                return found
    return sorted(found, key=lambda file: file.path)


def _kind(name: str) -> str | None:
    suffix = Path(name).suffix.lower()
    return "video" if suffix in VIDEO_SUFFIXES else "subtitles" if suffix in SUBTITLE_SUFFIXES else None
