"""Where this library keeps what it can make again."""

import os
import pwd
from pathlib import Path


def user_cache_folder(name: str) -> Path | None:
    """`hourllava/NAME` in $XDG_CACHE_HOME or ~/.cache; None for a user without a home, as in many containers."""
    # The XDG specification: an empty or relative setting counts as none.
    configured, home = Path(os.environ.get("XDG_CACHE_HOME", "")), Path(os.environ.get("HOME", ""))
    if not configured.is_absolute():
        if not home.is_absolute():
            try:
                home = Path(pwd.getpwuid(os.getuid()).pw_dir)
            except KeyError:  # a user id that has no name
                return None
        if not home.is_absolute():
            return None
        configured = home / ".cache"
    return configured / "hourllava" / name
