"""Times as people write them: `90`, `1:30`, `0:01:30.5`."""

from hourllava.errors import ConfigError

MAX_PART = 1e9  # limit of the first part, be it hours, minutes or seconds; also refuses inf


def parse_clock(text: str) -> float:
    """Seconds of `90`, `1:30` or `0:01:30.5`.

    Raises:
        ConfigError: the text has another form, or a part is too large.
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
    """A time as `h:mm:ss`, rounded down to whole seconds."""
    whole = int(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}"
