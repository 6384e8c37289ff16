"""Videos that are drawn, not decoded: which class opens the files of a suffix.

`register_opener(".world.json", "hourllava.world.rendered:RenderedVideo")` makes such files videos for everything that
reads videos. The class is given by name: it is imported where such a file is opened, also in a decoding process.
"""

import importlib
from typing import Any

from hourllava.errors import ConfigError

_OPENERS: dict[str, str] = {}


def register_opener(suffix: str, opener: str) -> None:
    """Let a class open the files of a suffix; it takes a `video.Source` and fps and gives `video.drawn.DrawnVideo`.

    Args:
        suffix: how the names of the files end, such as `.world.json`.
        opener: `module:Class`, importable wherever videos are read.

    Raises:
        ConfigError: the suffix has another opener.
    """
    if _OPENERS.setdefault(suffix, opener) != opener:
        raise ConfigError(f"{suffix} is opened by {_OPENERS[suffix]}, it cannot be opened by {opener}, too")


def opener_of(name: str) -> str | None:
    """`module:Class` for a file of this name; None if none is registered."""
    return next((opener for suffix, opener in _OPENERS.items() if name.endswith(suffix)), None)


def load_opener(opener: str) -> Any:
    """The class behind `module:Class`."""
    module, _, name = opener.partition(":")
    return getattr(importlib.import_module(module), name)
