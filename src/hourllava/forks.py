"""What a forked process must not inherit: locks that other threads held, and lists of their work.

Only the thread that forks exists in the new process. A lock that another thread held would stay locked for ever.
"""

import os
import weakref
from typing import Protocol


class Renewable(Protocol):
    """Something that other threads use, too."""

    def renew(self) -> None:
        """Begin anew, with free locks and without the work of threads that do not exist any more."""
        ...


_things: weakref.WeakSet[Renewable] = weakref.WeakSet()


def renew_after_fork(thing: Renewable) -> None:
    """Have a thing renewed in every process that is forked from now on, as long as the thing exists."""
    _things.add(thing)


def _renew_all() -> None:
    for thing in list(_things):
        thing.renew()


os.register_at_fork(after_in_child=_renew_all)
