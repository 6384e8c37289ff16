"""A tiny model, also for processes that would import pytest for nothing; tests import it from `conftest`."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hourllava.model.config import HourLlavaConfig
    from hourllava.model.modeling import HourLlavaForConditionalGeneration


def tiny_config(**overrides: Any) -> "HourLlavaConfig":
    """A model of some 100,000 parameters: 24-pixel images of 6 x 6 patches, pooled to 4 x 4, memory from 8 frames."""
    from hourllava.model.config import HourLlavaConfig

    fields: dict[str, Any] = {
        "text_config": {
            "model_type": "qwen2",
            "vocab_size": 512,
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 4096,
        },
        "vision_config": {
            "model_type": "siglip_vision_model",
            "hidden_size": 24,
            "intermediate_size": 48,
            "num_hidden_layers": 3,
            "num_attention_heads": 2,
            "image_size": 24,
            "patch_size": 4,
        },
        "video_grid": 4,
        "min_video_frames": 8,
        "max_image_tiles": 3,
    }
    return HourLlavaConfig(**{**fields, **overrides})


def tiny_model(config: "HourLlavaConfig | None" = None, seed: int = 0) -> "HourLlavaForConditionalGeneration":
    """A random model in float64, so that equal computations agree to 1e-9."""
    import torch

    from hourllava.model.modeling import HourLlavaForConditionalGeneration

    torch.manual_seed(seed)
    model = HourLlavaForConditionalGeneration(config or tiny_config()).double().eval()
    for parameter in model.parameters():  # biases and norms too, so that nothing hides behind zeros and ones
        torch.nn.init.normal_(parameter, std=0.3)
    return model
