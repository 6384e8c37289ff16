"""Files that a class of ours or of a user's reads as videos, instead of FFmpeg: which class opens which suffix.

After `register_opener(".world.json", "hourllava.world.rendered:RenderedVideo")` all readers of videos take such files.
The class is given by name and imported when a file is opened. So a decoding process, which gets the name from its
parent, can open it too.
"""

import importlib
from typing import Any

from hourllava.errors import ConfigError

_OPENERS: dict[str, str] = {}


def register_opener(suffix: str, opener: str) -> None:
    """Let a class open all files of a suffix.

    Args:
        suffix: how the names of the files end, such as `.world.json`.
        opener: `module:Class`, importable from `sys.path`. The class takes (`video.source.Source`, fps) and is a
            `video.drawn.DrawnVideo`.

    Raises:
        ConfigError: the suffix has another opener.
    """
    if _OPENERS.setdefault(suffix, opener) != opener:
        raise ConfigError(
            f"{suffix} is opened by {_OPENERS[suffix]}, so {opener} cannot open it: choose another suffix"
        )


def opener_of(name: str) -> str | None:
    """`module:Class` for a file of this name; None if none is registered."""
    return next((opener for suffix, opener in _OPENERS.items() if name.endswith(suffix)), None)


def load_opener(opener: str) -> Any:
    """The class behind `module:Class`."""
    module, _, name = opener.partition(":")
    return getattr(importlib.import_module(module), name)
