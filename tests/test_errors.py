"""Every error class has a docstring, an exit code of its own, and messages of one line."""

import inspect

from hypothesis import given
from hypothesis import strategies as st

from hourllava import errors


def test_exit_codes_are_distinct_and_not_taken_by_the_shell():
    classes = [c for _, c in inspect.getmembers(errors, inspect.isclass) if issubclass(c, errors.HourLlavaError)]
    codes = [c.exit_code for c in classes]
    assert len(classes) > 3
    assert len(set(codes)) == len(codes)
    assert all(0 < code < 126 for code in codes)
    assert all(c.__doc__ for c in classes)


@given(st.text(), st.sampled_from([errors.HourLlavaError, errors.ConfigError, errors.VideoError, errors.InputError]))
def test_messages_are_one_line_whatever_names_stand_in_them(text, error):
    message = str(error(f"{text}: no such file"))
    assert message.splitlines() == [message]
    assert message.endswith(": no such file")
    if text.isprintable():
        assert message.startswith(text)
