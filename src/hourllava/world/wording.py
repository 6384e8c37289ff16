"""The canonical words for times, lists and events. Each fact has one spelling, so exact match is a fair measure."""

from hourllava.clock import format_clock

_NUMBERED_UNITS = ((20, 1, "second"), (120, 5, "second"), (7200, 60, "minute"))


def duration_step(seconds: float) -> int:
    """The step in seconds to which `spoken_duration` rounds."""
    return next((step for limit, step, _ in _NUMBERED_UNITS if seconds < limit), 3600)


def spoken_duration(seconds: float) -> str:
    """A length of time in words: exact below 20 s, then to 5 s, from 2 minutes to a minute, from 2 hours to an hour."""
    step = duration_step(seconds)
    rounded = int(seconds / step + 0.5) * step
    for _, unit_step, unit in _NUMBERED_UNITS:
        if step == unit_step:
            count = rounded // 60 if unit == "minute" else rounded
            return f"{count} {unit}" if count == 1 else f"{count} {unit}s"
    return f"{rounded // 3600} hours"


def is_safely_rounded(seconds: float) -> bool:
    """Whether the rounded length is clear: at most 35 % of a step from the true one."""
    step = duration_step(seconds)
    distance = abs(seconds - int(seconds / step + 0.5) * step)
    return distance <= 0.35 * step


def bucket_seconds(duration_seconds: int) -> int:
    """The width of a `bucket`: 10 s, 1 minute or 10 minutes."""
    return 10 if duration_seconds <= 300 else 60 if duration_seconds <= 7200 else 600


def bucket(time_seconds: float, duration_seconds: int) -> str:
    """The interval that contains a moment: "between 0:12:00 and 0:13:00"; its end does not belong to it."""
    width = bucket_seconds(duration_seconds)
    start = int(time_seconds // width) * width
    return f"between {format_clock(start)} and {format_clock(start + width)}"


def listed(items: list[str]) -> str:
    """A list in words: "a, b and c"."""
    return items[0] if len(items) == 1 else ", ".join(items[:-1]) + " and " + items[-1]


def summary_sentence(first: str, middle: str, last: str) -> str:
    """The canonical one-sentence summary from three event titles."""
    return f"It starts with {first}, comes to {middle} at half time, and ends with {last}."


def sentence(text: str) -> str:
    """The text with a capital first letter."""
    return text[:1].upper() + text[1:]


def with_article(noun: str) -> str:
    """The noun with "a" or "an"."""
    return f"an {noun}" if noun[0] in "aeiou" else f"a {noun}"
