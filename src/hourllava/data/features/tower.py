"""The vision tower of a checkpoint without projector, MemAug and decoder: feature pre-extraction needs no more.

The tower is 0.8 GB of a 7B checkpoint's 16 GB. All batches have the same shape, so the other frames of a batch do not
change a frame's features, not even in the last bit, and a run that was stopped and started again ends with the same
bytes. Tests check this on the CPU, and `pytest -m gpu` on the GPU of the machine.
"""

from pathlib import Path
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor
from transformers import PreTrainedModel, initialization

from hourllava.errors import CheckpointError
from hourllava.inference.memories.encoder import EncoderIdentity, encoder_identity
from hourllava.model.checkpoint import find_checkpoint, is_released_layout, load_config
from hourllava.model.checkpoint_files import read_tensors
from hourllava.model.config import HourLlavaConfig
from hourllava.model.nano import NANO, load_nano
from hourllava.model.released import released_name
from hourllava.model.vision import build_vision_tower, frame_pixels, patch_features, pool_features

if TYPE_CHECKING:
    from hourllava.model.trunk import HourLlavaModel

PREFIX = "model.vision_tower."


class Tower:
    """A vision tower with the steps before it (frames to pixels) and after it (pooling).

    Args:
        config: of the whole model.
        vision_tower: in evaluation mode, on its device.
        batch_frames: frames of every batch; black frames fill a smaller batch up.
    """

    def __init__(self, config: HourLlavaConfig, vision_tower: PreTrainedModel, batch_frames: int) -> None:
        self.config = config
        self.vision_tower = vision_tower
        self.batch_frames = batch_frames
        self.image_pixels: int = config.vision_config.image_size

    @property
    def identity(self) -> EncoderIdentity:
        """The identity of the whole model's encoder, whose features are interchangeable with these."""
        return encoder_identity(cast("HourLlavaModel", self))  # reads only `config` and `vision_tower`

    @torch.inference_mode()
    def encode(self, frames_NHW3: Tensor) -> Tensor:
        """uint8 RGB [N <= batch_frames, image_pixels, image_pixels, 3] -> bfloat16 [N, grid * grid, C], on the device.

        A GPU may still be computing the result: `.cpu()` waits for it.
        """
        num_frames = len(frames_NHW3)
        assert 0 < num_frames <= self.batch_frames
        if num_frames < self.batch_frames:
            filling = frames_NHW3.new_zeros(self.batch_frames - num_frames, *frames_NHW3.shape[1:])
            frames_NHW3 = torch.cat([frames_NHW3, filling])
        if self.vision_tower.device.type == "cuda":
            frames_NHW3 = (
                frames_NHW3.pin_memory()
            )  # otherwise the copy waits for the last batch, and the GPU for the copy
        pixels = frame_pixels(frames_NHW3.to(self.vision_tower.device, non_blocking=True), self.config)
        features = pool_features(patch_features(self.vision_tower, pixels, self.config), self.config.video_grid)
        return features[:num_frames].bfloat16()


def load_tower(name: str | Path, device: torch.device, dtype: torch.dtype, batch_frames: int) -> Tower:
    """Load the tower of `"nano"`, of a folder of any layout, or of a name on the hub; no other tensors are read.

    Raises:
        CheckpointError: no checkpoint there, damaged or pickled weights, or tensors of the tower missing or misshapen.
    """
    if str(name) == NANO:
        model, _ = load_nano(device=device, dtype=dtype)
        return Tower(model.config, model.model.vision_tower, batch_frames)
    folder = find_checkpoint(name)
    config, released, stored = load_config(folder), is_released_layout(folder), read_tensors(folder)
    with initialization.no_init_weights():  # 400 million random numbers take 10 s of a core
        tower = build_vision_tower(config)
    state: dict[str, Tensor] = {}
    for key, expected in tower.state_dict().items():
        stored_name = released_name(PREFIX + key) if released else PREFIX + key
        if stored_name not in stored:
            raise CheckpointError(f"{folder} lacks {stored_name}; the download may be incomplete")
        if stored[stored_name].shape != expected.shape:
            raise CheckpointError(
                f"{stored_name} has shape {list(stored[stored_name].shape)} in {folder}, but its config.json makes it "
                f"{list(expected.shape)}; weights and config.json belong to different models"
            )
        state[key] = stored[stored_name]
    tower.to(device, dtype).load_state_dict(state)
    return Tower(config, tower.eval(), batch_frames)
