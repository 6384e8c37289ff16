"""Times as people write them: 90, 1:30, 0:01:30.5."""

from hourllava.errors import ConfigError

MAX_PART = 1e9  # hours, minutes or seconds, whichever comes first; also refuses inf


def parse_clock(text: str) -> float:
    """Seconds of `90`, `1:30` or `0:01:30.5`.

    Raises:
        ConfigError: it is none of these, or infinite.
    """
    try:
        parts = [float(part) for part in text.split(":")]
    except ValueError:
        parts = []
    if not 1 <= len(parts) <= 3 or not all(0 <= part < limit for part, limit in zip(parts, (MAX_PART, 60, 60))):
        raise ConfigError(f"{text!r} is no time; write seconds, minutes:seconds or hours:minutes:seconds")
    seconds = 0.0
    for part in parts:
        seconds = seconds * 60 + part
    return seconds


def format_clock(seconds: float) -> str:
    """`h:mm:ss` of a time, cut to whole seconds."""
    whole = int(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}"
