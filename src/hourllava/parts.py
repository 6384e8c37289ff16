"""`k/N` in a command's options: part k of a job that is cut into N."""

import re

from hourllava.errors import ConfigError


def parse_part(text: str, option: str) -> tuple[int, int]:
    """(k, N) of `"0/4"`.

    Raises:
        ConfigError: the text has another form, or k is not below N; `option` is named in the message.
    """
    match = re.fullmatch(r"(\d+)/(\d+)", text)
    if not match or not int(match[1]) < int(match[2]):
        raise ConfigError(f"{option} is {text!r}; use k/N with k from 0 to N-1, such as 0/4")
    return int(match[1]), int(match[2])
