"""The folder of a downloaded benchmark: finds annotations, videos, subtitles, and archives that are still packed.

Downloads differ in their folders (a hub's folder, a harness's cache, unpacked here or there), but not in the names of
the files. So the whole folder is listed once, and files are found by name.
"""

import hashlib
import os
import re
import shlex
import zipfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from hourllava.data.records.media import VIDEO_SUFFIXES
from hourllava.data.records.reading import iterate_entries
from hourllava.errors import ConfigError, DataError
from hourllava.evaluation.benchmarks.questions import Problems

REFERENCE_SUFFIX = ".world.json"  # a video of MarathonWorld
SUBTITLE_SUFFIXES = (".srt", ".vtt", ".json")
MIN_VIDEO_BYTES = 512  # a Git LFS pointer has about 130
_REVISION_DIGITS = 12

# Of a series of archives, the number; of an archive in pieces, all behind the name of the whole.
_PIECE = re.compile(r"(?P<whole>.+\.(?:zip|tar|tar\.gz|tgz))\.(?:part\.?\w+|\d{3})$", re.IGNORECASE)
_WHOLE = re.compile(r".+\.(?:zip|tar|tar\.(?:gz|bz2|xz|zst)|tgz)$", re.IGNORECASE)
_NUMBER = re.compile(r"\d+(?=\.\w+$)")


class Archive(NamedTuple):
    """Archives that one command unpacks.

    Attributes:
        names: paths below the data folder.
        command: for a shell; files that are there already stay.
        is_packed: whether some of its files are not in the folder; None if that cannot be told in a moment.
    """

    names: tuple[str, ...]
    command: str
    is_packed: bool | None


class DataFolder:
    """The files below a benchmark's data folder.

    Args:
        root: the folder.

    Attributes:
        root: as given.
        stubs: paths of files named as videos that are too small to be one, such as Git LFS pointers.

    Raises:
        ConfigError: it is no folder.
    """

    def __init__(self, root: Path) -> None:
        if not root.is_dir():
            raise ConfigError(f"{root} is no folder; give the folder of the benchmark's downloaded files")
        self.root = root
        self._files = sorted(_listed(root))
        self.stubs: list[str] = []
        self._by_name: dict[str, list[str]] = defaultdict(list)
        self._videos: dict[str, list[str]] = defaultdict(list)
        for path in self._files:
            name = PurePosixPath(path).name
            self._by_name[name].append(path)
            if (stem := _video_stem(name)) is not None:
                if not name.endswith(REFERENCE_SUFFIX) and _num_bytes(root / path) < MIN_VIDEO_BYTES:
                    self.stubs.append(path)
                else:
                    self._videos[stem].append(path)

    def find(self, *patterns: str) -> list[str]:
        """Paths of the files that match any pattern such as `questions/*.json`, at any depth."""
        return [path for path in self._files if any(_matches(path, pattern) for pattern in patterns)]

    def video(self, name: str, problems: Problems | None = None) -> str | None:
        """The path of a video; None if it is not there.

        Args:
            name: a path or file name, with or without suffix. Another suffix than the published one will do.
            problems: gets a note if several files have the name.
        """
        wanted = PurePosixPath(name)
        found = self._videos.get(_video_stem(wanted.name) or wanted.name, [])
        # A folder in the name decides: MLVU has a folder per task.
        nearest = [path for path in found if _is_below(path, wanted.parent)] or found
        if len(nearest) > 1 and problems is not None:
            problems.add("several files have a video's name; the first counts", ", ".join(nearest[:2]))
        return nearest[0] if nearest else None

    def subtitles(self, name: str) -> str | None:
        """The path of a subtitle file, by its file name or the video's name; None if it is not there."""
        wanted = PurePosixPath(name).name
        names = [wanted, *(wanted + suffix for suffix in SUBTITLE_SUFFIXES[:2])]
        return next(
            (self._by_name[one][0] for one in names if one.endswith(SUBTITLE_SUFFIXES) and one in self._by_name), None
        )

    def named(self, name: str) -> str | None:
        """The path of the first file of this name; None if there is none."""
        paths = self._by_name.get(name)
        return paths[0] if paths else None

    def stems_of_videos(self) -> Iterator[tuple[str, str]]:
        """(name without suffix, path) of all videos."""
        for stem, paths in self._videos.items():
            yield stem, paths[0]

    def archives(self) -> list[Archive]:
        """The archives in the folder, with the command that unpacks each series."""
        series: dict[tuple[str, bool], list[str]] = defaultdict(list)
        for path in self._files:
            if match := _PIECE.match(path):
                series[match["whole"], True].append(path)
            elif _WHOLE.match(path):
                series[_NUMBER.sub("*", path), False].append(path)
        return [self._archive(name, is_pieces, tuple(paths)) for (name, is_pieces), paths in series.items()]

    def _archive(self, name: str, is_pieces: bool, paths: tuple[str, ...]) -> Archive:
        root = shlex.quote(str(self.root))
        whole = self.root / name
        if is_pieces:
            pieces = f"{shlex.quote(str(self.root / paths[0].rpartition('.')[0]))}.*"
            if name.lower().endswith(".zip"):
                target = shlex.quote(str(whole))
                return Archive(paths, f"cat {pieces} > {target} && unzip -n {target} -d {root}", None)
            zipped = "z" if name.lower().endswith(("gz", "tgz")) else ""
            return Archive(paths, f"cat {pieces} | tar -x{zipped} -C {root}", None)
        is_zip = name.lower().endswith(".zip")
        packed = tuple(path for path in paths if not self._is_unpacked(path)) if is_zip else ()
        paths = packed or paths
        unpack = f'unzip -n "$f" -d {root}' if is_zip else f'tar -xf "$f" -C {root}'
        if len(paths) == 1:
            command = unpack.replace('"$f"', shlex.quote(str(self.root / paths[0])))
        else:
            before, after = (shlex.quote(part) if part else "" for part in str(whole).split("*", 1))
            command = f"for f in {before}*{after}; do {unpack}; done"
        return Archive(paths, command, bool(packed) if is_zip else None)

    def _is_unpacked(self, path: str) -> bool:
        try:
            with zipfile.ZipFile(self.root / path) as archive:
                names = [PurePosixPath(name).name for name in archive.namelist() if not name.endswith("/")]
        except (OSError, zipfile.BadZipFile):
            return False
        return all(name in self._by_name for name in names)

    def revision(self, paths: Sequence[str]) -> str:
        """A digest of the annotation files, by which two tables can be told apart."""
        digest = hashlib.sha256()
        for path in paths:
            digest.update(hashlib.sha256((self.root / path).read_bytes()).digest())
        return digest.hexdigest()[:_REVISION_DIGITS]

    def rows(self, path: str, problems: Problems) -> Iterator[dict[str, Any]]:
        """The rows of a .json (a list), .jsonl or .parquet file; a row that cannot be read is a problem.

        Raises:
            DataError: the file cannot be read, or was cut short.
            ConfigError: it is a parquet file, and pyarrow is not installed.
        """
        for entry in iterate_entries(self.root / path):
            if entry.is_of_file:
                raise DataError(f"{path}: {entry.place}: {entry.fault}; download the file again")
            if entry.fault is not None or not isinstance(entry.value, dict):
                problems.add("a row cannot be read", f"{path}, {entry.place}: {entry.fault or 'no object'}")
            else:
                yield entry.value


def _listed(root: Path) -> Iterator[str]:
    """Paths of all files below a folder; hidden folders (`.cache`, `.git`) are left out, links are followed once."""
    seen: set[str] = set()
    for folder, folders, files in os.walk(root, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in files:
            if not name.startswith("."):
                yield (Path(folder) / name).relative_to(root).as_posix()


def _video_stem(name: str) -> str | None:
    """A file's name without the suffix of a video; None if it has none."""
    if name.endswith(REFERENCE_SUFFIX):
        return name.removesuffix(REFERENCE_SUFFIX)
    path = PurePosixPath(name)
    return path.stem if path.suffix.lower() in VIDEO_SUFFIXES else None


def _num_bytes(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:  # a link that leads nowhere
        return 0


def _is_below(path: str, folder: PurePosixPath) -> bool:
    return str(folder) == "." or f"/{path}".rpartition("/")[0].endswith(f"/{folder}")


def _matches(path: str, pattern: str) -> bool:
    return fnmatchcase(f"/{path}", f"*/{pattern}")
