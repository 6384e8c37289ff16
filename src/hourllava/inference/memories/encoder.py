"""The identity of a vision encoder: a digest of its weights that takes milliseconds.

Names do not identify a tower: one tower comes under many names and dtypes, and fine-tuned towers keep the old name.
Hashing all weights would take seconds and a copy from the GPU. A few hundred numbers of every parameter are enough,
because a training step changes some of them.
"""

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from hourllava.errors import InputError

if TYPE_CHECKING:
    from hourllava.model.trunk import HourLlavaModel

# Of each parameter, up to twice this number of values is hashed.
_SAMPLES_PER_PARAMETER = 256

# Settings of a tower that change its output but no parameter's shape.
_VISION_SETTINGS = ("model_type", "num_attention_heads", "image_size", "patch_size", "hidden_act", "layer_norm_eps")


@dataclass(frozen=True)
class EncoderIdentity:
    """Identity of the vision encoder that made features. Models of equal identity can share memories.

    Attributes:
        digest: hexadecimal, from `encoder_identity`.
        feature_width: C, numbers per token.
        grid: tokens along one side of a frame.

    Raises:
        InputError: the digest is no text, or a number is no whole number above 0.
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
    """The identity of a model's vision tower, with normalisation of pixels and pooling of features.

    It is the same on every device, for float32 and bfloat16 copies of a checkpoint, and for checkpoints that differ
    only behind the tower. Evenly spaced weights are compared in bfloat16: changes of single weights in between are not
    noticed, and a float16 copy of float32 weights may count as another encoder.
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
            continue  # not used, see BypassedLayerNorm
        _add_sample(digest, name, parameter)
    return EncoderIdentity(digest.hexdigest(), config.vision_feature_width, config.video_grid)


def weights_digest(model: torch.nn.Module) -> str:
    """Hexadecimal digest of a model's weights: evenly spaced values of all parameters, in bfloat16."""
    digest = hashlib.sha256()
    for name, parameter in sorted(model.named_parameters()):
        _add_sample(digest, name, parameter)
    return digest.hexdigest()


def _add_sample(digest: "hashlib._Hash", name: str, parameter: torch.Tensor) -> None:
    flat = parameter.detach().flatten()
    sample = flat[:: max(1, len(flat) // _SAMPLES_PER_PARAMETER)].to(torch.bfloat16)
    digest.update(f"{name} {list(parameter.shape)}".encode())
    digest.update(sample.view(torch.int16).cpu().numpy().tobytes())
