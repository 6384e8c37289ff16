"""Every error class has a docstring, an exit code of its own, and messages of one line."""

import copy
import inspect
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hourllava import errors

CLASSES = [c for _, c in inspect.getmembers(errors, inspect.isclass) if issubclass(c, errors.HourLlavaError)]


def made(error):
    """An error of this class, with a value for each argument."""
    own = error.__init__ is not Exception.__init__
    num_more = len(inspect.signature(error.__init__).parameters) - 2 if own else 0  # besides self and the message
    return error("no\nroom", *(float(n) for n in range(1, num_more + 1)))


def test_exit_codes_are_distinct_and_not_taken_by_the_shell():
    codes = [c.exit_code for c in CLASSES]
    assert len(CLASSES) > 3
    assert len(set(codes)) == len(codes)
    assert all(0 < code < 126 for code in codes)
    assert all(c.__doc__ for c in CLASSES)


@given(st.text(), st.sampled_from([errors.HourLlavaError, errors.ConfigError, errors.VideoError, errors.InputError]))
def test_messages_are_one_line_whatever_names_stand_in_them(text, error):
    message = str(error(f"{text}: no such file"))
    assert message.splitlines() == [message]
    assert message.endswith(": no such file")
    if text.isprintable():
        assert message.startswith(text)


@pytest.mark.parametrize("error", CLASSES)
@pytest.mark.parametrize("copied", [copy.copy, lambda error: pickle.loads(pickle.dumps(error))])
def test_errors_cross_a_border_of_processes_whole(error, copied):
    before = made(error)
    after = copied(before)
    assert type(after) is error
    assert (str(after), after.args, vars(after)) == (str(before), before.args, vars(before))


def test_an_error_with_more_arguments_is_among_those_that_are_copied():
    assert vars(made(errors.EngineBusy)) == {"retry_after_seconds": 1.0}
