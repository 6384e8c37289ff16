"""Where the media files of records lie, and the features of videos."""

from pathlib import Path, PurePosixPath

from hourllava.errors import DataError

VIDEO_SUFFIXES = frozenset(
    {".3gp", ".avi", ".flv", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts", ".ogv", ".ts", ".vob"}
    | {".webm", ".wmv"}
)


def media_path(name: str, root: Path) -> Path:
    """The file that a record's path names, below the media folder.

    Raises:
        DataError: the path leads out of the folder, or is no file name.
    """
    if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
        raise DataError(f"{name!r} leads out of the media folder; paths must be relative to it")
    if not name.isprintable():  # what no file system takes: NUL, half a surrogate pair
        raise DataError(f"{name!r} is no file name")
    return root / name


def feature_name(video: str, suffix: str) -> str:
    """`s/v.mp4` -> `s/v.safetensors`: the path of a video's features in the folder of features."""
    path = PurePosixPath(video)
    stem = path.stem if path.suffix.lower() in VIDEO_SUFFIXES else path.name
    return str(path.with_name(stem + suffix))
