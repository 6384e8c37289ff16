"""Which addresses were fetched lately, so that every question of a conversation may name the same one."""

import asyncio
import time

REUSE_SECONDS = 3600.0
MAX_KNOWN = 1000


class Fetching:
    """Files that were fetched, by client and address."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str], tuple[float, str]] = {}  # since when, and the id of the file
        self._locks: dict[tuple[str, str], asyncio.Lock] = {}

    def lock(self, owner: str, url: str) -> asyncio.Lock:
        """To be held while this address is fetched: who comes meanwhile finds the file then."""
        self._locks = {key: lock for key, lock in self._locks.items() if lock.locked()}
        return self._locks.setdefault((owner, url), asyncio.Lock())

    def file_id(self, owner: str, url: str) -> str | None:
        """The file of an address that was fetched within the last hour."""
        since, file_id = self._known.get((owner, url), (0.0, None))
        return file_id if time.monotonic() - since < REUSE_SECONDS else None

    def note(self, owner: str, url: str, file_id: str) -> None:
        """Note that an address was fetched now."""
        self._known.pop((owner, url), None)
        self._known[owner, url] = (time.monotonic(), file_id)
        while len(self._known) > MAX_KNOWN:
            del self._known[next(iter(self._known))]
