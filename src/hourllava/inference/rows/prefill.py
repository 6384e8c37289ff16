"""The prefill: one prompt through the decoder, up to the first token's logits.

The prompt goes the packed way, as a single segment. So it needs no mask of L x L entries, and its kernel needs no plan
for each new length: see `MIN_PREFILL_SCORES_FOR_CUDNN` in `hourllava.model.attention`.

Shapes: L prompt tokens, D width, V vocabulary, G key/value heads, E head width.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from transformers import DynamicCache

from hourllava.model.attention import Segments
from hourllava.model.modeling import HourLlavaForConditionalGeneration


class Prefilled(NamedTuple):
    """What a prefill gives.

    Attributes:
        logits_V: of the first new token.
        keys, values: [G, L, E] of each layer; all L, also in layers with a window.
    """

    logits_V: Tensor
    keys: list[Tensor]
    values: list[Tensor]

    @property
    def num_tokens(self) -> int:
        """L."""
        return int(self.keys[0].shape[1])


@torch.inference_mode()
def prefill(model: HourLlavaForConditionalGeneration, embeds_LD: Tensor) -> Prefilled:
    """Run one embedded prompt through the decoder.

    Args:
        model: in evaluation mode.
        embeds_LD: the prompt, without padding.
    """
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
