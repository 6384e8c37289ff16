"""Whether a video continues a memory: the last remembered samples are read again and compared.

Pictures are compared, because the digest of a growing file changes all the time.
"""

import numpy as np
import torch
from torch import Tensor

from hourllava.errors import MemoryFileError
from hourllava.inference.memories.snapshot import MemorySnapshot
from hourllava.video import FrameBatch

NUM_COMPARED = 4
"""Number of samples that are read again."""

# Largest allowed distance of a token's features from the remembered ones, relative to their length. With nano, float32
# and bfloat16 differ by 0.006, noise of 6 levels in each pixel by 0.03 (median) to 0.16. The next second of a moving
# scene, or another video, differs by 0.7 and more in some token.
MAX_DIFFERENCE = 0.1


def resume_seconds(memory: MemorySnapshot) -> float:
    """Where to start reading, counted from the first picture, so that the samples to compare are read again."""
    first, _ = _compared(memory)
    return float(memory.sample_seconds[first]) - 0.5 / memory.fps


def num_remembered(memory: MemorySnapshot, features_TPC: Tensor, batch: FrameBatch | None) -> int:
    """How many samples of a batch are in the memory already.

    Samples in gaps are not compared. The last remembered sample may differ if its picture now has another time: a file
    that was still being written may have lacked a picture before its last one.

    Args:
        memory: with at least one frame.
        features_TPC: of the batch.
        batch: the first one, read from `resume_seconds`; None if nothing could be read.

    Raises:
        MemoryFileError: the batch does not show the pictures of the memory.
    """
    first, compared = _compared(memory)
    num_again = len(memory) - first
    samples = memory.sample_seconds[first:]
    if batch is None or len(batch) < len(samples) or not np.allclose(batch.sample_seconds[: len(samples)], samples):
        raise _another(memory, f"it has no samples at {samples[0]:g} to {samples[-1]:g} s")
    difference_N = _difference(features_TPC[:num_again], memory.features[first:])
    is_last_open = batch.timestamps_seconds[num_again - 1] != memory.timestamps_seconds[-1] and len(compared) > 1
    for n in compared:
        if difference_N[n - first] > MAX_DIFFERENCE and not (n == len(memory) - 1 and is_last_open):
            raise _another(memory, f"it shows something else at {memory.sample_seconds[n]:g} s")
    return num_again


def _compared(memory: MemorySnapshot) -> tuple[int, list[int]]:
    """The first frame to read again, and the frames to compare: the last ones that lie in no gap.

    Raises:
        MemoryFileError: all frames of the memory lie in gaps.
    """
    whole = [
        n
        for n, seconds in enumerate(memory.sample_seconds)
        if not any(gap.start_seconds <= seconds <= gap.end_seconds for gap in memory.gaps)
    ]
    if not whole:
        raise _another(memory, "no frame of the memory is whole, so nothing can be compared")
    compared = whole[-NUM_COMPARED:]
    return compared[0], compared


def _difference(new_NPC: Tensor, old_NPC: Tensor) -> Tensor:
    """[N] the largest relative distance between a token of a frame and the same token of the other."""
    new_NPC, old_NPC = new_NPC.float(), old_NPC.float()
    length_NP = torch.maximum(new_NPC.norm(dim=-1), old_NPC.norm(dim=-1)).clamp_min(torch.finfo(torch.float32).tiny)
    return ((new_NPC - old_NPC).norm(dim=-1) / length_NP).amax(-1)


def _another(memory: MemorySnapshot, reason: str) -> MemoryFileError:
    return MemoryFileError(
        f"the memory of {memory.source.file_name} does not go on with this video ({reason}); watch it anew"
    )
