"""Memories made ready for one model: layout, keys and values, kept tokens.

None of it depends on the question (except that `question` forgetting chooses other kept tokens), so it is made once per
memory: a further question costs no encoding, no projection and no key or value. When a memory grows, only its new
frames are projected. Keys and values that do not fit beside the model stay on the host in chunks, and MemAug attends
one chunk after the other.

    memories = ReadyMemories(model)
    ready = memories.get(memory, memory.snapshot())
"""

import dataclasses
import functools
import logging
import weakref
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from hourllava.inference.memories.key_values import KeyValueRoom
from hourllava.inference.memories.memory import Memory
from hourllava.inference.memories.shown import shown_from_seconds
from hourllava.inference.memories.snapshot import MemorySnapshot
from hourllava.inference.memories.thinning import check_share, thinned
from hourllava.model.attention import cut_into_chunks
from hourllava.model.attention_share import KeyRuns
from hourllava.model.batch import VisualBatch, VisualSample, batch_visuals
from hourllava.model.config import HourLlavaConfig
from hourllava.model.devices import fits_on_device, total_memory_bytes
from hourllava.model.kept_prefix import KeptPrefix, kept_prefix_bytes
from hourllava.model.layout import NEWLINE, VisualLayout, num_memory_entries, video_layout
from hourllava.model.memaug import MemoryKeysValues
from hourllava.model.trunk import HourLlavaModel
from hourllava.model.visuals import Visuals

# Memory entries projected at a time. 262,144 are an hour and 8 minutes: 1.1 GB of tokens of width 2,048 in bf16.
ENTRIES_PER_CHUNK = 2**18

_log = logging.getLogger(__name__)


@dataclasses.dataclass
class PrefixSlot:
    """Place for the kept prefix of a memory, which the first question makes."""

    prefix: KeptPrefix | None = None


@dataclasses.dataclass(frozen=True)
class ReadyMemory:
    """A memory that can be asked.

    Attributes:
        memory: that is ready, as it was then.
        layout: its kept tokens are seeded by the video, see `Memory.content_seed`.
        keys_values: of the memory, for each MemAug block.
        kept_tokens: [K, D] projected, in the order of `layout`.
        frame_descriptors_TD: mean projected token of each frame; None if forgetting does not look at frames.
        room: holds the keys and values; longer states of the memory share it.
        share: of the frames that MemAug can look up.
        slot: of the prefix that prompts about this state have in common, if the model has such.
    """

    memory: MemorySnapshot
    layout: VisualLayout
    keys_values: list[MemoryKeysValues]
    kept_tokens: Tensor
    frame_descriptors_TD: npt.NDArray[np.float32] | None
    room: KeyValueRoom
    share: float = 1.0
    slot: PrefixSlot = dataclasses.field(default_factory=PrefixSlot)

    @property
    def num_bytes(self) -> int:
        """Size of keys and values, wherever they lie, with their room to grow, of kept tokens, and of the prefix."""
        of_prefix = self.slot.prefix.num_bytes if self.slot.prefix else 0
        return self.room.num_bytes + self.kept_tokens.nbytes + of_prefix

    @property
    def is_on_host(self) -> bool:
        """Whether keys and values did not fit beside the model."""
        return self.room.chunk_entries is not None

    @property
    def frame_of_entry(self) -> npt.NDArray[np.int64]:
        """[M] the frame that each memory entry belongs to; a newline belongs to the frame before it."""
        frame_tokens = self.layout.num_patch_tokens // self.memory.num_frames
        index = self.layout.memory_index
        frames = np.where(index == NEWLINE, 0, index // frame_tokens)
        # Frames come in order, and a newline follows the tokens of its frame.
        return np.maximum.accumulate(frames)

    @functools.cached_property
    def runs_of_frames(self) -> KeyRuns:
        """The memory entries of each frame, for `WatchedQueries`."""
        return KeyRuns(self.frame_of_entry)

    @functools.cached_property
    def shown_seconds(self) -> npt.NDArray[np.float64]:
        """[T] when each frame appears, for evidence, on the player's clock."""
        memory = self.memory
        return shown_from_seconds(memory.timestamps_seconds, memory.sample_seconds) + memory.player_offset_seconds


MakeReady = Callable[[MemorySnapshot, HourLlavaModel], ReadyMemory]
"""`make_ready`, or what an experiment takes in its place."""


@torch.inference_mode()
def make_ready(memory: MemorySnapshot, model: HourLlavaModel, share: float = 1.0) -> ReadyMemory:
    """Project a memory and compute MemAug's keys and values.

    Args:
        memory: of the same encoder.
        model: in evaluation mode.
        share: of the frames that MemAug can look up; below 1 only for experiments, see `thinning`.

    Raises:
        ConfigError: the share is outside 0 to 1, or below 1 where forgetting depends on the question.
    """
    check_share(share, model.config)
    descriptors = _frame_descriptors(memory.features, model) if _looks_at_frames(model.config) else None
    layout = _layout(memory, model.config, descriptors)
    if share < 1:
        layout = thinned(layout, model.config.video_frame_tokens, share)
    num_entries = len(layout.memory_index)
    num_bytes = num_key_value_bytes(num_entries, model)
    is_on_host = not fits_on_device(num_bytes, model.device)
    if is_on_host:
        _tell_of_host(memory, num_bytes)
    features = memory.features
    if fits_on_device(features.nbytes, model.device):
        features = features.to(model.device)
    visuals = Visuals(layout_batch(layout).to(model.device), features={"video": features})
    if num_entries <= ENTRIES_PER_CHUNK and not is_on_host:
        projected = model.remember(visuals)
        room, kept_tokens = KeyValueRoom.holding(projected.keys_values), projected.kept_tokens
    else:
        room, kept_tokens = KeyValueRoom(ENTRIES_PER_CHUNK if is_on_host else None), model.kept_tokens(visuals)
        room.reserve(num_entries)
        _fill(room, visuals, model)
    return ReadyMemory(memory, layout, room.first(num_entries), kept_tokens, descriptors, room, share)


@torch.inference_mode()
def extended(ready: ReadyMemory, other: MemorySnapshot, model: HourLlavaModel) -> ReadyMemory:
    """The same memory in another state, mostly a longer one: only frames that are new to its room are projected.

    Args:
        ready: an earlier (or later) state; it stays valid.
        other: the state to make ready.
        model: in evaluation mode.
    """
    config = model.config
    # A short video repeats frames, and a thinned one leaves out others, according to the number of frames.
    if ready.share < 1 or min(ready.memory.num_frames, other.num_frames) < config.min_video_frames:
        return make_ready(other, model, ready.share)
    descriptors = ready.frame_descriptors_TD
    if descriptors is not None:
        new = _frame_descriptors(other.features[len(descriptors) :], model)
        descriptors = np.concatenate([descriptors, new])[: other.num_frames]
    layout = _layout(other, config, descriptors)
    visuals = Visuals(layout_batch(layout).to(model.device), features={"video": other.features})
    num_entries = len(layout.memory_index)
    room = _with_room_for(num_entries, ready, model)
    _fill(room, visuals, model)
    keys_values = room.first(num_entries)
    return ReadyMemory(other, layout, keys_values, model.kept_tokens(visuals), descriptors, room)


def _with_room_for(num_entries: int, ready: ReadyMemory, model: HourLlavaModel) -> KeyValueRoom:
    """The room of a memory, with space for so many entries; on the host if the device has none."""
    room = ready.room
    if ready.is_on_host or num_entries <= room.capacity:
        return room
    for capacity in (max(num_entries, 2 * room.capacity), num_entries):
        if fits_on_device(num_key_value_bytes(capacity, model), model.device):
            room.reserve(capacity)
            return room
    _tell_of_host(ready.memory, num_key_value_bytes(num_entries, model))
    return room.on_host(ENTRIES_PER_CHUNK)


def _fill(room: KeyValueRoom, visuals: Visuals, model: HourLlavaModel) -> None:
    """Add the entries that the room does not hold."""
    num_missing = len(visuals.layouts.memory_index) - room.num_entries
    for chunk in cut_into_chunks(max(num_missing, 0) if len(model.memaug.blocks) else 0, ENTRIES_PER_CHUNK):
        start = room.num_entries
        room.append(model.keys_values(visuals, slice(start, start + chunk.stop - chunk.start)))


def _tell_of_host(memory: MemorySnapshot, num_bytes: int) -> None:
    _log.info("keys and values of %r (%.1f GB) stay on the host: each question is slower", memory, num_bytes / 1e9)


def _looks_at_frames(config: HourLlavaConfig) -> bool:
    return config.forgetting.temporal in ("keyframe", "question")


def _layout(
    memory: MemorySnapshot, config: HourLlavaConfig, descriptors_TD: npt.NDArray[np.float32] | None
) -> VisualLayout:
    return video_layout(
        memory.num_frames,
        config,
        seed=memory.content_seed,
        frame_descriptors_TD=descriptors_TD,
        # Question forgetting keeps other frames for each question. Until one is asked, the last frame stands in for it.
        question_descriptor_D=None if descriptors_TD is None else descriptors_TD[-1],
    )


@torch.inference_mode()
def keep_for_question(
    ready: ReadyMemory, model: HourLlavaModel, question_descriptor_D: npt.NDArray[np.floating]
) -> tuple[VisualLayout, Tensor]:
    """Layout and kept tokens [K, D] for one question, with `question` forgetting. Keys and values stay the same."""
    layout = video_layout(
        ready.memory.num_frames,
        model.config,
        seed=ready.memory.content_seed,
        frame_descriptors_TD=ready.frame_descriptors_TD,
        question_descriptor_D=question_descriptor_D,
    )
    layout = dataclasses.replace(layout, memory_index=ready.layout.memory_index)
    visuals = Visuals(layout_batch(layout).to(model.device), features={"video": ready.memory.features})
    return layout, model.kept_tokens(visuals)


def layout_batch(layout: VisualLayout) -> VisualBatch:
    """A batch with this layout only, without a prompt."""
    everything = np.ones(layout.num_visual_tokens, bool)
    batch = batch_visuals([VisualSample(layout, 0, everything, ~everything)])
    assert batch is not None
    return batch


def _frame_descriptors(features_TPC: Tensor, model: HourLlavaModel) -> npt.NDArray[np.float32]:
    means = [
        model.multi_modal_projector(part.to(model.image_newline)).float().mean(1).cpu()
        for part in features_TPC.split(256)
    ]
    return torch.cat(means).numpy()


def num_key_value_bytes(num_entries: int, model: HourLlavaModel) -> int:
    """Size of the keys and values of this number of memory entries, in all blocks together."""
    blocks = model.memaug.blocks
    width = blocks[0].cross_attn.kv_proj.out_features if len(blocks) else 0
    return int(num_entries * width * model.dtype.itemsize * len(blocks))


class ReadyMemories:
    """The memories that were asked last, ready for further questions; the engine's thread alone uses it.

    The least recently asked ones make room: for memories on the device within `max_bytes` and within what is free, for
    memories on the host within a quarter of the machine's memory. A memory leaves when nobody holds it any more.

    Args:
        model: in evaluation mode.
        make_ready: makes a memory ready; experiments give another one, whose memories are made anew when they grow.
        max_bytes: of all memories on the device, unless one alone needs more; by default a quarter of the device's
            memory.
    """

    def __init__(self, model: HourLlavaModel, make_ready: MakeReady = make_ready, max_bytes: int | None = None) -> None:
        self.model = model
        self._make_ready = make_ready
        self._max_bytes = total_memory_bytes(model.device) // 4 if max_bytes is None else max_bytes
        # In the order in which they were asked.
        self._ready: weakref.WeakKeyDictionary[Memory, ReadyMemory] = weakref.WeakKeyDictionary()

    def __len__(self) -> int:
        return len(self._ready)

    @property
    def num_bytes(self) -> int:
        """Size of all memories here, see `ReadyMemory.num_bytes`."""
        return sum(ready.num_bytes for ready in self._ready.values())

    def get(self, memory: Memory, snapshot: MemorySnapshot) -> ReadyMemory:
        """The memory in this state: found, extended from another state, or made.

        Args:
            memory: that is asked.
            snapshot: its state that the question is about.
        """
        known = self._ready.pop(memory, None)
        if known is not None and known.memory.version == snapshot.version:
            if known.memory is not snapshot:  # no frame more, but perhaps another duration or offset
                known = dataclasses.replace(known, memory=snapshot)
            self._ready[memory] = known
            return known
        if self._make_ready is not make_ready:
            known = None  # free the old one first
        num_entries = num_memory_entries(snapshot.num_frames, self.model.config)
        num_bytes = num_key_value_bytes(num_entries, self.model)
        of_prefix = kept_prefix_bytes(snapshot.num_frames, self.model.config, self.model.dtype.itemsize)
        if known is None:
            self._make_room(num_bytes + of_prefix)
            newest = ready = self._make_ready(snapshot, self.model)
        else:
            must_grow = not known.is_on_host and num_entries > known.room.capacity
            self._make_room((2 * num_bytes if must_grow else 0) + of_prefix)
            ready = extended(known, snapshot, self.model)
            newest = ready if snapshot.version > known.memory.version else known
        self._ready[memory] = newest
        return ready

    def release(self) -> None:
        """Free all of them."""
        self._ready.clear()

    def _make_room(self, num_bytes: int) -> None:
        """Let go of others until so many bytes fit on the device, and until those on the host are within bounds."""
        device = self.model.device
        for is_on_host, most in ((False, self._max_bytes - num_bytes), (True, total_memory_bytes("cpu") // 4)):
            others = [(memory, ready) for memory, ready in self._ready.items() if ready.is_on_host is is_on_host]
            used = sum(ready.num_bytes for _, ready in others)
            while others and (used > most or not (is_on_host or fits_on_device(num_bytes, device))):
                memory, ready = others.pop(0)
                used -= ready.num_bytes
                del self._ready[memory]
                del memory, ready
