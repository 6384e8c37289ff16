"""What a benchmark is made of. Each has a file of its own; `catalogue` holds them all."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from hourllava.errors import ConfigError
from hourllava.evaluation.benchmarks.folder import DataFolder
from hourllava.evaluation.benchmarks.protocols import Protocol
from hourllava.evaluation.benchmarks.questions import QuestionTable
from hourllava.evaluation.benchmarks.rules import Rule


@dataclass(frozen=True)
class Published:
    """A published figure, and what is known about how it was made.

    Attributes:
        model: its name.
        what: which score: a group such as "long", or "all".
        percent: the figure, or a range.
        subtitles: whether subtitles were shown; "not known" is common.
        protocol: frames, prompt, harness, as far as they are known.
        source: where it stands.
    """

    model: str
    what: str
    percent: str
    subtitles: str
    protocol: str
    source: str


@dataclass(frozen=True)
class Benchmark:
    """A public benchmark.

    Attributes:
        name: in commands.
        title: for people.
        read: the questions of a data folder and a split.
        splits: their names, the usual one first.
        protocols, rules: by name.
        default_protocol: the one that is used if none is named.
        axes: axis of `Question.groups` -> heading of its table.
        macro_axis: axis over whose groups a mean without weights is reported; None: there is no such mean.
        headline: which of the two means people quote: over all questions (micro), or over the groups (macro).
        counts: split -> (questions, videos) as published; None where a number is not known.
        figures: published ones, to stand beside ours.
        advice: which protocol to quote, in a sentence.
        gone: videos that cannot be had any more.
        make: makes the files of a split in a data folder, if it is not there; None if they must be downloaded.
    """

    name: str
    title: str
    read: Callable[[DataFolder, str], QuestionTable]
    splits: tuple[str, ...]
    protocols: Mapping[str, Protocol]
    rules: Mapping[str, Rule]
    default_protocol: str
    axes: Mapping[str, str]
    macro_axis: str | None = None
    headline: Literal["micro", "macro"] = "micro"
    counts: Mapping[str, tuple[int, int | None]] = field(default_factory=dict)
    figures: tuple[Published, ...] = ()
    advice: str = ""
    gone: frozenset[str] = frozenset()
    make: Callable[[Path, str], None] | None = None

    def protocol(self, name: str | None) -> Protocol:
        """The protocol of this name; the usual one for None.

        Raises:
            ConfigError: there is none.
        """
        found = self.protocols.get(name or self.default_protocol)
        if found is None:
            raise ConfigError(f"--protocol is {name!r}; {self.title} has: {', '.join(self.protocols)}")
        return found

    def rule(self, name: str) -> Rule:
        """The rule of this name.

        Raises:
            ConfigError: there is none.
        """
        if name not in self.rules:
            raise ConfigError(f"--rule is {name!r}; {self.title} has: {', '.join(self.rules)}")
        return self.rules[name]

    def split(self, name: str | None) -> str:
        """The split of this name; the usual one for None.

        Raises:
            ConfigError: there is none.
        """
        if name is None:
            return self.splits[0]
        if name not in self.splits:
            raise ConfigError(f"--split is {name!r}; {self.title} has: {', '.join(self.splits)}")
        return name
