"""Forgetting: the choice of the memory's frames and tokens that the decoder sees (paper section 3.2).

Pure functions from sizes and a seed to sorted indices. Only two methods need tensors of the model: `keyframe` looks at
the frames, `question` at the question too. The number of kept tokens depends on sizes alone, so a prompt can be laid
out before anything is computed. One hour at 1 FPS keeps 512 frames x (16 tokens + newline) = 8,704 of 234,000 tokens.

Shapes: T frames, N tokens of one grid, K kept tokens of one grid, F kept frames, D width of a frame's descriptor.
"""

import math

import numpy as np
import numpy.typing as npt

from hourllava.errors import InputError
from hourllava.model.config import ForgettingConfig

Indices = npt.NDArray[np.int64]
Descriptors = npt.NDArray[np.floating]

# A frame is compared with this many frames before it and after it.
KEYFRAME_NEIGHBOURS_EACH_SIDE = 4


def evenly_spaced(num_items: int, num_chosen: int) -> Indices:
    """`num_chosen` indices spread evenly over `num_items`, both ends included; rounded down, as in the release."""
    return np.linspace(0, num_items - 1, num_chosen).astype(np.int64)


def num_kept_frames(num_frames: int, forgetting: ForgettingConfig) -> int:
    """The number of kept frames of `num_frames` memory frames, the same for every method."""
    quarter = int(num_frames * forgetting.temporal_keep_ratio)
    wanted = min(forgetting.max_kept_frames, quarter)
    # The last frame is always kept. Evenly spaced frames miss it only when fewer than two are wanted.
    return wanted if wanted >= 2 else min(wanted + 1, num_frames)


def num_kept_tokens(grid_height: int, grid_width: int, forgetting: ForgettingConfig) -> int:
    """The number of kept tokens of one `grid_height` x `grid_width` grid."""
    if forgetting.spatial == "uniform":
        return math.ceil(grid_height / 2) * math.ceil(grid_width / 2)
    return math.ceil(grid_height * grid_width * forgetting.spatial_keep_ratio)


def kept_tokens(
    num_grids: int, grid_height: int, grid_width: int, forgetting: ForgettingConfig, rng: np.random.Generator
) -> Indices:
    """Spatial forgetting: kept tokens of each grid, raster indices, sorted.

    Returns:
        [num_grids, K]
    """
    if forgetting.spatial == "uniform":
        raster = np.arange(grid_height * grid_width).reshape(grid_height, grid_width)
        return np.tile(raster[::2, ::2].ravel(), (num_grids, 1))
    count = num_kept_tokens(grid_height, grid_width, forgetting)
    chances = rng.random((num_grids, grid_height * grid_width))
    return np.sort(np.argpartition(chances, count - 1, axis=1)[:, :count], axis=1)


def kept_frames(
    num_frames: int,
    forgetting: ForgettingConfig,
    rng: np.random.Generator,
    frame_descriptors_TD: Descriptors | None = None,
    question_descriptor_D: Descriptors | None = None,
) -> Indices:
    """Temporal forgetting: kept frames, sorted, the last frame always among them.

    Args:
        num_frames: T, frames in the memory.
        forgetting: method and ratio.
        rng: for `random`.
        frame_descriptors_TD: mean projected token of each frame; `keyframe` and `question` need it.
        question_descriptor_D: mean embedding of the question; `question` needs it.

    Returns:
        [F], F = `num_kept_frames(num_frames, forgetting)`

    Raises:
        InputError: the method's descriptors are missing.
    """
    count = num_kept_frames(num_frames, forgetting)
    if forgetting.temporal == "uniform":
        return np.array([0, num_frames - 1])[-count:] if count < 3 else evenly_spaced(num_frames, count)
    if forgetting.temporal == "random":
        scores = rng.random(num_frames)
    elif forgetting.temporal == "keyframe":
        scores = -_likeness_to_neighbours(_needed("keyframe", "frame_descriptors_TD", frame_descriptors_TD))
    else:
        frames = _needed("question", "frame_descriptors_TD", frame_descriptors_TD)
        question = _needed("question", "question_descriptor_D", question_descriptor_D)
        scores = _unit(frames) @ _unit(question)
    scores[-1] = np.inf
    # A stable sort: equal scores keep the earlier frame, on every machine.
    return np.sort(np.argsort(-scores, kind="stable")[:count])


def _needed(method: str, name: str, value: Descriptors | None) -> Descriptors:
    if value is None:
        raise InputError(f"temporal forgetting {method!r} needs {name}; give it, or choose 'uniform' or 'random'")
    return value


def _unit(vectors: Descriptors) -> npt.NDArray[np.float64]:
    vectors = vectors.astype(np.float64)
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)


def _likeness_to_neighbours(frames_TD: Descriptors) -> npt.NDArray[np.float64]:
    """Mean cosine of each frame with its nearest frames in time (fewer at both ends)."""
    unit = _unit(frames_TD)
    num_frames = len(unit)
    total, count = np.zeros(num_frames), np.zeros(num_frames)
    for distance in range(1, min(KEYFRAME_NEIGHBOURS_EACH_SIDE, num_frames - 1) + 1):
        cosine = np.einsum("td,td->t", unit[distance:], unit[:-distance])
        total[distance:] += cosine
        count[distance:] += 1
        total[:-distance] += cosine
        count[:-distance] += 1
    return total / np.maximum(count, 1)
