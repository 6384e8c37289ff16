"""Times in prompts and in answers: `0:12:04`, and what models write in its place."""

import re

from hourllava.clock import format_clock, parse_clock
from hourllava.errors import ConfigError

Span = tuple[float, float]

_CLOCK = re.compile(r"(?<![\d:.])\d{1,3}(?::\d\d){1,2}(?:\.\d+)?(?![\d:])")
_SECONDS = re.compile(r"(\d+(?:\.\d+)?)\s*(?:s|sec|secs|seconds?)?", re.IGNORECASE)
_RANGE = re.compile(r"\s*(\S+?)\s*(?:-|\u2013|\u2014|to)\s*(\S+)\s*", re.IGNORECASE)


def clock(seconds: float) -> str:
    """A time for a prompt: `0:12:04`, with a decimal if it is no whole second."""
    tenths = round(seconds * 10)
    text = format_clock(tenths // 10)
    return f"{text}.{tenths % 10}" if tenths % 10 else text


def read_time(value: str | float) -> float:
    """Seconds of `0:01:10`, `1:10`, `70`, `70s` or a number.

    Raises:
        ValueError: it is no time.
    """
    if isinstance(value, str):
        text = value.strip()
        try:
            return parse_clock(text)
        except ConfigError:
            match = _SECONDS.fullmatch(text)
        if match is None:
            raise ValueError(f"{value!r:.40} is no time; write h:mm:ss")
        value = float(match[1])
    if not 0 <= value < 1e7:
        raise ValueError(f"{value} is no time of a video")
    return float(value)


def read_range(text: str) -> Span | None:
    """The two times of `0:01:12-0:01:19`; None if it is no range."""
    match = _RANGE.fullmatch(text)
    if match is None:
        return None
    try:
        start, end = read_time(match[1]), read_time(match[2])
    except ValueError:
        return None
    return (start, end) if start <= end else None


def times_in(text: str) -> list[float]:
    """The times that a text names by the clock."""
    found = []
    for match in _CLOCK.findall(text):
        try:
            found.append(parse_clock(match))
        except ConfigError:
            continue
    return found
