"""Responses that are kept for their clients, in memory: the last thousand or so."""

from collections import OrderedDict
from typing import Generic, Protocol, TypeVar

from hourllava.serving.errors import not_found, queue_full

_FULL_SECONDS = 60.0


class KeptRun(Protocol):
    """What is kept; see `responding.Run`."""

    @property
    def id(self) -> str:
        """Of the response."""
        ...

    @property
    def owner(self) -> str:
        """Of the response."""
        ...

    @property
    def is_final(self) -> bool:
        """Whether nothing more comes."""
        ...

    async def cancel(self) -> None:
        """End it."""
        ...


R = TypeVar("R", bound=KeptRun)


class Kept(Generic[R]):
    """Runs by the id of their response; of too many, those that ended first are forgotten.

    Args:
        max_kept: so many are kept.
    """

    def __init__(self, max_kept: int) -> None:
        self._max_kept = max_kept
        self._runs: OrderedDict[str, R] = OrderedDict()

    def make_room(self) -> None:
        """Forget what ended long ago.

        Raises:
            ApiError: all that are kept still run.
        """
        while len(self._runs) >= self._max_kept:
            ended = next((key for key, run in self._runs.items() if run.is_final), None)
            if ended is None:
                raise queue_full(f"{len(self._runs)} responses are being made, and that is the limit", _FULL_SECONDS)
            del self._runs[ended]

    def keep(self, run: R) -> None:
        """Keep a run."""
        self._runs[run.id] = run

    def get(self, response_id: str, owner: str, param: str | None = None) -> R:
        """An owner's run.

        Raises:
            ApiError: there is none of this id.
        """
        run = self._runs.get(response_id)
        if run is None or run.owner != owner:
            raise not_found(f"response {response_id[:64]!r}; they are kept for a while, and not over a restart", param)
        return run

    def forget(self, run: R) -> None:
        """Keep a run no longer."""
        self._runs.pop(run.id, None)

    async def close(self) -> None:
        """End all runs."""
        for run in list(self._runs.values()):
            await run.cancel()
