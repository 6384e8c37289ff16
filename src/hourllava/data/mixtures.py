"""The published training mixtures: source lists with their sampling, cut into parts; stages as lists of parts.

A source list is files of records, each with how much of it is taken (`all`, `first:10%`, `end:10%`, `random:10%`). The
records of all its files in order, numbered through, are cut into 10 parts by number modulo 10.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.resources import files
from typing import Literal

import numpy as np

from hourllava.errors import ConfigError

Kind = Literal["video", "image", "images"]
NUM_PARTS = 10
_SAMPLING = re.compile(r"(first|end|random):(\d+(?:\.\d+)?)%")


@dataclass(frozen=True)
class Sampling:
    """How much of a file is taken, and from where."""

    strategy: Literal["all", "first", "end", "random"]
    percent: float = 100.0

    @classmethod
    def parse(cls, text: str) -> "Sampling":
        """Read `all`, `first:N%`, `end:N%` or `random:N%` with N over 0 and up to 100.

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
        """Numbers of the records taken, int64, ascending; a share is rounded up to whole records."""
        # Rounded first: 7 % of 100 is 7.000000000000001 in floating point.
        count = int(np.ceil(round(num_records * self.percent / 100, 6)))
        if self.strategy == "random":
            return np.sort(np.random.default_rng(seed).choice(num_records, count, replace=False)).astype(np.int64)
        begin = num_records - count if self.strategy == "end" else 0
        return np.arange(begin, begin + count, dtype=np.int64)


@dataclass(frozen=True)
class SourceList:
    """A named list of record files as the release mixes it."""

    name: str  # also of the folders of its parts: NAME_part0 ...
    kind: Kind  # which columns its shards have
    num_workers: int  # sub-folders of a part, as published
    mixture: str  # its key in mixtures.json
    only_images: bool = False  # records without an image are left out

    @cached_property
    def files(self) -> dict[str, Sampling]:
        """Path of a record file, relative to the data folder -> how much of it is taken."""
        return {path: Sampling.parse(text) for path, text in _MIXTURES[self.mixture].items()}


_MIXTURES: dict[str, dict[str, str]] = json.loads(
    files("hourllava.data").joinpath("mixtures.json").read_text(encoding="utf-8")
)
SOURCE_LISTS = {
    source.name: source
    for source in (
        SourceList("llava_ov_si_onlyimg", "image", 128, "llava_ov_si", only_images=True),
        SourceList("llavavideo_text", "image", 16, "llavavideo_text"),
        SourceList("llavavideo_si", "image", 32, "llavavideo_si"),
        SourceList("llavavideo_mi", "images", 64, "llavavideo_mi"),
        SourceList("llavavideo_video", "video", 64, "llavavideo_video"),
        SourceList("videomarathon_video", "video", 64, "videomarathon"),
    )
}


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


@dataclass(frozen=True)
class Stream:
    """Parts from which the samples of one batch are drawn together; a batch comes from one stream only."""

    name: str
    parts: tuple[Part, ...]


def _parts(source: str, numbers: Sequence[int]) -> tuple[Part, ...]:
    return tuple(Part(source, number) for number in numbers)


def _stage_3_stream(name: str, videos: tuple[Part, ...], numbers: range, half: Literal["first", "second"]) -> Stream:
    others = [
        part
        for source in ("llavavideo_text", "llavavideo_si", "llavavideo_mi")
        for part in (*_parts(source, numbers), Part(source, 5, half))
    ]
    return Stream(name, (*videos, *others))


STAGES: dict[str, tuple[Stream, ...]] = {
    "s1": (Stream("0", _parts("llava_ov_si_onlyimg", range(10))),),
    "s2": (
        Stream(
            "0",
            (
                Part("llavavideo_text", 0),
                Part("llavavideo_si", 0),
                Part("llavavideo_mi", 0),
                *_parts("llavavideo_video", range(2)),
            ),
        ),
    ),
    "s3": (
        _stage_3_stream("0", _parts("llavavideo_video", range(2, 10)), range(1, 5), "first"),
        _stage_3_stream("1", _parts("videomarathon_video", range(10)), range(6, 10), "second"),
    ),
}


def find_source_list(name: str) -> SourceList:
    """The source list of this name.

    Raises:
        ConfigError: there is none.
    """
    if name not in SOURCE_LISTS:
        raise ConfigError(f"no source list is called {name!r}; allowed: {', '.join(SOURCE_LISTS)}")
    return SOURCE_LISTS[name]


def parse_part(text: str) -> tuple[int, int]:
    """Read `k/N`: part k, from 0, of N.

    Raises:
        ConfigError: it is not that.
    """
    match = re.fullmatch(r"(\d+)/(\d+)", text)
    if not match or not int(match[1]) < int(match[2]):
        raise ConfigError(f"part {text!r}; allowed: k/N with k from 0 to N-1, as 0/{NUM_PARTS}")
    return int(match[1]), int(match[2])


def stage_streams(stage: str) -> tuple[Stream, ...]:
    """The streams of a stage: one, but two in stage 3.

    Raises:
        ConfigError: there is no such stage.
    """
    if stage not in STAGES:
        raise ConfigError(f"stage {stage!r}; allowed: {', '.join(STAGES)}")
    return STAGES[stage]
