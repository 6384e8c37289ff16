"""The part of a prompt that is the same for every question about a memory, computed once and kept.

With `memaug.recall: question`, kept tokens see neither question nor text. So the decoder's keys and values of the text
before them and of the kept tokens themselves belong to the memory, and so do the keys and values that recall tokens and
text see of them in MemAug. For an hour and the 3B model they take 0.36 GB and 0.15 s; a question then costs its own
tokens: recall tokens and text.

    prefix = make_kept_prefix(model.model, memory, sample)
    (behind,) = embed_behind(model.model, prefix, memory, [text_ids], [None])   # [S, D], the decoder's next tokens

Shapes: P tokens of the prefix, S tokens behind it, K kept tokens, R recall tokens, A queries that are no kept tokens, D
decoder width, G key/value heads, E head width.
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
from hourllava.model.forgetting import Indices
from hourllava.model.inputs import Sample
from hourllava.model.layout import num_kept_video_tokens
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
        query_positions: positions of MemAug's queries before a question's own text: those of the text before the kept
            tokens, then those of the recall tokens.
        next_position: position of the first token of a question's own text; the others count up from it.
    """

    text_ids: tuple[int, ...]
    num_tokens: int
    keys: list[Tensor]
    values: list[Tensor]
    memaug_keys_values: list[tuple[Tensor, Tensor]]
    query_positions: Indices
    next_position: int

    @property
    def num_bytes(self) -> int:
        """Size of all tensors."""
        pairs = (tensor for pair in self.memaug_keys_values for tensor in pair)
        return sum(tensor.nbytes for tensor in (*self.keys, *self.values, *pairs))


@torch.inference_mode()
def make_kept_prefix(model: HourLlavaModel, memory: ProjectedMemory, sample: Sample) -> KeptPrefix:
    """Run the text before a memory's kept tokens, and these, through MemAug and decoder.

    Args:
        model: in evaluation mode, for which `can_keep_prefix` holds.
        memory: on its device or, in chunks, on the host.
        sample: any question about this memory, encoded to be answered.
    """
    layout = sample.layout
    assert layout is not None
    assert len(layout.kept_per_visual) == 1, "a memory is of one video"
    assert len(sample.input_ids) - layout.num_visual_tokens == sample.is_prompt_text.sum(), "all text is prompt"
    is_visual, num_kept = sample.input_ids == model.config.visual_token_id, len(layout.kept_index)
    text_ids = sample.input_ids[: int(np.argmax(is_visual))]
    _, positions = query_layout(is_visual, sample.is_prompt_text, layout)
    of_parts = np.cumsum([len(text_ids), num_kept, layout.num_recall_tokens])
    of_text, of_kept, of_recall, of_rest = np.split(positions, of_parts)

    device = memory.kept_tokens.device
    augmented_KD, keys_values = model.memaug.augment_kept(
        memory.kept_tokens, to_device(of_kept, device), memory.keys_values
    )
    text_D = model.get_input_embeddings()(to_device(text_ids, device))
    embeds_1PD = torch.cat([text_D, augmented_KD])[None]
    segments = Segments((embeds_1PD.shape[1],))
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
        tuple(text_ids.tolist()),
        segments.num_tokens,
        [layer.keys[0] for layer in layers],
        [layer.values[0] for layer in layers],
        keys_values,
        np.concatenate([of_text, of_recall]),
        int(of_rest[0]),
    )


@torch.inference_mode()
def embed_behind(
    model: HourLlavaModel,
    prefix: KeptPrefix,
    memory: ProjectedMemory,
    texts: Sequence[Sequence[int]],
    observers: Sequence[QueryObserver | None],
) -> list[Tensor]:
    """[S, D] of each question what the decoder reads of it behind the prefix: recall tokens, augmented, and text.

    Questions look into the memory together, which a GPU does about as fast as for one. None sees the others.

    Args:
        model, memory: as for `make_kept_prefix`.
        prefix: of this memory and the text before its kept tokens.
        texts: token ids of each question's text behind the kept tokens.
        observers: of each question; each sees the queries of the text before the kept tokens, of recall tokens and of
            the text behind, in this order. The recall tokens are those of `recall_queries`.
    """
    learnt_RD, recall = model.memaug.recall_tokens, recall_queries(prefix, model.config)
    assert learnt_RD is not None
    before = [*prefix.text_ids, *[0] * len(learnt_RD)]
    ids = [[*before, *text] for text in texts]
    positions = [np.append(prefix.query_positions, prefix.next_position + np.arange(len(text))) for text in texts]
    questions = Segments(tuple(map(len, ids)))
    ids_A, positions_A = to_device(np.stack([np.concatenate(ids), np.concatenate(positions)]), learnt_RD.device)
    x_AD = model.get_input_embeddings()(ids_A)
    for start in questions.offsets[:-1]:
        x_AD[start + recall.start : start + recall.stop] = learnt_RD

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
