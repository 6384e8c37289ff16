"""Text from callers, made valid for a tokenizer."""

import re

_NO_CHARACTER = re.compile("[\ud800-\udfff]")


def whole_text(text: str) -> str:
    """The text with U+FFFD in place of surrogates, by which Python represents bytes that are no UTF-8."""
    return _NO_CHARACTER.sub("\ufffd", text)
