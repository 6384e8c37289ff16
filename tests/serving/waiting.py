"""Waiting for what a server does by itself."""

import time


def until(condition, seconds=10.0):
    """What a condition gives, when it is true."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.005)
    return found
