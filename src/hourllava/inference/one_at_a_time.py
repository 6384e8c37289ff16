"""One call at a time: other threads wait for the end of the call, and a call inside a call is refused."""

import contextlib
import os
import threading
from collections.abc import Iterator

from hourllava.errors import InputError


class OneAtATime:
    """The lock of one model's calls.

    with calls.alone():
        ...  # the decoder's buffers belong to this call
    """

    def __init__(self) -> None:
        self._lock, self._process = threading.Lock(), os.getpid()
        self._thread: int | None = None

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Wait until no other thread is inside a call, and keep them out until this call ends.

        Raises:
            InputError: this thread is inside a call already, in its `on_text`.
        """
        if self._thread == threading.get_ident() and self._process == os.getpid():
            raise InputError("a model cannot be asked inside on_text, before its answer ends; ask when it has ended")
        if self._process != os.getpid():  # after a fork, the thread that held the lock does not exist in this process
            self._lock, self._process, self._thread = threading.Lock(), os.getpid(), None
        with self._lock:
            self._thread = threading.get_ident()
            try:
                yield
            finally:
                self._thread = None
