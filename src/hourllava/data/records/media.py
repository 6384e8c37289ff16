"""Finds the media files of records, and the features of videos."""

import errno
from pathlib import Path, PurePosixPath

from hourllava.errors import DataError

VIDEO_SUFFIXES = frozenset(
    {".3gp", ".avi", ".flv", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts", ".ogv", ".ts", ".vob"}
    | {".webm", ".wmv"}
)
_NOT_THERE = (errno.ENOENT, errno.ENOTDIR)


def leads_out(name: str) -> bool:
    """Whether a relative path leads out of its folder."""
    return name.startswith("/") or ".." in name.split("/")


def is_file_name(name: str) -> bool:
    """Whether a file may have this path: any characters except NUL and half surrogate pairs."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return "\0" not in name and any(part not in ("", ".") for part in name.split("/"))


def media_path(name: str, root: Path) -> Path:
    """The file that a path names, below the media folder.

    Raises:
        DataError: the path leads out of the folder, or is not a file name.
    """
    if leads_out(name):
        raise DataError(f"{name!r:.200} leads out of the media folder; paths must be relative to it")
    if not is_file_name(name):
        raise DataError(f"{name!r:.200} is no file name")
    return root / name


def find_media(name: str, root: Path, data_source: object = None) -> str | None:
    """The path below `root` of the file or folder that a record names; None if it does not exist.

    Published records leave the source out of the path. So `root/data_source/name` is tried first, then `root/name`; for
    a name that begins with its source, the other way round.

    Args:
        name: the record's path.
        root: the folder of media, or of features.
        data_source: of the record; ignored if it is not a path below `root`.

    Raises:
        DataError: the name leads out of the folder, is not a file name, is too long, or its folder cannot be read.
    """
    media_path(name, root)
    names = [name]
    if isinstance(data_source, str) and data_source:
        joined = f"{data_source}/{name}"
        try:
            media_path(joined, root)
        except DataError:
            pass  # the source's name is not a path
        else:
            names.insert(1 if name.startswith(f"{data_source}/") else 0, joined)
    refused: OSError | None = None
    for candidate in names:
        try:
            (root / candidate).stat()
        except OSError as error:
            if error.errno not in _NOT_THERE:
                refused = error
        else:
            return str(PurePosixPath(candidate))
    if refused is not None:
        raise DataError(f"{name!r:.200} cannot be looked up: {refused.strerror}") from refused
    return None


def feature_name(video: str, suffix: str) -> str:
    """`s/v.mp4` -> `s/v.safetensors`: the path of a video's features in the folder of features."""
    path = PurePosixPath(video)
    stem = path.stem if path.suffix.lower() in VIDEO_SUFFIXES else path.name
    return str(path.with_name(stem + suffix))
