"""Which vision encoder made a memory: an identity that is cheap to compute and follows the weights, not their name.

Checkpoints of one tower come under many names and dtypes, and fine-tuned towers under the old name, so the weights
themselves are hashed. All of them would take seconds and a copy from the GPU; a few hundred numbers of every parameter
take milliseconds, and no training step leaves all of those alone.
"""

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from hourllava.errors import InputError

if TYPE_CHECKING:
    from hourllava.model.trunk import HourLlavaModel

# Up to twice as many numbers are taken of each parameter.
_SAMPLES_PER_PARAMETER = 256

# What of a tower's configuration changes its output without changing the shape of a parameter.
_VISION_SETTINGS = ("model_type", "num_attention_heads", "image_size", "patch_size", "hidden_act", "layer_norm_eps")


@dataclass(frozen=True)
class EncoderIdentity:
    """What made the features of a memory: features of equal identity can be exchanged.

    Attributes:
        digest: hexadecimal, from `encoder_identity`.
        feature_width: C, numbers per token.
        grid: tokens along one side of a frame.

    Raises:
        InputError: these are no text and no whole numbers above 0.
    """

    digest: str
    feature_width: int
    grid: int

    def __post_init__(self) -> None:
        numbers = (self.feature_width, self.grid)
        if not isinstance(self.digest, str) or not all(type(number) is int and number > 0 for number in numbers):
            raise InputError(f"an encoder is a digest (text), a width and a grid (whole numbers above 0), got {self}")

    @property
    def frame_shape(self) -> tuple[int, int]:
        """(tokens, width) of one frame's features."""
        return self.grid**2, self.feature_width


def encoder_identity(model: "HourLlavaModel") -> EncoderIdentity:
    """The identity of a model's vision tower with all that is done to pixels before and to features after it.

    The same for float32 and bfloat16 copies of a checkpoint, on every device, and for checkpoints that differ only in
    what comes after the tower. Weights are compared as bfloat16 at evenly spaced places: single numbers changed in
    between are not noticed, and a float16 copy of float32 weights may count as another encoder.
    """
    config = model.config
    settings = {name: getattr(config.vision_config, name, None) for name in _VISION_SETTINGS}
    settings |= {
        "num_layers": config.num_vision_layers,
        "image_mean": list(config.image_mean),
        "image_std": list(config.image_std),
        "video_grid": config.video_grid,
    }
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    for name, parameter in sorted(model.vision_tower.named_parameters()):
        if name.startswith("post_layernorm."):
            continue  # a BypassedLayerNorm
        _add_sample(digest, name, parameter)
    return EncoderIdentity(digest.hexdigest(), config.vision_feature_width, config.video_grid)


def weights_digest(model: torch.nn.Module) -> str:
    """Hexadecimal identity of all weights of a model, of samples and in bfloat16 as `encoder_identity` does."""
    digest = hashlib.sha256()
    for name, parameter in sorted(model.named_parameters()):
        _add_sample(digest, name, parameter)
    return digest.hexdigest()


def _add_sample(digest: "hashlib._Hash", name: str, parameter: torch.Tensor) -> None:
    flat = parameter.detach().flatten()
    sample = flat[:: max(1, len(flat) // _SAMPLES_PER_PARAMETER)].to(torch.bfloat16)
    digest.update(f"{name} {list(parameter.shape)}".encode())
    digest.update(sample.view(torch.int16).cpu().numpy().tobytes())
