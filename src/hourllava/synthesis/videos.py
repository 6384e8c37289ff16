"""The videos of a run: where they lie, what records call them, and under which terms they may be used."""

import fnmatch
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from hourllava.data.records.media import VIDEO_SUFFIXES
from hourllava.errors import ConfigError, DataError
from hourllava.openers import opener_of


class Terms(BaseModel):
    """What is known about where videos come from: a line of the file of sources.

    Attributes:
        video: the video's path as records have it, or a pattern such as `lectures/*`; the last line that fits counts.
        url: where it was found.
        licence: its terms, such as "CC-BY-4.0".
        removed: whether it must not be used any more.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    video: str
    url: str | None = None
    licence: str | None = None
    removed: bool = False


@dataclass(frozen=True)
class Video:
    """A video of a run.

    Attributes:
        path: of the file.
        name: below the folder of videos, as records have it: "lectures/a.mp4".
        data_source: the first folder of the name, or the folder of videos itself.
        terms: of its use.
    """

    path: Path
    name: str
    data_source: str
    terms: Terms

    @property
    def id(self) -> str:
        """The name with its source in front, which is unique."""
        return self.name if self.name.startswith(f"{self.data_source}/") else f"{self.data_source}/{self.name}"


def find_videos(sources: Sequence[Path], terms: Sequence[Terms] = (), part: tuple[int, int] = (0, 1)) -> list[Video]:
    """The videos of files and folders, sorted by name; those that were removed are left out.

    Args:
        sources: video files, and folders that are searched.
        terms: of their use.
        part: (k, N): every N-th video, from video k on.

    Raises:
        DataError: there is no video, or two have the same name.
    """
    found: dict[str, Video] = {}
    for source in sources:
        paths = sorted(path for path in source.rglob("*") if is_video(path)) if source.is_dir() else [source]
        if not paths:
            raise DataError(f"{source} holds no video; videos end in {' '.join(sorted(VIDEO_SUFFIXES))} or .world.json")
        for path in paths:
            name = path.name if path == source else path.relative_to(source).as_posix()
            folder = source.absolute().parent.name if path == source else source.absolute().name
            data_source = name.split("/")[0] if "/" in name else folder or "videos"
            video = Video(path, name, data_source, _terms(name, terms))
            if found.setdefault(video.id, video).path.absolute() != path.absolute():
                raise DataError(f"{found[video.id].path} and {path} would both be {video.id}; rename one")
    videos = [found[name] for name in sorted(found) if not found[name].terms.removed]
    return videos[part[0] :: part[1]]


def is_video(path: Path) -> bool:
    """Whether a file is a video by its name."""
    return path.suffix.lower() in VIDEO_SUFFIXES or opener_of(path.name) is not None


def load_terms(path: Path | None) -> list[Terms]:
    """The lines of a file of sources (JSON lines).

    Raises:
        ConfigError: it cannot be read, or a line has another form.
    """
    if path is None:
        return []
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error
    terms = []
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                terms.append(Terms.model_validate(json.loads(line)))
            except (ValueError, ValidationError) as error:
                reason = error.errors()[0]["msg"] if isinstance(error, ValidationError) else error
                raise ConfigError(
                    f'{path}, line {number}: {reason}; a line is {{"video": ..., "url": ..., "licence": ...}}'
                ) from error
    return terms


def _terms(name: str, terms: Iterable[Terms]) -> Terms:
    found = Terms(video=name)
    for line in terms:
        if line.video == name or fnmatch.fnmatchcase(name, line.video):
            found = line
    return found
