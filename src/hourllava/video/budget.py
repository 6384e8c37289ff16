"""How many decoding processes each of several readers may have, so that all together they keep to one number.

    budget = ProcessBudget(8)
    with read_frames("a.mp4", budget=budget) as a, read_frames("b.mp4", budget=budget) as b:
        ...  # four processes each; when one of them ends, the other gets eight

Nobody waits: every reader has one process at once, above the number if need be. It gets further ones as others give
theirs up.
"""

from __future__ import annotations

import threading

from hourllava.errors import ConfigError
from hourllava.forks import renew_after_fork
from hourllava.processes import usable_cores

MAX_PROCESSES = 16


class ProcessBudget:
    """A number of decoding processes that several readers share. Threads may use it.

    Args:
        num_processes: of all readers together; None: one for each usable core, at most 16.

    Raises:
        ConfigError: the number is below 1.
    """

    def __init__(self, num_processes: int | None = None) -> None:
        self.num_processes = min(usable_cores(), MAX_PROCESSES) if num_processes is None else num_processes
        if self.num_processes < 1:
            raise ConfigError(f"a budget of {num_processes} decoding processes cannot be; give 1 or more")
        self.renew()
        renew_after_fork(self)

    def renew(self) -> None:
        """Forget the readers; of a forked process, they are those of its parent."""
        # One thread may enter twice: a reader that is collected as garbage leaves, also amid a method of this class.
        self._lock = threading.RLock()
        self._shares: list[ProcessShare] = []

    def join(self) -> ProcessShare:
        """The share of one more reader, which holds one process."""
        share = ProcessShare(self)
        with self._lock:
            self._shares.append(share)
        return share

    def _fair(self, share: ProcessShare) -> int:
        """How many processes a reader gets when all have adapted: what one does not want goes to the others."""
        left = self.num_processes
        by_want = sorted(self._shares, key=lambda each: each.wanted)
        for n, each in enumerate(by_want):
            fair = max(1, min(each.wanted, left // (len(by_want) - n)))
            if each is share:
                return fair
            left -= fair
        return 1  # it has left

    def _num_free(self) -> int:
        return self.num_processes - sum(each.held for each in self._shares)


class ProcessShare:
    """The processes of one reader; from `ProcessBudget.join`.

    Attributes:
        wanted: most processes that the reader can use.
        held: processes that it has.
    """

    def __init__(self, budget: ProcessBudget) -> None:
        self._budget = budget
        self.wanted, self.held = 1, 1

    def take(self) -> bool:
        """Whether the reader may start one more process; it counts as started."""
        with self._budget._lock:
            may = self.held < self._budget._fair(self) and self._budget._num_free() > 0
            self.held += may
            return may

    @property
    def num_excess(self) -> int:
        """How many processes the reader should give up, because others wait for theirs."""
        with self._budget._lock:
            return max(0, self.held - self._budget._fair(self))

    def give_back(self) -> None:
        """One process has ended."""
        self.held -= 1

    def leave(self) -> None:
        """The reader has ended."""
        with self._budget._lock:
            if self in self._budget._shares:
                self._budget._shares.remove(self)
