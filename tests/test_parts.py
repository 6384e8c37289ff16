"""Parts of a job, as options name them."""

import pytest

from hourllava.errors import ConfigError
from hourllava.parts import parse_part


def test_parts_are_counted_from_0():
    assert parse_part("0/1", "--part") == (0, 1)
    assert parse_part("3/10", "--part") == (3, 10)


@pytest.mark.parametrize("text", ["4/4", "1", "a/b", "-1/2", "0/0", "", "1/2/3", "1 / 2"])
def test_other_parts_are_refused(text):
    with pytest.raises(ConfigError, match=r"--part is '.*'; use k/N with k from 0 to N-1, such as 0/4"):
        parse_part(text, "--part")
