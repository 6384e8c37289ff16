"""The part of a prompt that is the same for every question about a memory, computed once and kept.

With `memaug.recall: question`, kept tokens see neither question nor text. So the decoder's keys and values of the text
before them and of the kept tokens themselves belong to the memory, and so do the keys and values that recall tokens and
text see of them in MemAug. For an hour and the 3B model they take 0.36 GB and 0.15 s; a question then costs its own
tokens: recall tokens and text.

    prefix = make_kept_prefix(model.model, memory, sample)
    (behind,) = embed_behind(model.model, prefix, memory, [sample], [None])     # [S, D], the decoder's next tokens

Shapes: L tokens of a sample, P of them in the prefix, S = L - P behind it, K kept tokens, R recall tokens, A queries
that are no kept tokens, D decoder width, G key/value heads, E head width.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from transformers import DynamicCache

from hourllava.model.attention import Segments
from hourllava.model.backbones import attention_window
from hourllava.model.config import HourLlavaConfig
from hourllava.model.decoder_attention import packed_positions
from hourllava.model.devices import to_device
from hourllava.model.inputs import Sample
from hourllava.model.layout import VisualLayout, num_kept_video_tokens
from hourllava.model.memaug import MemoryKeysValues, ProjectedMemory, QueryObserver
from hourllava.model.queries import query_layout
from hourllava.model.trunk import HourLlavaModel


def can_keep_prefix(config: HourLlavaConfig) -> bool:
    """Whether a model's prompts begin alike for all questions, and what follows can be read behind the beginning.

    Not without recall tokens: evidence is then the attention of kept tokens, which nobody repeats for each question.
    Not with a decoder that has sliding windows.
    """
    return config.memaug.num_recall_tokens > 0 and attention_window(config.text_config) is None


def kept_prefix_bytes(num_frames: int, config: HourLlavaConfig, item_bytes: int) -> int:
    """Size of what is kept of prompts about a memory, but for the text before its kept tokens; 0 if nothing is kept.

    Args:
        num_frames: of the memory.
        config: of the model.
        item_bytes: of a number.
    """
    if not can_keep_prefix(config):
        return 0
    text = config.text_config
    groups = getattr(text, "num_key_value_heads", None) or text.num_attention_heads
    width = text.hidden_size // text.num_attention_heads
    in_decoder = text.num_hidden_layers * (getattr(text, "head_dim", None) or width)
    of_token = 2 * groups * (in_decoder + config.memaug.num_blocks * width) * item_bytes
    return int(num_kept_video_tokens(num_frames, config) * of_token)


@dataclasses.dataclass(frozen=True, eq=False)  # compared and found by identity
class KeptPrefix:
    """What the text before a memory's kept tokens, and these, leave for the tokens behind them.

    Attributes:
        text_ids: of the text before the kept tokens.
        num_tokens: P.
        keys, values: [G, P, E] of each layer of the decoder.
        memaug_keys_values: [K, G, E] keys and values of the kept tokens in each MemAug block's self-attention.
    """

    text_ids: tuple[int, ...]
    num_tokens: int
    keys: list[Tensor]
    values: list[Tensor]
    memaug_keys_values: list[tuple[Tensor, Tensor]]

    @property
    def num_bytes(self) -> int:
        """Size of all tensors."""
        pairs = (tensor for pair in self.memaug_keys_values for tensor in pair)
        return sum(tensor.nbytes for tensor in (*self.keys, *self.values, *pairs))


@dataclasses.dataclass(frozen=True)
class _Cut:
    """A sample cut behind its kept tokens."""

    layout: VisualLayout
    ids_L: np.ndarray
    kept_L: np.ndarray  # which tokens are kept tokens
    kept_positions_K: np.ndarray
    asking_index_A: np.ndarray
    asking_positions_A: np.ndarray

    @classmethod
    def of(cls, sample: Sample, config: HourLlavaConfig) -> "_Cut":
        layout = sample.layout
        assert layout is not None
        assert len(layout.kept_per_visual) == 1, "a memory is of one video"
        is_visual = sample.input_ids == config.visual_token_id
        index, positions = query_layout(is_visual, sample.is_prompt_text, layout)
        is_kept = np.zeros(len(is_visual), bool)
        is_kept[np.flatnonzero(is_visual)[: len(layout.kept_index)]] = True
        asks = ~is_kept[index]
        return cls(layout, sample.input_ids, is_kept, positions[~asks], index[asks], positions[asks])

    @property
    def num_prefix(self) -> int:
        return int(np.flatnonzero(self.kept_L)[-1]) + 1

    @property
    def num_text_before(self) -> int:
        return int(np.argmax(self.kept_L))


def text_before_kept(sample: Sample, config: HourLlavaConfig) -> tuple[int, ...]:
    """The ids of a sample's text before its kept tokens; samples of one memory with equal ids share a prefix."""
    return tuple(sample.input_ids[: int(np.argmax(sample.input_ids == config.visual_token_id))].tolist())


@torch.inference_mode()
def make_kept_prefix(model: HourLlavaModel, memory: ProjectedMemory, sample: Sample) -> KeptPrefix:
    """Run the text before a memory's kept tokens, and these, through MemAug and decoder.

    Args:
        model: in evaluation mode, for which `can_keep_prefix` holds.
        memory: on its device or, in chunks, on the host.
        sample: any question about this memory.
    """
    cut, device = _Cut.of(sample, model.config), memory.kept_tokens.device
    positions_K = torch.from_numpy(cut.kept_positions_K).to(device)
    augmented_KD, keys_values = model.memaug.augment_kept(memory.kept_tokens, positions_K, memory.keys_values)
    text_ids = torch.from_numpy(cut.ids_L[: cut.num_text_before]).to(device)
    embeds_1PD = torch.cat([model.get_input_embeddings()(text_ids), augmented_KD])[None]
    segments = Segments((cut.num_prefix,))
    position_ids, mask = packed_positions(embeds_1PD, segments)
    cache = DynamicCache()
    model.language_model(
        inputs_embeds=embeds_1PD,
        attention_mask=mask,
        position_ids=position_ids,
        past_key_values=cache,
        use_cache=True,
        segments=segments,
    )
    layers = cache.layers
    return KeptPrefix(
        text_before_kept(sample, model.config),
        cut.num_prefix,
        [layer.keys[0] for layer in layers],
        [layer.values[0] for layer in layers],
        keys_values,
    )


@torch.inference_mode()
def embed_behind(
    model: HourLlavaModel,
    prefix: KeptPrefix,
    memory: ProjectedMemory,
    samples: Sequence[Sample],
    observers: Sequence[QueryObserver | None],
) -> list[Tensor]:
    """[S, D] of each sample what the decoder reads of it behind the prefix: recall tokens, augmented, and text.

    Samples look into the memory together, which a GPU does about as fast as for one. None sees the others.

    Args:
        model, memory: as for `make_kept_prefix`.
        prefix: of this memory and the text before its kept tokens.
        samples: questions.
        observers: of each sample; each sees the queries of its text before the kept tokens, of its recall tokens and of
            its text behind, in this order. The recall tokens are those of `recall_queries`.
    """
    learnt_RD, recall = model.memaug.recall_tokens, recall_queries(prefix, model.config)
    assert learnt_RD is not None
    cuts = [_Cut.of(sample, model.config) for sample in samples]
    ids = [cut.ids_L[cut.asking_index_A].copy() for cut in cuts]
    for ids_A in ids:
        ids_A[recall] = 0
    questions = Segments(tuple(map(len, ids)))
    x_AD = model.get_input_embeddings()(to_device(np.concatenate(ids), learnt_RD.device))
    for start in questions.offsets[:-1]:
        x_AD[start + recall.start : start + recall.stop] = learnt_RD
    positions_A = to_device(np.concatenate([cut.asking_positions_A for cut in cuts]), learnt_RD.device)

    def observe(query_AHE: Tensor, keys_values: MemoryKeysValues) -> None:
        for query, observer in zip(query_AHE.split(questions.lengths), observers, strict=True):
            if observer is not None:
                observer(query, keys_values)

    augmented_AD = model.memaug.augment_behind(
        x_AD, positions_A, memory.keys_values, prefix.memaug_keys_values, questions, observe
    )
    return [
        torch.cat([augmented[recall], x[recall.stop :]])
        for augmented, x in zip(augmented_AD.split(questions.lengths), x_AD.split(questions.lengths))
    ]


def recall_queries(prefix: KeptPrefix, config: HourLlavaConfig) -> slice:
    """Which of the queries behind a prefix are the recall tokens."""
    start = len(prefix.text_ids)
    return slice(start, start + config.memaug.num_recall_tokens)
