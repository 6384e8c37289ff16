"""Where the media files of records lie."""

from pathlib import Path, PurePosixPath

from hourllava.errors import DataError


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
