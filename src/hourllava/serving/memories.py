"""Memories at hand for questions: the last ones used are kept, all come from the cache on the disk."""

import collections
import threading

from hourllava.inference.memories.cache import MemoryCache
from hourllava.inference.memories.encoder import EncoderIdentity
from hourllava.inference.memories.memory import Memory
from hourllava.serving.protocol import Video


class MemoryShelf:
    """Memories in this process, the least recently used ones put back first. Threads may use it.

    Args:
        cache: on the disk.
        encoder: of the model.
        max_bytes: of the memories at hand; the last one is kept whatever its size.
    """

    def __init__(self, cache: MemoryCache, encoder: EncoderIdentity, max_bytes: int) -> None:
        self.cache, self._encoder, self._max_bytes = cache, encoder, max_bytes
        self._lock = threading.Lock()
        self._at_hand: collections.OrderedDict[str, Memory] = collections.OrderedDict()

    def at_hand(self, video: Video) -> Memory | None:
        """The memory of a video if it is at hand; the disk is not looked at."""
        with self._lock:
            memory = self._at_hand.get(video.key)
            if memory is not None:
                self._at_hand.move_to_end(video.key)
            return memory

    def get(self, video: Video) -> Memory | None:
        """The memory of a video, at hand or from the disk; None if it must be watched."""
        memory = self.at_hand(video)
        if memory is None and (memory := self.cache.get(self._cache_key(video))) is not None:
            self.put(video, memory)
        return memory

    def put(self, video: Video, memory: Memory) -> None:
        """Have a memory at hand."""
        with self._lock:
            self._at_hand[video.key] = memory
            self._at_hand.move_to_end(video.key)
            while len(self._at_hand) > 1 and self._num_bytes() > self._max_bytes:
                self._at_hand.popitem(last=False)

    def remove(self, video: Video) -> None:
        """Forget a video, also on the disk.

        Raises:
            MemoryFileError: the cache cannot be written to.
        """
        with self._lock:
            self._at_hand.pop(video.key, None)
        self.cache.remove(self._cache_key(video))

    def clear(self) -> None:
        """Put all back."""
        with self._lock:
            self._at_hand.clear()

    def __len__(self) -> int:
        return len(self._at_hand)

    def _num_bytes(self) -> int:
        return sum(memory.num_bytes for memory in self._at_hand.values())

    def _cache_key(self, video: Video) -> str:
        return self.cache.key(video.digest, video.fps, self._encoder, video.start_seconds, video.end_seconds)
