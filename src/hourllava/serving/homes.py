"""Which replica a video belongs to, and which replicas live.

A video gets a home when it is first named: the replica with the fewest open calls, then with the fewest videos. It
stays there, because its memory is at hand there. When a replica is lost, its videos get other homes, which find ready
memories in the shared folder; what was being watched has to begin again.
"""

import contextlib
from collections import OrderedDict
from collections.abc import AsyncGenerator, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from hourllava.serving.protocol import EngineFailure, Video

MAX_KNOWN = 10_000
"""Videos whose homes are remembered; the memory of a forgotten one is read from the shared folder again."""


class ReplicaLost(Exception):
    """A replica has ended, or does not answer."""


class Replica(Protocol):
    """A way to the process of a replica."""

    def stream(self, method: str, *arguments: Any, **options: Any) -> AsyncGenerator[Any, None]:
        """The items of `ReplicaServer.call`. Whoever closes the iterator ends the call.

        Raises:
            ReplicaLost: the process has ended, or cannot be reached.
        """
        ...


@dataclass(eq=False)
class Slot:
    """The place of a replica, which keeps it when its process is started again.

    Attributes:
        number: from 0, for the log.
        replica: the way to it.
        num_calls: that are open.
        num_videos: whose home this is.
        is_lost: whether it does not answer.
        process: that answered last; see `Taken`.
    """

    number: int
    replica: Replica
    num_calls: int = 0
    num_videos: int = 0
    is_lost: bool = False
    process: str | None = None


@dataclass(eq=False)
class Known:
    """A video that a server has named.

    Attributes:
        slot: its home; None: it has none now.
        is_begun: whether it is being watched, as far as was seen.
        keeps_running: whether it is watched without listeners, too.
        must_begin: whether its replica was lost in mid-watch, and nobody has begun the watch again.
        attempt: 1, and one more for each replica that was lost in mid-watch.
        num_followers: iterators that are open.
    """

    slot: Slot | None = None
    is_begun: bool = False
    keeps_running: bool = False
    must_begin: bool = False
    attempt: int = 1
    num_followers: int = 0

    def asked_for(self) -> None:
        """Somebody wants it watched: the first attempt, unless it is being watched already."""
        if not self.is_begun:
            self.attempt = 1

    def ends(self) -> None:
        """It is not being watched any more."""
        self.is_begun = self.must_begin = self.keeps_running = False

    @contextlib.contextmanager
    def followed(self) -> Iterator[None]:
        """Count a follower."""
        self.num_followers += 1
        try:
            yield
        finally:
            self.num_followers -= 1


class Homes:
    """The homes of all videos.

    Args:
        replicas: at least one.
    """

    def __init__(self, replicas: Sequence[Replica]) -> None:
        self._slots = [Slot(number, replica) for number, replica in enumerate(replicas)]
        self._known: OrderedDict[str, Known] = OrderedDict()

    @property
    def live(self) -> list[Slot]:
        """The replicas that answer."""
        return [slot for slot in self._slots if not slot.is_lost]

    def known(self, video: Video) -> Known:
        """What is known of a video."""
        known = self._known.setdefault(video.key, Known())
        self._known.move_to_end(video.key)
        if len(self._known) > MAX_KNOWN:
            oldest = next((key for key, each in self._known.items() if not (each.num_followers or each.is_begun)), None)
            if oldest is not None:
                self._leave(self._known.pop(oldest))
        return known

    def home(self, known: Known) -> Slot:
        """The home of a video, which is chosen if it has none.

        Raises:
            EngineFailure: no replica answers.
        """
        if known.slot is None:
            known.slot = self.idlest()
            known.slot.num_videos += 1
        return known.slot

    def idlest(self) -> Slot:
        """The replica with the least to do.

        Raises:
            EngineFailure: no replica answers.
        """
        if not self.live:
            raise EngineFailure("no process of the model answers; they are started again, try later", "replica_lost")
        return min(self.live, key=lambda slot: (slot.num_calls, slot.num_videos))

    def lose(self, slot: Slot) -> None:
        """A process does not answer, or another one took its place: its videos have no home any more."""
        slot.is_lost, slot.process = True, None
        for known in self._known.values():
            if known.slot is slot:
                self._leave(known)
                if known.is_begun:
                    known.must_begin = True
                    known.attempt += 1

    def find(self, slot: Slot) -> None:
        """A replica answers again."""
        slot.is_lost = False

    @staticmethod
    def _leave(known: Known) -> None:
        if known.slot is not None:
            known.slot.num_videos -= 1
            known.slot = None
