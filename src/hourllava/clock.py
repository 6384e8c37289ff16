"""Times as people write them: 90, 1:30, 0:01:30.5."""

import math

from hourllava.errors import ConfigError


def parse_clock(text: str) -> float:
    """Seconds of `90`, `1:30` or `0:01:30.5`.

    Raises:
        ConfigError: it is none of these, or infinite.
    """
    try:
        parts = [float(part) for part in text.split(":")]
    except ValueError:
        parts = []
    fits = 1 <= len(parts) <= 3 and all(part >= 0 for part in parts) and all(part < 60 for part in parts[1:])
    if not fits or not math.isfinite(parts[0]):
        raise ConfigError(f"{text!r} is no time; write seconds, minutes:seconds or hours:minutes:seconds")
    seconds = 0.0
    for part in parts:
        seconds = seconds * 60 + part
    return seconds


def format_clock(seconds: float) -> str:
    """`h:mm:ss` of a time, cut to whole seconds."""
    whole = int(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}"
