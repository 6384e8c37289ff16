"""Threads that the interpreter waits for at its end, once they were asked to end.

A thread may be the last to hold a model. If it frees tensors while the interpreter takes everything apart, the process
is aborted. A daemon is not waited for, and any other thread is waited for before `atexit` can ask it to end.
"""

import atexit
import threading

_started: set[threading.Thread] = set()


def start_waited_for(thread: threading.Thread) -> None:
    """Start a daemon that is waited for when all functions of `atexit` have run that are registered behind this module.

    One of these functions, or the last holder of what the thread works for, must have asked it to end.
    """
    assert thread.daemon, "it would be waited for too early"
    thread.start()
    _started.difference_update([one for one in list(_started) if not one.is_alive()])
    _started.add(thread)


def _wait_for_all() -> None:
    for thread in list(_started):
        thread.join()


atexit.register(_wait_for_all)
