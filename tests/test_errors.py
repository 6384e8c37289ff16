"""Every error class is documented and has an exit code of its own."""

import inspect

from hourllava import errors


def test_exit_codes_are_distinct_and_not_taken_by_the_shell():
    classes = [c for _, c in inspect.getmembers(errors, inspect.isclass) if issubclass(c, errors.HourLlavaError)]
    codes = [c.exit_code for c in classes]
    assert len(classes) > 3
    assert len(set(codes)) == len(codes)
    assert all(0 < code < 126 for code in codes)
    assert all(c.__doc__ for c in classes)
