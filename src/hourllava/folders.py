"""Where this library keeps files that it can make again."""

import os
import pwd
from pathlib import Path


def user_cache_folder(name: str) -> Path | None:
    """`hourllava/NAME` in $XDG_CACHE_HOME or ~/.cache; None if the user has no home, as in many containers."""
    # XDG specification: an empty or relative setting is ignored.
    configured, home = Path(os.environ.get("XDG_CACHE_HOME", "")), Path(os.environ.get("HOME", ""))
    if not configured.is_absolute():
        if not home.is_absolute():
            try:
                home = Path(pwd.getpwuid(os.getuid()).pw_dir)
            except KeyError:  # a user id without a name
                return None
        if not home.is_absolute():
            return None
        configured = home / ".cache"
    return configured / "hourllava" / name
