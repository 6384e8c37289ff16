"""Pixels of a packed batch: which frames the vision tower gets."""

import numpy as np
import pytest
import torch

from hourllava.model.inputs import collate_packed
from hourllava.model.messages import Video
from hourllava.model.processor import HourLlavaProcessor
from tiny import tiny_config


def shown(processor, frames_NHW3):
    """The frames that a packed batch holds for a video of these."""
    video = Video(float(len(frames_NHW3)), frames=frames_NHW3)
    turns = [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "That."}]
    batch = collate_packed([processor.encode_record(turns, video=video)], processor.config.visual_token_id)
    return batch["pixel_values_videos"].permute(0, 2, 3, 1)


@pytest.mark.parametrize("side", [32, 30, 31])  # bytes of a frame: a multiple of 8, of 4, an odd number
@pytest.mark.parametrize("contiguous", [True, False])
def test_only_frames_that_equal_the_frame_before_are_left_out(tokenizer, side, contiguous):
    config = tiny_config()
    config.vision_config.image_size = side
    processor = HourLlavaProcessor(tokenizer, config)
    rng = np.random.default_rng(side)
    kept = rng.integers(0, 256, (6, side, side, 3), np.uint8)
    for number, place in enumerate([0, -1, kept[0].size // 2], 1):  # these differ in one byte only
        kept[number] = kept[number - 1]
        kept[number].reshape(-1)[place] ^= 1
    kept[5] = kept[0]  # a frame that comes back
    frames = torch.from_numpy(kept.repeat([1, 3, 1, 2, 1, 4], axis=0))
    if not contiguous:
        frames = frames.permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1)
    assert torch.equal(shown(processor, frames), torch.from_numpy(kept))
