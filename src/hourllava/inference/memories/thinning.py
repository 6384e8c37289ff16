"""Memories with fewer frames, for experiments on how much of a memory is needed."""

import dataclasses

import numpy as np

from hourllava.errors import ConfigError
from hourllava.model.config import HourLlavaConfig
from hourllava.model.forgetting import evenly_spaced
from hourllava.model.layout import VisualLayout


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
