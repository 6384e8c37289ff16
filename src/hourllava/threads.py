"""Threads that the interpreter waits for at its end, once they were asked to end.

A thread may be the last to hold a model. If it frees the model while the interpreter takes everything apart, the
process is aborted. Python does not wait for daemons. For other threads it waits before `atexit` can ask them to end.
"""

import atexit
import threading

_started: set[threading.Thread] = set()


def start_waited_for(thread: threading.Thread) -> None:
    """Start a daemon that the interpreter waits for, behind all functions that are registered with `atexit` later.

    Until then, one of these functions, or somebody else, must have asked it to end.
    """
    assert thread.daemon, "it would be waited for too early"
    thread.start()
    _started.difference_update([one for one in list(_started) if not one.is_alive()])
    _started.add(thread)


def _wait_for_all() -> None:
    for thread in list(_started):
        thread.join()


atexit.register(_wait_for_all)
