"""A memory made ready for one model: layout, keys and values, kept tokens.

None of it depends on the question (except that `question` forgetting chooses other kept tokens), so it is made once per
memory: a further question costs no encoding, no projection and no key or value. Keys and values that do not fit beside
the model stay on the host in chunks, and MemAug attends one chunk after the other.
"""

import dataclasses
import logging
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from hourllava.errors import ConfigError
from hourllava.inference.devices import fits_on_device
from hourllava.inference.snapshot import MemorySnapshot
from hourllava.model.batch import VisualBatch, VisualSample, batch_visuals
from hourllava.model.config import HourLlavaConfig
from hourllava.model.forgetting import evenly_spaced
from hourllava.model.layout import NEWLINE, VisualLayout, video_layout
from hourllava.model.memaug import MemoryKeysValues
from hourllava.model.trunk import HourLlavaModel
from hourllava.model.visuals import Visuals

# Memory entries projected at a time. 262,144 are an hour and 8 minutes: 1.1 GB of tokens of width 2,048 in bf16.
ENTRIES_PER_CHUNK = 2**18

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class ReadyMemory:
    """A memory that can be asked.

    Attributes:
        memory: that is ready.
        layout: its kept tokens are seeded by the video, see `Memory.content_seed`.
        keys_values: of the memory, for each MemAug block.
        kept_tokens: [K, D] projected, in the order of `layout`.
        frame_descriptors_TD: mean projected token of each frame; None if forgetting does not look at frames.
    """

    memory: MemorySnapshot
    layout: VisualLayout
    keys_values: list[MemoryKeysValues]
    kept_tokens: Tensor
    frame_descriptors_TD: npt.NDArray[np.float32] | None

    @property
    def frame_of_entry(self) -> npt.NDArray[np.int64]:
        """[M] the frame that each memory entry belongs to; a newline belongs to the frame before it."""
        frame_tokens = self.layout.num_patch_tokens // self.memory.num_frames
        index = self.layout.memory_index
        frames = np.where(index == NEWLINE, 0, index // frame_tokens)
        # Frames come in order, and a newline follows the tokens of its frame.
        return np.maximum.accumulate(frames)


@torch.inference_mode()
def make_ready(memory: MemorySnapshot, model: HourLlavaModel, share: float = 1.0) -> ReadyMemory:
    """Project a memory and compute MemAug's keys and values.

    Args:
        memory: of the same encoder.
        model: in evaluation mode.
        share: of the frames that MemAug can look up; below 1 only for experiments, see `thinned`.

    Raises:
        ConfigError: the share is outside 0 to 1, or below 1 where forgetting depends on the question.
    """
    config = model.config
    check_share(share, config)
    descriptors = None
    if config.forgetting.temporal in ("keyframe", "question"):
        descriptors = _frame_descriptors(memory.features, model)
    # Question forgetting keeps other frames for each question. Until one is asked, the last frame stands in for it.
    any_question = None if descriptors is None else descriptors[-1]
    layout = video_layout(
        memory.num_frames,
        config,
        seed=memory.content_seed,
        frame_descriptors_TD=descriptors,
        question_descriptor_D=any_question,
    )
    if share < 1:
        layout = thinned(layout, model.config.video_frame_tokens, share)
    num_entries = len(layout.memory_index)
    num_bytes = _num_key_value_bytes(num_entries, model)
    storage = None if fits_on_device(num_bytes, model.device) else "cpu"
    if storage is not None:
        _log.info("keys and values of %r (%.1f GB) stay on the host: each question is slower", memory, num_bytes / 1e9)
    features = memory.features
    if fits_on_device(features.nbytes, model.device):
        features = features.to(model.device)
    visuals = Visuals(layout_batch(layout).to(model.device), features={"video": features})
    if num_entries <= ENTRIES_PER_CHUNK and storage is None:
        projected = model.remember(visuals)
    else:
        projected = model.remember_in_chunks(visuals, ENTRIES_PER_CHUNK, storage)
    return ReadyMemory(memory, layout, projected.keys_values, projected.kept_tokens, descriptors)


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


def check_share(share: float, config: HourLlavaConfig) -> None:
    """Check a share for `make_ready`.

    Raises:
        ConfigError: as `make_ready`.
    """
    if not 0 <= share <= 1:
        raise ConfigError(f"memory_share is {share:g}; use 0 (kept tokens only) to 1 (all of the memory)")
    if share < 1 and config.forgetting.temporal == "question":
        raise ConfigError("memory_share below 1 needs the same kept tokens for all questions; keep 1 with question")


def thinned(layout: VisualLayout, frame_tokens: int, share: float) -> VisualLayout:
    """The layout with fewer frames in the memory: an even share of them, and the kept tokens.

    The remaining entries keep their positions, so the decoder's prompt is the same and MemAug has less to look up (the
    paper's ablation of the repository's size). With share 0 only the kept tokens remain.

    Args:
        layout: of a whole video.
        frame_tokens: patch tokens of a frame.
        share: of the frames, 0 to 1.
    """
    num_frames = len(layout.memory_index) // (frame_tokens + 1)
    is_frame_left = np.zeros(num_frames, bool)
    is_frame_left[evenly_spaced(num_frames, round(num_frames * share))] = True
    is_left = is_frame_left.repeat(frame_tokens + 1)
    is_left[layout.kept_index] = True
    entries = np.flatnonzero(is_left)
    return dataclasses.replace(
        layout,
        memory_index=layout.memory_index[entries],
        memory_positions=layout.memory_positions[entries],
        kept_index=np.searchsorted(entries, layout.kept_index),
    )


def layout_batch(layout: VisualLayout) -> VisualBatch:
    """A batch with this layout only, without a prompt."""
    everything = np.ones(len(layout.kept_index), bool)
    batch = batch_visuals([VisualSample(layout, 0, everything, ~everything)])
    assert batch is not None
    return batch


def _frame_descriptors(features_TPC: Tensor, model: HourLlavaModel) -> npt.NDArray[np.float32]:
    means = [
        model.multi_modal_projector(part.to(model.image_newline)).float().mean(1).cpu()
        for part in features_TPC.split(256)
    ]
    return torch.cat(means).numpy()


def _num_key_value_bytes(num_entries: int, model: HourLlavaModel) -> int:
    """Size of the keys and values of this number of memory entries, in all blocks together."""
    blocks = model.memaug.blocks
    width = blocks[0].cross_attn.kv_proj.out_features if len(blocks) else 0
    return int(num_entries * width * model.dtype.itemsize * len(blocks))


MakeReady = Callable[..., ReadyMemory]


class ReadyMemories:
    """STAND-IN"""

    def __init__(self, model, make_ready=make_ready):
        self.model, self.make_ready = model, make_ready
        self.kept = {}

    def get(self, memory, snapshot):
        ready = self.kept.get(id(memory))
        if ready is None or ready.memory.version != snapshot.version:
            ready = self.kept[id(memory)] = self.make_ready(snapshot, self.model)
        return ready

    def release(self):
        self.kept.clear()
