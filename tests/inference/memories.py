"""Memories of random features for tests that watch nothing."""

from typing import Any

import numpy as np
import torch

from hourllava.inference.engine import HourLlava
from hourllava.inference.memories.memory import Memory
from hourllava.inference.memories.snapshot import WatchedSource


def random_memory(
    engine: HourLlava, num_frames: int = 40, seed: int = 0, start_seconds: float = 0.0, **fields: Any
) -> Memory:
    """A memory at 1 FPS that fits the tests' model."""
    generator = torch.Generator().manual_seed(seed)
    times = start_seconds + np.arange(num_frames, dtype=np.float64)
    features = torch.randn(num_frames, 16, 24, generator=generator).bfloat16()
    given = {
        "fps": 1.0,
        "duration_seconds": float(num_frames),
        "source": WatchedSource("random"),
        "encoder": engine.encoder,
    }
    return Memory(features, times, times, **{**given, **fields})


def changed(memory: Memory, **fields: Any) -> Memory:
    """A memory of the same frames with other fields."""
    snapshot = memory.snapshot()
    names = ("features", "timestamps_seconds", "sample_seconds", "fps", "duration_seconds", "source", "encoder", "gaps")
    given = {name: getattr(snapshot, name) for name in (*names, "player_offset_seconds")}
    return Memory(**{**given, **fields})
