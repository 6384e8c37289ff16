"""The prefill: one prompt through the decoder, up to the first token's logits.

The prompt goes the packed way, as a single segment. So it needs no mask of L x L entries, and its kernel needs no plan
for each new length: see `MIN_PREFILL_SCORES_FOR_CUDNN` in `hourllava.model.attention`.

Where a memory's prefix is kept (`hourllava.model.kept_prefix`), only the tokens behind it go through the decoder: 100
in place of 8,900 for an hour.

Shapes: L prompt tokens, those of a kept prefix not counted, P tokens of the prefix, D width, V vocabulary, G key/value
heads, E head width.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from transformers import DynamicCache

from hourllava.model.attention import Segments
from hourllava.model.decoder_attention import placeholder_mask
from hourllava.model.devices import to_device
from hourllava.model.kept_prefix import KeptPrefix
from hourllava.model.modeling import HourLlavaForConditionalGeneration
from hourllava.model.prefix_attention import Prefixed, Prompts


class Prefilled(NamedTuple):
    """What a prefill gives.

    Attributes:
        logits_V: of the first new token.
        keys, values: [G, L, E] of each layer, one by one or as one tensor; all L, also in layers with a window.
        prefix: before these tokens.
    """

    logits_V: Tensor
    keys: Sequence[Tensor] | Tensor
    values: Sequence[Tensor] | Tensor
    prefix: KeptPrefix | None = None

    @property
    def num_own_tokens(self) -> int:
        """L."""
        return int(self.keys[0].shape[1])

    @property
    def num_tokens(self) -> int:
        """P + L."""
        return self.num_own_tokens + (self.prefix.num_tokens if self.prefix else 0)


class BehindPrefix:
    """Takes the place of transformers' Cache for prompts behind one prefix, in one row.

    Args:
        keys, values: [G, P, E] of the prefix in each layer; other prefixes may lie in there.
        prompts: where prefix and prompts lie.

    Attributes:
        own_keys, own_values: [1, G, L, E] of each layer, once it has run.
    """

    is_compileable = False

    def __init__(self, keys: list[Tensor], values: list[Tensor], prompts: Prompts) -> None:
        self._keys, self._values, self._prompts = keys, values, prompts
        self.own_keys: list[Tensor] = []
        self.own_values: list[Tensor] = []

    def update(
        self, key: Tensor, value: Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[Prefixed, Prefixed]:
        """Keep a layer's keys and values; give them behind those of the prefix."""
        self.own_keys.append(key)
        self.own_values.append(value)
        prefixes = self._keys[layer_idx], self._values[layer_idx]
        return (
            Prefixed(prefixes[0], key, prompts=self._prompts),
            Prefixed(prefixes[1], value, prompts=self._prompts),
        )

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Decoders use it only to build positions and masks, which we pass in."""
        return 1


@torch.inference_mode()
def prefill(model: HourLlavaForConditionalGeneration, embeds_LD: Tensor, prefix: KeptPrefix | None = None) -> Prefilled:
    """Run one embedded prompt through the decoder.

    Args:
        model: in evaluation mode.
        embeds_LD: the prompt, without padding; of one with a prefix, what follows it.
        prefix: of the prompt.
    """
    if prefix is not None:
        offsets = np.array([[0, len(embeds_LD)], [0, prefix.num_tokens]], np.int32)
        cache = BehindPrefix(prefix.keys, prefix.values, Prompts(*to_device(offsets, embeds_LD.device)))
        positions_1L = prefix.num_tokens + torch.arange(len(embeds_LD), device=embeds_LD.device)[None]
        hidden_LD = run_behind_prefix(model, embeds_LD, positions_1L, cache)
        keys, values = ([layer[0] for layer in layers] for layers in (cache.own_keys, cache.own_values))
        return Prefilled(model.lm_head(hidden_LD[-1]), keys, values, prefix)
    output = model(
        inputs_embeds=embeds_LD[None],
        segments=Segments((len(embeds_LD),)),
        past_key_values=DynamicCache(),  # keeps all keys, also of layers with a window
        use_cache=True,
        logits_to_keep=1,
    )
    layers = output.past_key_values.layers
    prompt = Prefilled(output.logits[0, -1], [layer.keys[0] for layer in layers], [layer.values[0] for layer in layers])
    # transformers' cache may lie in a circle of references. An hour's keys (0.33 GB with 3B) must not wait in there.
    layers.clear()
    return prompt


def run_behind_prefix(
    model: HourLlavaForConditionalGeneration,
    embeds_LD: Tensor,
    positions_1L: Tensor,
    cache: BehindPrefix,
) -> Tensor:
    """[L, D] last hidden states of tokens behind a prefix."""
    output = model.model.language_model(
        inputs_embeds=embeds_LD[None],
        attention_mask=placeholder_mask(embeds_LD.device),
        position_ids=positions_1L,
        past_key_values=cache,
        use_cache=True,
    )
    hidden_1LD: Tensor = output.last_hidden_state
    return hidden_1LD[0]
