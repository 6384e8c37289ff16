"""Text from outside, made fit for a tokenizer."""

import re

_NO_CHARACTER = re.compile("[\ud800-\udfff]")


def whole_text(text: str) -> str:
    """The text with U+FFFD for what is no character: Python has surrogates for bytes that are no UTF-8."""
    return _NO_CHARACTER.sub("\ufffd", text)
