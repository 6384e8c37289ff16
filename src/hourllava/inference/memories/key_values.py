"""Room for the keys and values of a memory that may grow.

Entries never change; further ones are added behind them. So memories of growing length share one room: each has views
of its first entries, which stay valid whatever is added later.

    room = KeyValueRoom()
    room.append(keys_values_of_the_first_frames)
    earlier = room.first(1000)
    room.append(keys_values_of_later_frames)

Shapes: M memory entries, G key/value heads, E head width.
"""

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor

from hourllava.model.attention import cut_into_chunks
from hourllava.model.memaug import MemoryKeysValues


class KeyValueRoom:
    """Keys and values of every MemAug block in buffers.

    Args:
        chunk_entries: None keeps each block's keys in one buffer on the device, and a larger one takes its place when
            it is full. A number keeps them on the host, in buffers of so many entries.

    Attributes:
        chunk_entries: as given.
        num_entries: M so far.
    """

    def __init__(self, chunk_entries: int | None = None) -> None:
        self.chunk_entries = chunk_entries
        self.num_entries = 0
        self._reserved = 0
        # Of each block its keys, then its values: buffers that follow one another.
        self._buffers: list[list[Tensor]] = []

    @classmethod
    def holding(cls, blocks: Sequence[MemoryKeysValues]) -> "KeyValueRoom":
        """A room on the device that takes these over as they are; it is full."""
        room = cls()
        room._buffers = [list(chunks) for block in blocks for chunks in (block.keys, block.values)]
        room.num_entries = room.capacity
        return room

    @property
    def capacity(self) -> int:
        """Entries that the present buffers have room for."""
        return sum(map(len, self._buffers[0])) if self._buffers else 0

    @property
    def num_bytes(self) -> int:
        """Size of all buffers."""
        return sum(buffer.nbytes for buffers in self._buffers for buffer in buffers)

    def reserve(self, num_entries: int) -> None:
        """Make the next buffer on the device so large, if a new one is needed."""
        self._reserved = num_entries

    def append(self, blocks: Sequence[MemoryKeysValues]) -> None:
        """Add the keys and values of further entries: of each block [M, G, E], in one chunk each."""
        added = [tensor for block in blocks for tensor in (block.keys[0], block.values[0])]
        self._buffers = self._buffers or [[] for _ in added]
        for buffers, tensor in zip(self._buffers, added, strict=True):
            if self.chunk_entries is None:
                self._append_on_device(buffers, tensor)
            else:
                self._append_on_host(buffers, tensor, self.chunk_entries)
        self.num_entries += len(added[0]) if added else 0

    def _append_on_device(self, buffers: list[Tensor], tensor_MGE: Tensor) -> None:
        start, end = self.num_entries, self.num_entries + len(tensor_MGE)
        if not buffers or len(buffers[0]) < end:
            larger = tensor_MGE.new_empty(max(end, self._reserved), *tensor_MGE.shape[1:])
            if buffers:
                larger[:start] = buffers[0][:start]
            buffers[:] = [larger]
        buffers[0][start:end] = tensor_MGE

    def _append_on_host(self, buffers: list[Tensor], tensor_MGE: Tensor, chunk_entries: int) -> None:
        start = self.num_entries
        while len(tensor_MGE):
            if start == chunk_entries * len(buffers):
                buffers.append(torch.empty(chunk_entries, *tensor_MGE.shape[1:], dtype=tensor_MGE.dtype))
            free = buffers[-1][start % chunk_entries :]
            part, tensor_MGE = tensor_MGE[: len(free)], tensor_MGE[len(free) :]
            free[: len(part)] = part
            start += len(part)

    def first(self, num_entries: int) -> list[MemoryKeysValues]:
        """Views of the first entries, for each block."""
        assert not self._buffers or num_entries <= self.num_entries
        views = []
        for buffers in self._buffers:
            starts = itertools.accumulate(map(len, buffers), initial=0)
            views.append([b[: num_entries - start] for start, b in zip(starts, buffers) if start < num_entries])
        return [MemoryKeysValues(keys, values) for keys, values in zip(views[::2], views[1::2])]

    def on_host(self, chunk_entries: int) -> "KeyValueRoom":
        """A copy on the host."""
        copy = KeyValueRoom(chunk_entries)
        for chunk in cut_into_chunks(self.num_entries, chunk_entries):
            parts = [
                MemoryKeysValues([block.keys[0][chunk]], [block.values[0][chunk]])
                for block in self.first(self.num_entries)
            ]
            copy.append(parts)
        return copy
