"""Training mixtures: source lists with their sampling, cut into parts; stages as lists of parts.

A source list names files of records, and how much of each is taken (`all`, `first:10%`, `end:10%`, `random:10%`). The
taken records of all files are numbered in order, and number modulo 10 gives a record's part. The published mixture is
`published_mixture.json`; your own mixture is a file of the same form:

    {"parts": 10,
     "sources": {"talks": {"kind": "video", "media": "talks/videos", "features": "talks/features",
                           "questions_per_record": 5, "files": {"talks/questions.parquet": "all"}},
                 "pictures": {"kind": "image", "media": "pictures", "files": {"pictures/records.json": "first:10%"}}},
     "stages": {"s3": {"videos": "features", "streams": {"0": ["talks_part0..9", "pictures_part5:first"]}}}}

Paths are relative to the data folder; paths in records are relative to `media`.
"""

import json
import re
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from hourllava.errors import ConfigError

Kind = Literal["video", "image", "images"]
_SAMPLING = re.compile(r"(first|end|random):(\d+(?:\.\d+)?)%")
_PARTS = re.compile(r"(.+)_part(\d+)(?:\.\.(\d+))?(?::(first|second))?")


@dataclass(frozen=True)
class Sampling:
    """The share of a file's records that is taken, and from which end."""

    strategy: Literal["all", "first", "end", "random"]
    percent: float = 100.0

    @classmethod
    def parse(cls, text: str) -> "Sampling":
        """Parse `all`, `first:N%`, `end:N%` or `random:N%` with N above 0 and up to 100.

        Raises:
            ConfigError: it is none of these.
        """
        if text == "all":
            return cls("all")
        match = _SAMPLING.fullmatch(text)
        if not match or not 0 < float(match[2]) <= 100:
            raise ConfigError(f"sampling {text!r}; allowed: all, first:N%, end:N%, random:N%, with N up to 100")
        return cls(match[1], float(match[2]))  # type: ignore[arg-type]

    def choose(self, num_records: int, seed: int = 0) -> np.ndarray:
        """Numbers of the chosen records, int64, ascending; a share is rounded up to whole records."""
        # Rounded first: 7 % of 100 is 7.000000000000001 in floating point.
        count = int(np.ceil(round(num_records * self.percent / 100, 6)))
        if self.strategy == "random":
            return np.sort(np.random.default_rng(seed).choice(num_records, count, replace=False)).astype(np.int64)
        begin = num_records - count if self.strategy == "end" else 0
        return np.arange(begin, begin + count, dtype=np.int64)


class _Typed(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class SourceList(_Typed):
    """Files of records that enter a mixture together, with their sampling."""

    kind: Kind  # decides the columns of its shards
    media: str  # folder of its videos or images, below the data folder
    features: str | None = None  # of videos: the folder of their features
    workers: int = Field(default=1, ge=1)  # sub-folders of a part
    only_images: bool = False  # records without an image are left out
    questions_per_record: int | None = Field(default=None, ge=1)  # groups files with one question per record
    files: dict[str, Annotated[Sampling, BeforeValidator(lambda text: Sampling.parse(str(text)))]]


@dataclass(frozen=True)
class Part:
    """One part of a source list, or half of it."""

    source: str
    number: int
    half: Literal["first", "second"] | None = None

    @property
    def folder(self) -> str:
        """The name of its folder of shards."""
        return f"{self.source}_part{self.number}"


def _parse_parts(texts: Any) -> tuple[Part, ...]:
    if not isinstance(texts, list):
        raise ValueError("a stream is a list of parts")  # pydantic turns it into its own
    parts: list[Part] = []
    for text in texts:
        match = _PARTS.fullmatch(str(text))
        if match is None:
            raise ValueError(f"{text!r}; allowed: NAME_part3, NAME_part2..9, NAME_part5:first, NAME_part5:second")
        numbers = range(int(match[2]), int(match[3] or match[2]) + 1)
        parts += [Part(match[1], number, match[4]) for number in numbers]  # type: ignore[arg-type]
    return tuple(parts)


class Stage(_Typed):
    """The training data of a stage."""

    videos: Literal["frames", "features"] = "frames"  # features only if the vision tower is not trained
    streams: dict[
        str, Annotated[tuple[Part, ...], BeforeValidator(_parse_parts)]
    ]  # each step takes one of them, or a mixture

    @property
    def parts(self) -> list[Part]:
        """Every part that the stage needs, each once; for half a part the whole one."""
        return sorted(
            {Part(part.source, part.number) for parts in self.streams.values() for part in parts},
            key=lambda part: (part.source, part.number),
        )


class Mixture(_Typed):
    """Source lists, and stages made of their parts."""

    parts: int = Field(default=10, ge=1)  # of every source list
    sources: dict[str, SourceList]
    stages: dict[str, Stage]

    @model_validator(mode="after")
    def _check(self) -> "Mixture":
        for name, stage in self.stages.items():
            for part in stage.parts:
                if part.source not in self.sources:
                    raise ValueError(f"stage {name} names {part.folder}, but no source is called {part.source!r}")
                if part.number >= self.parts:
                    raise ValueError(f"stage {name} names {part.folder}, but parts are numbered 0 to {self.parts - 1}")
                source = self.sources[part.source]
                if stage.videos == "features" and source.kind == "video" and source.features is None:
                    raise ValueError(f"stage {name} trains from features, but {part.source} names no folder of them")
        return self

    def source(self, name: str) -> SourceList:
        """The source list of this name.

        Raises:
            ConfigError: there is none.
        """
        if name not in self.sources:
            raise ConfigError(f"no source list is called {name!r}; allowed: {', '.join(self.sources)}")
        return self.sources[name]

    def stage(self, name: str) -> Stage:
        """The stage of this name.

        Raises:
            ConfigError: there is none.
        """
        if name not in self.stages:
            raise ConfigError(f"stage {name!r}; allowed: {', '.join(self.stages)}")
        return self.stages[name]


@cache
def published_mixture() -> Mixture:
    """The mixture of the release."""
    text = files("hourllava.data.prepare").joinpath("published_mixture.json").read_text(encoding="utf-8")
    return Mixture.model_validate(json.loads(text))


def read_mixture(path: Path | None) -> Mixture:
    """The mixture of a file; None gives the published one.

    Raises:
        ConfigError: it cannot be read, or is no mixture.
    """
    if path is None:
        return published_mixture()
    try:
        return Mixture.model_validate(json.loads(path.read_bytes()))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        message = first["msg"].removeprefix("Value error, ")
        raise ConfigError(f"{path} is no mixture: {where}{': ' if where else ''}{message}") from error
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} cannot be read as a mixture: {error}") from error
