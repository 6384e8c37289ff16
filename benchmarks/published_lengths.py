"""Lengths like those of the published stage-3 mixture, drawn at random: to try plans without the data.

Published (paper and release): the proportions of the five kinds of samples, the two streams, the minutes of
VideoMarathon's videos in bins of five. The rest is assumed: short videos of 30 s (median; 3 to 180 s, log-normal 0.6, a
mean of 36 s as in LLaVA-Video-178K); single images of ten usual sizes, equally often; 2 to 6 pictures in a multi-image
record; text of 250 tokens in the mean with visuals (450 for the five questions of a long video, 400 without visuals),
log-normal 0.6 (0.3, 0.8), 20 to 4,000 tokens.
"""

import dataclasses

import numpy as np
from numpy.typing import NDArray

from hourllava.data.batches.amounts import Stream
from hourllava.data.batches.cost import Lengths, TrainedParts, estimate_costs
from hourllava.model.config import HourLlavaConfig
from hourllava.model.layout import image_layout, num_kept_video_tokens, tiled_image_layout

STAGE_3_SAMPLES = {
    "single image": 1.14e6,
    "multi-image": 0.5e6,
    "text": 0.81e6,
    "short video": 1.3e6,
    "long video": 7e5,
}
"""Samples of each kind, published."""

VIDEOS_PER_5_MINUTES = (4000, 4900, 3400, 3080, 3080, 2780, 2080, 1060, 880, 1300, 1040, 420)
"""VideoMarathon's videos of 3-5, 5-10, ... 55-60 minutes, published."""

IMAGE_SIZES = (
    (224, 224), (336, 336), (512, 512), (640, 480), (480, 640),
    (800, 600), (1024, 768), (1280, 720), (900, 1200), (1600, 1200),
)  # fmt: skip
"""Assumed, in pixels."""

_Ints = NDArray[np.int64]


@dataclasses.dataclass(frozen=True)
class _Kind:
    """One kind of samples: views, kept tokens [N] each, and its text: mean tokens and log-normal spread."""

    views: _Ints
    kept: _Ints
    mean_text_tokens: float
    text_spread: float


def stage_3_streams(num_samples: int, config: HourLlavaConfig, seed: int = 0) -> tuple[Stream, Stream]:
    """The two streams of stage 3 with about `num_samples` samples together.

    The first holds the short videos, the second the long ones, each half of the images and texts. Videos count as
    features, images as pixels that go through the frozen vision tower.
    """
    rng = np.random.default_rng(seed)
    scale = num_samples / sum(STAGE_3_SAMPLES.values())
    halves = ("single image", "multi-image", "text")
    parts = (("short video", *halves), ("long video", *halves))
    short, long = (
        _stream(
            f"stage 3, {names[0]}",
            {name: round(STAGE_3_SAMPLES[name] * scale / (2 if name in halves else 1)) for name in names},
            config,
            rng,
        )
        for names in parts
    )
    return short, long


def _stream(name: str, amounts: dict[str, int], config: HourLlavaConfig, rng: np.random.Generator) -> Stream:
    lengths = np.concatenate([_lengths(kind, amount, config, rng) for kind, amount in amounts.items()])
    is_video = np.repeat(["video" in kind for kind in amounts], list(amounts.values()))
    costs = estimate_costs(lengths, config, is_video=is_video, encoded=is_video, trained=TrainedParts())
    return Stream(name, lengths, costs.total)


def _lengths(kind: str, amount: int, config: HourLlavaConfig, rng: np.random.Generator) -> Lengths:
    drawn = _draw(kind, amount, config, rng)
    mean = np.log(drawn.mean_text_tokens) - drawn.text_spread**2 / 2
    text = np.clip(rng.lognormal(mean, drawn.text_spread, amount), 20, 4000)
    return np.stack([drawn.views, drawn.kept, text], axis=1).astype(np.int32)


def _draw(kind: str, amount: int, config: HourLlavaConfig, rng: np.random.Generator) -> _Kind:
    if kind == "text":
        none = np.zeros(amount, np.int64)
        return _Kind(none, none, 400, 0.8)
    if kind == "single image":
        layouts = [tiled_image_layout(width, height, config) for width, height in IMAGE_SIZES]
        choice = rng.integers(len(layouts), size=amount)
        views = np.array([layout.num_patch_tokens // config.patch_grid**2 for layout in layouts])
        kept = np.array([len(layout.kept_index) for layout in layouts])
        return _Kind(views[choice], kept[choice], 250, 0.6)
    if kind == "multi-image":
        pictures = rng.integers(2, 7, size=amount)
        return _Kind(pictures, pictures * len(image_layout(1, config).kept_index), 250, 0.6)
    if kind == "short video":
        frames = np.clip(rng.lognormal(np.log(30), 0.6, amount), 3, 180).astype(np.int64)
        return _Kind(frames, _kept_of_videos(frames, config), 250, 0.6)
    weights = np.array(VIDEOS_PER_5_MINUTES, float)
    bins = rng.choice(len(weights), p=weights / weights.sum(), size=amount)
    start_minutes = np.where(bins == 0, 3, 5 * bins)
    frames = (60 * (start_minutes + rng.random(amount) * (5 * bins + 5 - start_minutes))).astype(np.int64)
    return _Kind(frames, _kept_of_videos(frames, config), 450, 0.3)


def _kept_of_videos(frames: _Ints, config: HourLlavaConfig) -> _Ints:
    """[N] kept tokens of videos of so many frames."""
    table = np.array([num_kept_video_tokens(max(count, 1), config) for count in range(int(frames.max(initial=0)) + 1)])
    return table[frames]
