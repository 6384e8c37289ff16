"""Pixels and features against Pillow, transformers' own towers and torch's own pooling."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from transformers import CLIPVisionConfig, CLIPVisionModel, SiglipVisionModel

from conftest import tiny_config
from hourllava.errors import ConfigError, InputError
from hourllava.model.config import HourLlavaConfig
from hourllava.model.vision import build_vision_tower, frame_pixels, normalised, patch_features, pool_features


@pytest.mark.parametrize(("height", "width"), [(90, 160), (24, 24), (17, 33), (1, 1), (720, 405), (23, 700)])
def test_frames_are_within_one_step_of_pillows_bicubic(height, width):
    config = tiny_config()
    frames = np.random.default_rng(height).integers(0, 256, (3, height, width, 3), dtype=np.uint8)
    ours = frame_pixels(torch.from_numpy(frames), config)
    for frame, pixels in zip(frames, ours):
        resized = np.asarray(Image.fromarray(frame).resize((24, 24), Image.Resampling.BICUBIC)).astype(np.int16)
        expected = torch.from_numpy(resized).permute(2, 0, 1)
        assert (pixels.short() - expected).abs().max() <= 1


def test_normalisation_is_per_channel():
    config = tiny_config(image_mean=[0.1, 0.2, 0.3], image_std=[0.4, 0.5, 0.6])
    white = normalised(torch.full((1, 3, 24, 24), 255, dtype=torch.uint8), config)
    torch.testing.assert_close(white[0, :, 0, 0], torch.tensor([0.9 / 0.4, 0.8 / 0.5, 0.7 / 0.6]))
    assert normalised(white, config) is white


@pytest.mark.parametrize("frames", [torch.zeros(2, 9, 9, 3), torch.zeros(9, 9, 3, dtype=torch.uint8)])
def test_frames_of_another_form_are_refused(frames):
    with pytest.raises(InputError, match=r"must be uint8 \[N, H, W, 3\]"):
        frame_pixels(frames, tiny_config())


def test_features_are_siglips_hidden_state_before_its_last_layer():
    config = tiny_config()
    torch.manual_seed(0)
    whole = SiglipVisionModel._from_config(config.vision_config).eval()
    tower = build_vision_tower(config).eval()
    missing, unexpected = tower.load_state_dict(whole.state_dict(), strict=False)
    assert not missing
    assert {name.split(".")[0] for name in unexpected} == {"encoder", "head"}  # the last layer and the head
    pixels = torch.randn(2, 3, 24, 24)
    with torch.no_grad():
        expected = whole(pixels, output_hidden_states=True).hidden_states[-2]
        torch.testing.assert_close(patch_features(tower, pixels, config), expected)


def test_features_of_clip_leave_its_class_token_out():
    vision = {**tiny_config().vision_config.to_dict(), "model_type": "clip_vision_model"}
    config = tiny_config(vision_config=vision, vision_feature_layer=-1)
    assert isinstance(config.vision_config, CLIPVisionConfig)
    torch.manual_seed(0)
    whole = CLIPVisionModel._from_config(config.vision_config).eval()
    tower = build_vision_tower(config).eval()
    tower.load_state_dict(whole.state_dict())
    pixels = torch.randn(2, 3, 24, 24)
    with torch.no_grad():
        expected = whole(pixels, output_hidden_states=True).hidden_states[-1][:, 1:]
        torch.testing.assert_close(patch_features(tower, pixels, config), expected)


def test_pooling_is_bilinear():
    features = torch.randn(2, 27 * 27, 5)
    grid = features.view(2, 27, 27, 5).permute(0, 3, 1, 2)
    expected = F.interpolate(grid, size=(8, 8), mode="bilinear", align_corners=False).permute(0, 2, 3, 1).flatten(1, 2)
    torch.testing.assert_close(pool_features(features, 8), expected)
    pooled = torch.randn(2, 64, 5)
    assert pool_features(pooled, 8) is pooled
    with pytest.raises(InputError, match="must form a square grid, got 60 tokens"):
        pool_features(torch.randn(2, 60, 5), 8)


@pytest.mark.parametrize(
    ("field", "complaint"),
    [
        ({"video_grid": 7}, "video_grid is 7; it must lie between 1 and the tower's 6"),
        ({"vision_feature_layer": 0}, "must lie between -3 and -1"),
        ({"min_video_frames": 0}, "min_video_frames is 0"),
        ({"memaug": {"depth": 4}}, "memaug has no setting depth; known: "),
        ({"memaug": {"rotary_fraction": 2}}, "rotary_fraction is 2"),
        ({"image_mean": [0.5]}, "image_mean needs three numbers"),
        ({"text_config": {"model_type": "qwen2", "hidden_size": 30, "num_attention_heads": 4}}, "not a multiple"),
    ],
)
def test_configurations_are_checked(field, complaint):
    with pytest.raises(ConfigError, match=complaint):
        tiny_config(**field)


def test_presets():
    with pytest.raises(ConfigError, match="choose one of hourllava-3b, hourllava-7b, hourllava-nano"):
        HourLlavaConfig.preset("hourllava-70b")
    nano = HourLlavaConfig.preset("hourllava-nano")
    assert (nano.patch_grid, nano.video_frame_tokens, nano.num_vision_layers) == (8, 16, 6)
