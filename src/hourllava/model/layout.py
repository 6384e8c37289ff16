"""Visual layouts: a video, a tiled image and several images differ only in indices.

The images or frames of a sample become *patch tokens*: the projected tokens of all views, view after view. Its
`VisualLayout` names the patch tokens and newlines that form the memory, their positions, and the kept memory entries.
Layouts are made on the CPU from sizes and a seed, before anything is encoded; the model then only gathers. Each builder
follows the release, see its docstring.

Shapes: T frames, P patch tokens, M memory entries, K kept tokens, g patches along a side of a view.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch

from hourllava.errors import InputError
from hourllava.model import forgetting as forget
from hourllava.model.config import HourLlavaConfig
from hourllava.model.forgetting import Descriptors, Indices

Modality = Literal["image", "video"]

NEWLINE = -1
"""Stands in `memory_index` for the learned newline token."""

# The tile grid of an image is shrunk only if it is this much too large along a side (LLaVA-OneVision's anyres_max).
SHRINK_ABOVE = 1.1


@dataclasses.dataclass(frozen=True)
class GridResize:
    """Bilinear resize of a grid of patch tokens before it enters the memory (large tiled images only).

    `source_index` [height * width] names the patch tokens. The `new_height * new_width` results are numbered after the
    sample's own patch tokens.
    """

    source_index: Indices
    height: int
    width: int
    new_height: int
    new_width: int


@dataclasses.dataclass(frozen=True)
class VisualLayout:
    """Memory and kept tokens of one sample, as indices.

    Attributes:
        modality: patch tokens are those of images (g * g a view), or pooled tokens of video frames.
        num_patch_tokens: P, patch tokens of all views of the sample.
        memory_index: [M] the patch token behind each memory entry, or `NEWLINE`.
        memory_positions: [M] rotary positions of the memory entries.
        kept_index: [K] kept memory entries, in the order of the prompt.
        kept_per_visual: kept tokens of each placeholder of the conversation; their sum is K.
        recall_positions: [R] rotary positions of the recall tokens; None if kept tokens see the question.
        resize: of a large tile grid, before it enters the memory.
    """

    modality: Modality
    num_patch_tokens: int
    memory_index: Indices
    memory_positions: Indices
    kept_index: Indices
    kept_per_visual: tuple[int, ...]
    recall_positions: Indices | None = None
    resize: GridResize | None = None

    def __post_init__(self) -> None:
        assert self.memory_index.shape == self.memory_positions.shape
        assert sum(self.kept_per_visual) == len(self.kept_index)

    @property
    def num_frames(self) -> int:
        """T, pooled frames of a video that are given to the model."""
        frame_tokens = int(np.argmax(self.memory_index == NEWLINE))  # each frame of a memory ends with a newline
        return self.num_patch_tokens // frame_tokens

    def over_frames(self, frame_index_T: Indices) -> "VisualLayout":
        """The same memory of a video of which equal frames are given once.

        Args:
            frame_index_T: [T] the given frame that stands for each frame, numbered from 0.
        """
        frame_tokens = self.num_patch_tokens // len(frame_index_T)
        frame, token = np.divmod(self.memory_index, frame_tokens)
        index = np.where(self.memory_index == NEWLINE, NEWLINE, frame_index_T[frame] * frame_tokens + token)
        num_given = int(frame_index_T.max()) + 1
        return dataclasses.replace(self, num_patch_tokens=num_given * frame_tokens, memory_index=index)

    @property
    def kept_positions(self) -> Indices:
        """[K] memory positions of the kept tokens."""
        return self.memory_positions[self.kept_index]

    @property
    def num_recall_tokens(self) -> int:
        """R, recall tokens; they stand behind the kept tokens of the last placeholder."""
        return 0 if self.recall_positions is None else len(self.recall_positions)

    @property
    def tokens_per_visual(self) -> tuple[int, ...]:
        """Visual tokens of each placeholder: its kept tokens and, of the last one, the recall tokens."""
        return (*self.kept_per_visual[:-1], self.kept_per_visual[-1] + self.num_recall_tokens)

    @property
    def num_visual_tokens(self) -> int:
        """K + R, visual tokens of the sample in the decoder's sequence."""
        return len(self.kept_index) + self.num_recall_tokens


@dataclasses.dataclass(frozen=True)
class TileGrid:
    """An image cut into columns x rows of tiles, `image_size` pixels a side."""

    columns: int
    rows: int

    @property
    def num_views(self) -> int:
        """Views for the vision tower: the whole image, then the tiles row by row."""
        return 1 + self.columns * self.rows


def video_layout(
    num_frames: int,
    config: HourLlavaConfig,
    *,
    seed: int = 0,
    frame_descriptors_TD: Descriptors | None = None,
    question_descriptor_D: Descriptors | None = None,
    spatial_kept: Indices | None = None,
) -> VisualLayout:
    """A video: the pooled tokens of each frame in raster order, then a newline; positions count up through the video.

    A video with fewer than `config.min_video_frames` frames has them repeated, evenly, up to that number.

    Args:
        num_frames: T, pooled frames given to the model.
        config: token grid, forgetting and smallest number of frames.
        seed: of the random choices.
        frame_descriptors_TD: mean projected token per frame, for `keyframe` and `question` forgetting.
        question_descriptor_D: mean embedding of the question, for `question` forgetting.
        spatial_kept: [memory frames, tokens] kept tokens of each frame, instead of a choice.

    Raises:
        InputError: no frames, or a forgetting method lacks its descriptors.
    """
    if num_frames < 1:
        raise InputError(f"a video layout needs at least 1 frame, got {num_frames}")
    frame_tokens = config.video_frame_tokens
    frames = _memory_frames(num_frames, config)
    num_memory_frames = len(frames)
    if frame_descriptors_TD is not None:
        frame_descriptors_TD = frame_descriptors_TD[frames]

    memory_index = np.full((num_memory_frames, frame_tokens + 1), NEWLINE)
    memory_index[:, :frame_tokens] = frames[:, None] * frame_tokens + np.arange(frame_tokens)

    rng = np.random.default_rng(seed)
    kept_frames = forget.kept_frames(
        num_memory_frames, config.forgetting, rng, frame_descriptors_TD, question_descriptor_D
    )
    if spatial_kept is None:
        side = config.video_grid
        kept_tokens = forget.kept_tokens(len(kept_frames), side, side, config.forgetting, rng)
    else:
        kept_tokens = spatial_kept[kept_frames]
    newline = np.full((len(kept_frames), 1), frame_tokens)
    kept_index = kept_frames[:, None] * (frame_tokens + 1) + np.concatenate([kept_tokens, newline], axis=1)
    memory_positions = np.arange(memory_index.size)
    return VisualLayout(
        modality="video",
        num_patch_tokens=num_frames * frame_tokens,
        memory_index=memory_index.ravel(),
        memory_positions=memory_positions,
        kept_index=kept_index.ravel(),
        kept_per_visual=(kept_index.size,),
        recall_positions=_recall_positions(memory_positions, config),
    )


def _recall_positions(memory_positions: Indices, config: HourLlavaConfig) -> Indices | None:
    """Recall tokens stand at evenly spaced memory entries, so they differ and look at all parts of the memory."""
    if config.memaug.recall == "kept":
        return None
    return memory_positions[forget.evenly_spaced(len(memory_positions), config.memaug.recall_tokens)]


def video_entries_at(
    spans_seconds: Sequence[tuple[float, float]], num_frames: int, duration_seconds: float, config: HourLlavaConfig
) -> Indices:
    """The memory entries of the frames within these spans, sorted; frames are evenly spaced in time.

    Args:
        spans_seconds: (start, end); a frame exactly at the end is outside.
        num_frames, config: as for `video_layout`.
        duration_seconds: of the video.
    """
    frames = _memory_frames(num_frames, config)
    times = frames * (duration_seconds / num_frames)
    is_shown = np.zeros(len(frames), bool)
    for start, end in spans_seconds:
        is_shown |= (times >= start) & (times < end)
    return np.flatnonzero(is_shown.repeat(config.video_frame_tokens + 1))


def _memory_frames(num_frames: int, config: HourLlavaConfig) -> Indices:
    """The video frame behind each memory frame: frames of a short video are repeated."""
    if num_frames < config.min_video_frames:
        return forget.evenly_spaced(num_frames, config.min_video_frames)
    return np.arange(num_frames)


def num_memory_entries(num_frames: int, config: HourLlavaConfig) -> int:
    """Memory entries of a video of `num_frames` frames."""
    return max(num_frames, config.min_video_frames) * (config.video_frame_tokens + 1)


def num_kept_video_tokens(num_frames: int, config: HourLlavaConfig) -> int:
    """Kept tokens of a video of `num_frames` frames, newlines included."""
    kept_frames = forget.num_kept_frames(max(num_frames, config.min_video_frames), config.forgetting)
    return kept_frames * (forget.num_kept_tokens(config.video_grid, config.video_grid, config.forgetting) + 1)


def image_layout(
    num_images: int, config: HourLlavaConfig, *, seed: int = 0, spatial_kept: Indices | None = None
) -> VisualLayout:
    """Images of one view each: the g x g tokens of each image, then a newline; one memory for all images.

    Positions count up over the patch tokens of all images; all newlines share the position after the last token.

    Args:
        num_images: placeholders in the conversation.
        config: patch grid and forgetting.
        seed: of the random choices.
        spatial_kept: [num_images, tokens] kept tokens of each image, instead of a choice.
    """
    if num_images < 1:
        raise InputError(f"an image layout needs at least 1 image, got {num_images}")
    side = config.patch_grid
    view_tokens = side * side
    memory_index = np.full((num_images, view_tokens + 1), NEWLINE)
    memory_index[:, :view_tokens] = np.arange(num_images * view_tokens).reshape(num_images, view_tokens)
    if spatial_kept is None:
        spatial_kept = forget.kept_tokens(num_images, side, side, config.forgetting, np.random.default_rng(seed))
    newline = np.full((num_images, 1), view_tokens)
    kept_index = np.arange(num_images)[:, None] * (view_tokens + 1) + np.concatenate([spatial_kept, newline], axis=1)
    memory_positions = np.where(memory_index == NEWLINE, num_images * view_tokens, memory_index).ravel()
    return VisualLayout(
        modality="image",
        num_patch_tokens=num_images * view_tokens,
        memory_index=memory_index.ravel(),
        memory_positions=memory_positions,
        kept_index=kept_index.ravel(),
        kept_per_visual=(kept_index.shape[1],) * num_images,
        recall_positions=_recall_positions(memory_positions, config),
    )


def tiled_image_layout(
    image_width: int,
    image_height: int,
    config: HourLlavaConfig,
    *,
    seed: int = 0,
    spatial_kept: tuple[Indices, Indices] | None = None,
) -> VisualLayout:
    """One image as a base view and a grid of tiles (LLaVA-OneVision's anyres).

    The memory holds the tokens of the base view, then the tile grid without its padding, with a newline after each row.
    Grid tokens are at raster positions. A base token has the position of the grid token at its place in the image. All
    newlines have the position after the grid.

    Args:
        image_width, image_height: of the picture in pixels, before any resizing.
        config: patch grid, tiling and forgetting.
        seed: of the random choices.
        spatial_kept: kept base tokens and kept grid tokens, instead of a choice.
    """
    side = config.patch_grid
    base_tokens = side * side
    tiles = best_tile_grid(image_width, image_height, config)
    source = _unpadded_patch_tokens(image_width, image_height, tiles, side)
    height, width = source.shape
    num_patch_tokens = tiles.num_views * base_tokens
    resize = None
    shrink = math.sqrt(height * width / (config.max_image_grid_tiles * base_tokens))
    if shrink > SHRINK_ABOVE:
        new_height, new_width = max(int(height // shrink), 1), max(int(width // shrink), 1)
        resize = GridResize(source.ravel(), height, width, new_height, new_width)
        height, width = new_height, new_width
        source = num_patch_tokens + np.arange(height * width).reshape(height, width)

    raster = np.arange(height * width).reshape(height, width)
    base_positions = raster[_nearest(height, side)][:, _nearest(width, side)].ravel()
    end_of_row = np.full((height, 1), NEWLINE)
    grid_index = np.concatenate([source, end_of_row], axis=1).ravel()
    grid_positions = np.concatenate([raster, np.full((height, 1), height * width)], axis=1).ravel()

    rng = np.random.default_rng(seed)
    if spatial_kept is None:
        kept_base = forget.kept_tokens(1, side, side, config.forgetting, rng)[0]
        kept_grid = forget.kept_tokens(1, height, width, config.forgetting, rng)[0]
    else:
        kept_base, kept_grid = spatial_kept
    kept_index = np.concatenate([kept_base, base_tokens + _with_newlines(kept_grid, width)])
    memory_positions = np.concatenate([base_positions, grid_positions])
    return VisualLayout(
        modality="image",
        num_patch_tokens=num_patch_tokens,
        memory_index=np.concatenate([np.arange(base_tokens), grid_index]),
        memory_positions=memory_positions,
        kept_index=kept_index,
        kept_per_visual=(len(kept_index),),
        recall_positions=_recall_positions(memory_positions, config),
        resize=resize,
    )


def _with_newlines(kept_grid: Indices, width: int) -> Indices:
    """Entries of the kept tokens of a grid and of the newlines of their rows; a newline stands in column `width`."""
    rows, columns = np.divmod(kept_grid, width)
    newlines = np.unique(rows) * (width + 1) + width
    return np.sort(np.concatenate([rows * (width + 1) + columns, newlines]))


def best_tile_grid(image_width: int, image_height: int, config: HourLlavaConfig) -> TileGrid:
    """The tile grid with the most pixels of the image and, among equals, the least padding (LLaVA-NeXT's anyres)."""
    if image_width < 1 or image_height < 1:
        raise InputError(f"an image needs at least 1 x 1 pixels, got {image_width} x {image_height}")
    size = config.vision_config.image_size
    best, best_key = TileGrid(1, 1), (-1, 0)
    for columns in range(1, config.max_image_tiles + 1):
        for rows in range(1, config.max_image_tiles + 1):
            scale = min(columns * size / image_width, rows * size / image_height)
            shown = int(image_width * scale) * int(image_height * scale)
            useful = min(shown, image_width * image_height)
            key = (useful, useful - columns * rows * size * size)
            if key > best_key:
                best, best_key = TileGrid(columns, rows), key
    return best


def _unpadded_patch_tokens(image_width: int, image_height: int, tiles: TileGrid, side: int) -> Indices:
    """[h, w] patch tokens of the tile grid, in raster order, without rows and columns of padding only."""
    rows, columns = np.arange(tiles.rows * side), np.arange(tiles.columns * side)
    if image_width / image_height > len(columns) / len(rows):
        rows = _without_padding(rows, int(image_height * (len(columns) / image_width)))
    else:
        columns = _without_padding(columns, int(image_width * (len(rows) / image_height)))
    view = 1 + (rows // side)[:, None] * tiles.columns + (columns // side)[None, :]
    token: Indices = view * side * side + (rows % side)[:, None] * side + (columns % side)[None, :]
    return token


def _without_padding(lines: Indices, num_shown: int) -> Indices:
    padding = (len(lines) - num_shown) // 2
    # An image thinner than a patch keeps one line; the release would drop it altogether.
    padding = min(padding, (len(lines) - 1) // 2)
    return lines[padding : len(lines) - padding]


def _nearest(num_lines: int, num_base_lines: int) -> Indices:
    """[num_base_lines] the grid line of each base line; in torch like the release, as numpy breaks ties otherwise."""
    return torch.linspace(0, num_lines - 1, num_base_lines).round().long().numpy()
