"""Times as people write them."""

import pytest

from hourllava.clock import format_clock, parse_clock
from hourllava.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 90), ("1:30", 90), ("0:01:30.5", 90.5), ("2:00:00", 7200), ("0", 0)],
)
def test_parse(text, seconds):
    assert parse_clock(text) == seconds


@pytest.mark.parametrize(
    "text",
    [
        "",
        "abc",
        "1:60",
        "1:2:3:4",
        "-5",
        "1:-2",
        ":",
        "nan",
        "inf",
        "1e999",
        "1e400",
        "1e308:00",
        "1:nan",
        "nan:1",
        "-inf",
    ],
)
def test_no_times(text):
    with pytest.raises(ConfigError, match="is no time"):
        parse_clock(text)


def test_format():
    assert [format_clock(seconds) for seconds in (0, 59.9, 3600, 86399)] == [
        "0:00:00",
        "0:00:59",
        "1:00:00",
        "23:59:59",
    ]
