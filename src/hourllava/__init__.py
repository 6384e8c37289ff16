"""hourllava: watch a video once, ask it anything, for as long as you like."""

import importlib
from typing import TYPE_CHECKING, Any

from hourllava.openers import register_opener

if TYPE_CHECKING:
    from hourllava.inference.cache import MemoryCache
    from hourllava.inference.engine import HourLlava
    from hourllava.inference.memory import Memory
    from hourllava.model.checkpoint import export_released, load_model
    from hourllava.model.config import HourLlavaConfig
    from hourllava.model.messages import Video
    from hourllava.model.modeling import HourLlavaForConditionalGeneration
    from hourllava.model.processor import HourLlavaProcessor

__version__ = "0.1.0"

register_opener(".world.json", "hourllava.world.rendered:RenderedVideo")

# Loaded when first asked for: the processes that decode video import this package too, and must not wait for torch.
_HOMES = {
    "HourLlava": "hourllava.inference.engine",
    "HourLlavaConfig": "hourllava.model.config",
    "HourLlavaForConditionalGeneration": "hourllava.model.modeling",
    "HourLlavaProcessor": "hourllava.model.processor",
    "Memory": "hourllava.inference.memory",
    "MemoryCache": "hourllava.inference.cache",
    "Video": "hourllava.model.messages",
    "export_released": "hourllava.model.checkpoint",
    "load_model": "hourllava.model.checkpoint",
}

__all__ = [
    "HourLlava",
    "HourLlavaConfig",
    "HourLlavaForConditionalGeneration",
    "HourLlavaProcessor",
    "Memory",
    "MemoryCache",
    "Video",
    "export_released",
    "load_model",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'hourllava' has no attribute {name!r}")
    # Whichever comes first: with it transformers' Auto classes know the configuration, the models and the processor.
    importlib.import_module("hourllava.model.processor")
    return getattr(importlib.import_module(_HOMES[name]), name)
