"""The end of a server in two steps: first it takes nothing new, then it ends what is still being answered."""

import asyncio


class Closing:
    """Says whether the server ends, and wakes those who wait.

    Attributes:
        is_draining: whether nothing new is taken.
        drained: set when nothing new is taken; streams of events end then.
        ended: set when the answers that are being written end, too.
    """

    def __init__(self) -> None:
        self.drained = asyncio.Event()
        self.ended = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None

    @property
    def is_draining(self) -> bool:
        """Whether nothing new is taken."""
        return self.drained.is_set()

    def begin(self, drain_seconds: float) -> None:
        """Take nothing new from now on, and end the rest after so many seconds; further calls do nothing."""
        if not self.is_draining:
            self.drained.set()
            self._timer = asyncio.get_running_loop().call_later(drain_seconds, self.ended.set)

    def end(self) -> None:
        """End the rest now."""
        self.drained.set()
        self.ended.set()
        if self._timer is not None:
            self._timer.cancel()
