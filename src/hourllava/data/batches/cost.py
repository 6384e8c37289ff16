"""The training cost of a sample in floating-point operations, from its lengths alone.

The batch plan balances ranks by cost, because tokens do not measure it: MemAug compares every kept token and question
token with every memory entry, so with the 7B model a token of an hour-long video costs over twice a token of text. The
sums count matrix products and attention, a multiply-add as two operations. They leave out norms, activations and
embeddings, which are below one percent. A test compares them with torch's FlopCounterMode.

Shapes: N samples. Lengths are those of a shard folder's `lengths.npy`, int32 [N, 3]: views given to the vision tower
(frames of a video, tiles or pictures of an image record, 0 for text), visual tokens (kept and recall tokens), text
tokens.
"""

import dataclasses

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hourllava.errors import DataError
from hourllava.model.config import HourLlavaConfig
from hourllava.model.forgetting import num_kept_tokens
from hourllava.model.layout import num_kept_video_tokens

Lengths = NDArray[np.int32]
"""[N, 3] views, kept visual tokens, text tokens of each sample."""

Flops = NDArray[np.float64]
"""[N] floating-point operations, or a part of them, of each sample."""

SUPERVISED_SHARE = 0.5
"""Assumed share of answers in a sample's text tokens: `lengths.npy` does not separate answers from questions."""


@dataclasses.dataclass(frozen=True)
class TrainedParts:
    """The parts that get gradients, by default those of stage 3. The head belongs to the language model."""

    vision_tower: bool = False
    projector: bool = True
    memaug: bool = True
    language_model: bool = True


@dataclasses.dataclass(frozen=True)
class SampleCosts:
    """Forward and backward operations of each sample, part by part, all [N]."""

    vision_tower: Flops
    projector: Flops
    memory_keys_values: Flops
    memaug_linear: Flops
    memaug_self_attention: Flops
    memaug_cross_attention: Flops
    decoder_linear: Flops
    decoder_attention: Flops
    head: Flops

    @property
    def total(self) -> Flops:
        """[N] all parts together."""
        parts: list[Flops] = [getattr(self, field.name) for field in dataclasses.fields(self)]
        return np.sum(parts, axis=0)


@dataclasses.dataclass(frozen=True)
class _Passes:
    """How often the operations of each part run in one forward and one backward pass.

    A matrix product runs once forward, once for its input's gradient if an earlier part is trained, once for its
    weight's gradient if its own part is trained, and once more if it is computed again in the backward pass. Attention
    has two inputs and no weight.
    """

    vision_tower: int
    projector_in: int
    projector_out: int
    memory_keys_values: int
    memaug_linear: int
    memaug_attention: int
    decoder_linear: int
    decoder_attention: int
    head: int

    @classmethod
    def of(cls, trained: TrainedParts, checkpointing: bool) -> "_Passes":
        again = int(checkpointing)
        before_projector = trained.vision_tower
        before_memaug = before_projector or trained.projector
        before_decoder = before_memaug or trained.memaug or trained.language_model
        return cls(
            vision_tower=3 if trained.vision_tower else 1,
            projector_in=1 + before_projector + trained.projector,
            projector_out=1 + before_memaug + trained.projector,
            memory_keys_values=1 + before_memaug + trained.memaug,
            memaug_linear=1 + again + before_decoder + trained.memaug,
            memaug_attention=1 + again + 2 * before_decoder,
            decoder_linear=1 + again + before_decoder + trained.language_model,
            decoder_attention=1 + again + 2 * before_decoder,
            head=2 + before_decoder + trained.language_model,
        )


def check_lengths(lengths: ArrayLike, name: str) -> Lengths:
    """Lengths as an int32 [N, 3] array.

    Raises:
        DataError: another shape or type, a negative length, or a sample without tokens.
    """
    array = np.asarray(lengths)
    if array.ndim != 2 or array.shape[1] != 3 or array.dtype.kind not in "iu":
        raise DataError(
            f"lengths of {name} must be integers [samples, 3] (views, kept visual tokens, text tokens), got "
            f"{array.dtype} {list(array.shape)}; write its shards again"
        )
    bad = np.flatnonzero((array < 0).any(axis=1) | (array[:, 1:].sum(axis=1, dtype=np.int64) < 1))
    if len(bad):
        raise DataError(
            f"lengths of {name}: sample {bad[0]} has {array[bad[0]].tolist()} (views, kept visual tokens, text "
            "tokens); none may be negative and a sample needs a token. Write its shards again"
        )
    return array.astype(np.int32, copy=False)


def estimate_costs(
    lengths: Lengths,
    config: HourLlavaConfig,
    *,
    is_video: bool | NDArray[np.bool_],
    encoded: bool | NDArray[np.bool_] = False,
    num_questions: int | NDArray[np.int64] = 1,
    trained: TrainedParts | None = None,
    checkpointing: bool = True,
    supervised_share: float = SUPERVISED_SHARE,
) -> SampleCosts:
    """Operations of one forward and backward pass over each sample.

    Attention stays within a sample, so a packed batch costs what its samples cost together.

    Args:
        lengths: [N, 3], see the module.
        config: of the model.
        is_video: [N] whether the views are frames of a video (pooled) or of images (not pooled).
        encoded: [N] whether the views come as features, so that the vision tower does not run.
        num_questions: [N] questions that are samples of their own and share one memory; see `questions_apart`.
        trained: which parts get gradients; those of stage 3 if None.
        checkpointing: decoder layers and MemAug blocks are computed again in the backward pass.
        supervised_share: share of supervised text tokens: MemAug has no queries for them, the head sees only them.
    """
    views, kept, text = (column.astype(np.float64) for column in lengths.T)
    patches = views * np.where(is_video, config.video_frame_tokens, config.patch_grid**2)
    of_one = lengths_of_one(lengths, num_questions)
    memory = memory_entries(of_one, config, is_video=is_video).astype(np.float64)
    supervised = text * supervised_share
    queries, query_pairs = _queries(kept, text - supervised, num_questions, config)
    tokens = kept + text

    decoder = config.text_config
    width, num_heads = decoder.hidden_size, decoder.num_attention_heads
    num_groups = getattr(decoder, "num_key_value_heads", None) or num_heads
    decoder_head_width = getattr(decoder, "head_dim", None) or width // num_heads
    decoder_query_width, decoder_group_width = num_heads * decoder_head_width, num_groups * decoder_head_width
    group_width = num_groups * (width // num_heads)
    num_blocks = config.memaug.num_blocks

    passes = _Passes.of(trained or TrainedParts(), checkpointing)
    return SampleCosts(
        vision_tower=np.where(encoded, 0.0, views) * _flops_per_view(config) * passes.vision_tower,
        projector=2 * patches * width
        * (config.vision_feature_width * passes.projector_in + width * passes.projector_out),
        memory_keys_values=2 * patches * width * 2 * group_width * num_blocks * passes.memory_keys_values,
        memaug_linear=2 * queries * width * (4 * width + 2 * group_width + 2 * config.memaug.mlp_ratio * width)
        * num_blocks * passes.memaug_linear,
        memaug_self_attention=4 * query_pairs * width * num_blocks * passes.memaug_attention,
        memaug_cross_attention=4 * queries * memory * width * num_blocks * passes.memaug_attention,
        decoder_linear=2 * tokens * width
        * (2 * decoder_query_width + 2 * decoder_group_width + 3 * decoder.intermediate_size)
        * decoder.num_hidden_layers * passes.decoder_linear,
        decoder_attention=4 * (tokens * tokens / 2) / num_questions * decoder_query_width
        * decoder.num_hidden_layers * passes.decoder_attention,
        # The head computes its logits again in any case (`hourllava.model.head`).
        head=2 * supervised * width * decoder.vocab_size * passes.head,
    )  # fmt: skip


def _queries(
    visual: Flops, prompt_text: Flops, num_questions: int | NDArray[np.int64], config: HourLlavaConfig
) -> tuple[Flops, Flops]:
    """[N] MemAug's queries of each sample, and the pairs of them that attend to each other."""
    if config.memaug.recall == "kept":
        queries = np.where(visual > 0, visual + prompt_text, 0.0)
        return queries, queries * queries / num_questions
    # Kept tokens are queries once for all questions; recall tokens and text see them and those of their own question.
    kept = np.maximum(visual / num_questions - config.memaug.recall_tokens, 0.0)
    asking = np.where(visual > 0, num_questions * config.memaug.recall_tokens + prompt_text, 0.0)
    return kept + asking, kept * kept + asking * (kept + asking / num_questions)


def kept_of_videos(views: NDArray[np.int64], config: HourLlavaConfig) -> NDArray[np.int64]:
    """[N] kept tokens of videos with so many frames [N]."""
    frames, place = np.unique(views, return_inverse=True)
    return np.array([num_kept_video_tokens(max(int(number), 1), config) for number in frames], np.int64)[place]


def kept_of_question(
    lengths: Lengths, config: HourLlavaConfig, *, is_video: bool | NDArray[np.bool_]
) -> NDArray[np.int64]:
    """[N] kept tokens of each question that is a sample of its own.

    Exact for videos and, if the model does not tile images, for images; an estimate for tiled ones.
    """
    views = lengths[:, 0].astype(np.int64)
    of_image = views * (num_kept_tokens(config.patch_grid, config.patch_grid, config.forgetting) + 1)
    return np.where(is_video, kept_of_videos(views, config), of_image)


def questions_apart(
    lengths: Lengths, config: HourLlavaConfig, *, is_video: bool | NDArray[np.bool_]
) -> NDArray[np.int64]:
    """[N] questions of each row that are samples of their own: the row's visual tokens over those of one question.

    As exact as `kept_of_question`.
    """
    of_one = kept_of_question(lengths, config, is_video=is_video) + config.memaug.num_recall_tokens
    return np.maximum(np.rint(lengths[:, 1] / np.maximum(of_one, 1)), 1).astype(np.int64)


def lengths_of_one(lengths: Lengths, num_questions: int | NDArray[np.int64]) -> Lengths:
    """[N, 3] lengths of each row with one of its questions, on average."""
    return np.stack([lengths[:, 0], lengths[:, 1] // num_questions, lengths[:, 2] // num_questions], axis=1)


def kept_again(lengths: Lengths, config: HourLlavaConfig, num_questions: int | NDArray[np.int64]) -> NDArray[np.int64]:
    """[N] kept tokens of each row that MemAug does not augment, because an earlier question of the row has them."""
    if config.memaug.recall == "kept":
        return np.zeros(len(lengths), np.int64)
    kept = np.maximum(lengths_of_one(lengths, num_questions)[:, 1] - config.memaug.recall_tokens, 0)
    return kept.astype(np.int64) * (num_questions - 1)


def memory_entries(
    lengths: Lengths, config: HourLlavaConfig, *, is_video: bool | NDArray[np.bool_]
) -> NDArray[np.int64]:
    """[N] memory entries of each sample: exact for videos and for images of one view.

    The lengths do not tell the unpadded size of tiled images. For these it is an estimate, kept tokens over kept share:
    up to 6 % too many, because a larger share of newlines is kept, or 2 % too few.
    """
    views, kept = lengths[:, 0].astype(np.int64), lengths[:, 1].astype(np.int64)
    frames = np.where(views > 0, np.maximum(views, config.min_video_frames), 0)
    ratio = 0.25 if config.forgetting.spatial == "uniform" else config.forgetting.spatial_keep_ratio
    kept = np.maximum(kept - config.memaug.num_recall_tokens, 0)
    of_images = np.minimum((kept / ratio).astype(np.int64), views * (config.patch_grid**2 + 1))
    return np.where(is_video, frames * (config.video_frame_tokens + 1), of_images)


def _flops_per_view(config: HourLlavaConfig) -> float:
    """Forward operations of the vision tower on one image or frame."""
    vision = config.vision_config
    width, num_patches = vision.hidden_size, config.patch_grid**2
    layer = 2 * num_patches * width * (4 * width + 2 * vision.intermediate_size) + 4 * num_patches**2 * width
    return float(2 * num_patches * 3 * vision.patch_size**2 * width + config.num_vision_layers * layer)
