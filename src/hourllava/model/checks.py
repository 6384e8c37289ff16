"""Checks of single settings for our configurations, and one-line descriptions of other libraries' errors."""

import math
from collections.abc import Collection
from typing import Any

from hourllava.errors import ConfigError, HourLlavaError


def require(condition: bool, message: str) -> None:
    """Raise a `ConfigError` unless the condition holds."""
    if not condition:
        raise ConfigError(message)


def require_choice(name: str, value: Any, allowed: Collection[Any]) -> None:
    """The value must be one of those allowed."""
    require(value in tuple(allowed), f"{name} is {value!r:.80}; choose one of {', '.join(map(str, allowed))}")


def require_flag(name: str, value: Any) -> None:
    """The value must be true or false."""
    require(isinstance(value, bool), f"{name} is {value!r:.80}; it must be true or false")


def require_whole(name: str, value: Any, at_least: int, at_most: int) -> None:
    """The value must be a whole number within a range."""
    require(
        isinstance(value, int) and not isinstance(value, bool) and at_least <= value <= at_most,
        f"{name} is {value!r:.80}; it must be a whole number, at least {at_least} and at most {at_most}",
    )


def require_number(name: str, value: Any, *, above: float | None = None) -> None:
    """The value must be a finite number, above a limit if one is given."""
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    limit = "" if above is None else f" above {above:g}"
    require(
        is_number and (above is None or value > above), f"{name} is {value!r:.80}; it must be a finite number{limit}"
    )


def describe_error(error: Exception) -> str:
    """An error's message on one line, cut at 300 characters; with its class if another library raised it."""
    message = " ".join(str(error).split())[:300]
    return message if isinstance(error, HourLlavaError) else f"{type(error).__name__}: {message}"
