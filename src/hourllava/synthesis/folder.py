"""The folder of a data set that is being made.

OUT/synth.json             what the last run was asked for
OUT/stages/NAME.jsonl      the rows of each stage
OUT/stages/makers.json     digest -> what made a row: stage, model, prompt, settings
OUT/requests.jsonl         every call of a model: when, what for, tokens, seconds, faults
OUT/jsons/...              the data set, as `data prepare` and `train` read it
OUT/card.md, card.json     what is in it, and how good it is
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hourllava import __version__
from hourllava.errors import ConfigError
from hourllava.files import TEMPORARY_SUFFIX, replacing
from hourllava.locks import LOCK_NAME, lock_folder
from hourllava.synthesis.rows import RowFile, digest

SETTINGS_NAME = "synth.json"
STAGES = ("clips", "captions", "events", "event_captions", "summaries", "questions", "checks", "records")
"""In their order; all but the last have a file of rows."""


class Makers:
    """What made rows, by digest: a row names its maker in 32 digits.

    Args:
        path: of the file; read if it is there.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known: dict[str, Any] = json.loads(path.read_bytes()) if path.exists() else {}

    def add(self, stage: str, **facts: Any) -> str:
        """The digest of a maker, which the file has from now on.

        Args:
            stage: that it makes.
            **facts: plain data: model, prompt, settings. They are part of the digest.
        """
        found = {"stage": stage, **facts}
        name = digest(found)
        if name not in self._known:
            self._known[name] = found | {"hourllava": __version__}
            with replacing(self._path) as temporary:
                temporary.write_text(json.dumps(self._known, indent=1, sort_keys=True) + "\n", encoding="utf-8")
        return name

    def facts(self, name: str) -> dict[str, Any]:
        """What is known of a maker."""
        found: dict[str, Any] = self._known[name]
        return found


class SynthFolder:
    """The places in a folder, from `held_folder`.

    Args:
        root: the folder.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.makers = Makers(root / "stages" / "makers.json")

    @property
    def log(self) -> Path:
        """The file with every call of a model."""
        return self.root / "requests.jsonl"

    @property
    def jsons(self) -> Path:
        """The folder of the data set's files."""
        return self.root / "jsons"

    def rows(self, stage: str) -> RowFile:
        """The rows of a stage."""
        return RowFile(self.root / "stages" / f"{stage}.jsonl")


@contextmanager
def held_folder(root: Path, asked: dict[str, Any]) -> Iterator[SynthFolder]:
    """Hold a new folder, or that of an earlier run; no other run may be in it.

    Args:
        root: made if need be.
        asked: what this run was asked for, as plain data, to be kept.

    Raises:
        ConfigError: the folder holds something else, or cannot be written.
        DataError: another run is in it.
    """
    try:
        root.mkdir(parents=True, exist_ok=True)
        with lock_folder(root):
            if not (root / SETTINGS_NAME).exists() and any(
                not entry.name.startswith((SETTINGS_NAME, LOCK_NAME)) for entry in root.iterdir()
            ):
                raise ConfigError(f"{root} is not empty and holds no run to continue; use a new or empty folder")
            for leftover in root.rglob(f"*{TEMPORARY_SUFFIX}"):
                leftover.unlink(missing_ok=True)
            with replacing(root / SETTINGS_NAME) as temporary:
                temporary.write_text(json.dumps(asked, indent=1, sort_keys=True) + "\n", encoding="utf-8")
            for folder in (root / "stages", root / "jsons"):
                folder.mkdir(exist_ok=True)
            yield SynthFolder(root)
    except OSError as error:
        if error.filename is None or str(root) not in str(error.filename):
            raise
        raise ConfigError(
            f"{error.filename} cannot be written: {error.strerror}; use a folder you may write to"
        ) from error
