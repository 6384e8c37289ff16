"""Random draws that are equal on every machine and with every version of Python and NumPy.

Draw number i comes from the SHA-256 of (key, i // 4), cut into four 64-bit words. `random` and `numpy.random` guarantee
their bit streams, but not how `shuffle`, `choice` or `integers` use them, and an upgrade must not change a script.
A draw takes about 1 microsecond; an hour of video needs about 2,000.
"""

import hashlib
from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


class Draws:
    """An endless sequence of draws, named by `key`; different keys give independent sequences."""

    def __init__(self, *key: int | str):
        self._key = "/".join(str(part) for part in key).encode()
        self._counter = 0
        self._words: list[int] = []

    def _word(self) -> int:
        if not self._words:
            digest = hashlib.sha256(self._key + b"#%d" % self._counter).digest()
            self._counter += 1
            self._words = [int.from_bytes(digest[i : i + 8], "little") for i in (24, 16, 8, 0)]
        return self._words.pop()

    def below(self, n: int) -> int:
        """A whole number in [0, n); its bias is below n / 2**64."""
        assert n > 0
        return self._word() * n >> 64

    def between(self, low: int, high: int) -> int:
        """A whole number in [low, high], both ends included."""
        return low + self.below(high - low + 1)

    def pick(self, items: Sequence[T]) -> T:
        """One item, all equally likely."""
        return items[self.below(len(items))]

    def sample(self, items: Sequence[T], count: int) -> list[T]:
        """`count` items without replacement, in random order."""
        pool = list(items)
        assert count <= len(pool)
        for i in range(count):
            j = i + self.below(len(pool) - i)
            pool[i], pool[j] = pool[j], pool[i]
        return pool[:count]

    def shuffled(self, items: Sequence[T]) -> list[T]:
        """All items in random order."""
        return self.sample(items, len(items))
