"""The vision tower, its input pixels, and the pooling and projection of its features.

Towers are patch-token models of the families in `hourllava.model.backbones`. Features are bare hidden states, as in the
release: layers after `vision_feature_layer` are not built, the final norm and the pooling head are not applied.

Shapes: N images or frames, g patches along a side, P patches, C tower width, D decoder width.
"""

import copy
import functools
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from transformers import AutoModel, PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer

from hourllava.errors import InputError
from hourllava.model.config import HourLlavaConfig
from hourllava.model.layout import best_tile_grid


class BypassedLayerNorm(nn.LayerNorm):
    """A norm that keeps its weights for checkpoints and returns its input: the release never applies it."""

    def forward(self, input: Tensor) -> Tensor:
        """The input itself."""
        return input


def build_vision_tower(config: HourLlavaConfig) -> PreTrainedModel:
    """The vision tower up to `config.vision_feature_layer`, without pooling head."""
    vision_config = copy.deepcopy(config.vision_config)
    vision_config.num_hidden_layers = config.num_vision_layers
    vision_config.vision_use_head = False  # a setting of SigLIP; other towers ignore it
    tower = AutoModel.from_config(vision_config)
    final_norm = getattr(tower, "post_layernorm", None)
    assert isinstance(final_norm, nn.LayerNorm), "every verified family has one"
    tower.post_layernorm = BypassedLayerNorm(final_norm.normalized_shape, eps=final_norm.eps).requires_grad_(False)
    return tower


class MultiModalProjector(GradientCheckpointingLayer):
    """Patch features to decoder width: Linear, exact GELU, Linear.

    Its activations for an hour take gigabytes and cost milliseconds to recompute, so checkpointing includes it.
    """

    def __init__(self, vision_width: int, width: int) -> None:
        super().__init__()
        self.linear_1 = nn.Linear(vision_width, width)
        self.linear_2 = nn.Linear(width, width)

    def forward(self, features_PC: Tensor) -> Tensor:
        """[P, C] -> [P, D]."""
        return self.linear_2(F.gelu(self.linear_1(features_PC)))


def patch_features(tower: PreTrainedModel, pixels_N3HW: Tensor, config: HourLlavaConfig) -> Tensor:
    """[N, 3, H, W] pixels, see `normalised` -> [N, g * g, C] features in raster order, without class token."""
    num_patches = (tower.config.image_size // tower.config.patch_size) ** 2
    # Channels last: the patch embedding then writes tokens in order, and every later layer reads them in order.
    # Otherwise its transposed output runs through the whole tower: 400 frames/s instead of 660 on an H100.
    pixels_N3HW = normalised(pixels_N3HW, config).to(tower.dtype, memory_format=torch.channels_last)
    features: Tensor = tower(pixel_values=pixels_N3HW).last_hidden_state
    return features[:, -num_patches:]


def pool_features(features_NPC: Tensor, grid: int) -> Tensor:
    """[N, g * g, C] -> [N, grid * grid, C] by bilinear interpolation (the release's choice; the paper says average)."""
    side = round(features_NPC.shape[1] ** 0.5)
    if side * side != features_NPC.shape[1]:
        raise InputError(f"features of a frame must form a square grid, got {features_NPC.shape[1]} tokens a frame")
    if side == grid:
        return features_NPC
    return resize_grid(features_NPC.unflatten(1, (side, side)), grid, grid).flatten(1, 2)


def flat_features(features: Sequence[Tensor]) -> Tensor:
    """[P, C] of several [N, tokens, C]. A single one is not copied: a day of video takes 13 GB."""
    flat = [part.flatten(0, 1) for part in features]
    return flat[0] if len(flat) == 1 else torch.cat(flat)


def resize_grid(grid_NHWC: Tensor, new_height: int, new_width: int) -> Tensor:
    """[N, h, w, C] -> [N, new_height, new_width, C], bilinear, pixel centres not aligned to corners."""
    grid_NCHW = F.interpolate(grid_NHWC.permute(0, 3, 1, 2), size=(new_height, new_width), mode="bilinear")
    return grid_NCHW.permute(0, 2, 3, 1)


def frame_pixels(frames_NHW3: Tensor, config: HourLlavaConfig) -> Tensor:
    """Video frames in the tower's size, in one batch on the frames' device.

    Differs by at most 1/255 from Pillow's bicubic filter; frames of the right size are unchanged. Pixels stay bytes up
    to the tower's device, because `normalised` ones are four times as large to copy.

    Args:
        frames_NHW3: uint8 RGB.
        config: image size.

    Returns:
        [N, 3, image_size, image_size] uint8
    """
    if frames_NHW3.dtype != torch.uint8 or frames_NHW3.ndim != 4 or frames_NHW3.shape[-1] != 3:
        raise InputError(f"frames must be uint8 [N, H, W, 3], got {frames_NHW3.dtype} {list(frames_NHW3.shape)}")
    size = config.vision_config.image_size
    pixels_N3HW = frames_NHW3.permute(0, 3, 1, 2)
    height = pixels_N3HW.shape[-2]
    for shape in ((height, size), (size, size)):  # as Pillow: first along rows, rounded to bytes, then along columns
        if pixels_N3HW.shape[-2:] != shape:
            resized = F.interpolate(pixels_N3HW.float(), size=shape, mode="bicubic", antialias=True)
            pixels_N3HW = resized.round().clamp(0, 255).byte()
    return pixels_N3HW


@functools.cache  # a copy to a GPU waits for all work that was queued there
def _per_colour(values: tuple[float, ...], device: torch.device) -> Tensor:
    with torch.inference_mode(False):  # training uses it, too
        return torch.tensor(values, device=device).view(3, 1, 1)


def normalised(pixels_N3HW: Tensor, config: HourLlavaConfig) -> Tensor:
    """Bytes [N, 3, H, W] to the tower's input: float32, normalised by the configuration's mean and standard deviation.

    Floating-point pixels count as normalised and are returned as they are.
    """
    if pixels_N3HW.dtype != torch.uint8:
        return pixels_N3HW
    mean, std = (_per_colour(tuple(part), pixels_N3HW.device) for part in (config.image_mean, config.image_std))
    return (pixels_N3HW.float() / 255 - mean) / std


def tiled_image_pixels(image: Image.Image, config: HourLlavaConfig) -> Tensor:
    """One image as its base view and its tiles (LLaVA-OneVision's anyres).

    The base view is the whole image squeezed to a square. The tiles are cut from the image scaled into its best tile
    grid and centred on black.

    Returns:
        [1 + tiles, 3, image_size, image_size] uint8
    """
    image = image.convert("RGB")
    size = config.vision_config.image_size
    tiles = best_tile_grid(image.width, image.height, config)
    canvas_width, canvas_height = tiles.columns * size, tiles.rows * size
    width_scale, height_scale = canvas_width / image.width, canvas_height / image.height
    if width_scale < height_scale:
        fitted = (canvas_width, min(int(np.ceil(image.height * width_scale)), canvas_height))
    else:
        fitted = (min(int(np.ceil(image.width * height_scale)), canvas_width), canvas_height)
    canvas = Image.new("RGB", (canvas_width, canvas_height))
    corner = ((canvas_width - fitted[0]) // 2, (canvas_height - fitted[1]) // 2)
    canvas.paste(image.resize(fitted, Image.Resampling.BICUBIC), corner)
    corners = [(left, top) for top in range(0, canvas_height, size) for left in range(0, canvas_width, size)]
    views = [canvas.crop((left, top, left + size, top + size)) for left, top in corners]
    return _views_to_pixels([image, *views], config)


def square_image_pixels(images: Sequence[Image.Image], config: HourLlavaConfig) -> Tensor:
    """Several images, each one view: padded to a square with the mean colour, then resized.

    Returns:
        [N, 3, image_size, image_size] uint8
    """
    mean_colour = tuple(int(255 * mean) for mean in config.image_mean)
    squares = []
    for image in images:
        image = image.convert("RGB")
        side = max(image.size)
        square = Image.new("RGB", (side, side), mean_colour)
        square.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
        squares.append(square)
    return _views_to_pixels(squares, config)


def _views_to_pixels(views: Sequence[Image.Image], config: HourLlavaConfig) -> Tensor:
    size = config.vision_config.image_size
    resized = [np.asarray(view.resize((size, size), Image.Resampling.BICUBIC)) for view in views]
    return frame_pixels(torch.from_numpy(np.stack(resized)), config)
