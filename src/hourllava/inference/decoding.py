"""From an embedded prompt to tokens: one prefill, then one token at a time.

The prefill is an ordinary forward pass. Its keys and values then move into buffers of fixed size, so all steps do the
same work on the same addresses. On CUDA the step is captured once as a graph and replayed, which saves the launches of
some 1,300 kernels per token without a compiler. The graph and its buffers serve the next call with the same number of
questions, if its prompt and answer fit. Use transformers' `generate` for everything else, such as beam search.

Shapes: B rows, L prompt tokens, S slots of the buffers, D width, V vocabulary, G key/value heads, E head width.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from hourllava.errors import CheckpointError, ConfigError
from hourllava.inference.prefill import prefill
from hourllava.model.backbones import attention_window
from hourllava.model.modeling import HourLlavaForConditionalGeneration

# Buffers grow by this number of slots: large steps need few graphs, small ones spend little attention on unused slots.
SLOTS_STEP = 1024

# Steps before a graph is captured, in which libraries choose their kernels and allocate their workspaces.
WARM_UP_STEPS = 3

# Lower temperatures act like this one, which acts like 0; float32 cannot hold them.
MIN_TEMPERATURE = 1e-30


class FixedCache:
    """Keys and values in buffers of fixed size; a step writes to `slot`. Takes the place of transformers' Cache."""

    is_compileable = False

    def __init__(self, keys: Sequence[Tensor], values: Sequence[Tensor], num_slots: int) -> None:
        self.keys = [key.new_zeros(*key.shape[:2], num_slots, key.shape[3]) for key in keys]
        self.values = [value.new_zeros(*value.shape[:2], num_slots, value.shape[3]) for value in values]
        self.slot = torch.zeros(1, dtype=torch.long, device=keys[0].device)

    def load(self, keys: Sequence[Tensor], values: Sequence[Tensor]) -> None:
        """Begin with the prefill's keys and values, [B, G, L, E] of each layer."""
        for buffers, tensors in ((self.keys, keys), (self.values, values)):
            for buffer, tensor in zip(buffers, tensors):
                buffer[:, :, : tensor.shape[2]] = tensor
        self.slot.fill_(keys[0].shape[2])

    def update(self, key: Tensor, value: Tensor, layer_idx: int, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Write the keys and values [B, G, 1, E] of one token; give those of all slots, [B, G, S, E]."""
        self.keys[layer_idx].index_copy_(2, self.slot, key)
        self.values[layer_idx].index_copy_(2, self.slot, value)
        return self.keys[layer_idx], self.values[layer_idx]

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """S. Decoders use it only to build positions and masks, which we pass in."""
        return int(self.keys[0].shape[2])


class StepBuffers:
    """All tensors that a step reads and writes, and on CUDA its captured graph."""

    def __init__(self, model: HourLlavaForConditionalGeneration, keys: list[Tensor], values: list[Tensor], slots: int):
        num_rows, device = keys[0].shape[0], keys[0].device
        self.model = model
        self.cache = FixedCache(keys, values, slots)
        self.tokens = torch.zeros(num_rows, 1, dtype=torch.long, device=device)
        self.positions = torch.zeros(num_rows, 1, dtype=torch.long, device=device)
        # Added to the scores: 0 for visible slots, -inf for others.
        self.bias = torch.full((num_rows, 1, 1, slots), -torch.inf, dtype=keys[0].dtype, device=device)
        self.window = attention_window(model.config.text_config)
        self.logits = torch.zeros(num_rows, model.config.text_config.vocab_size, dtype=keys[0].dtype, device=device)
        self.graph: torch.cuda.CUDAGraph | None = None
        if device.type == "cuda":
            self._capture()

    @property
    def num_slots(self) -> int:
        """S."""
        return self.bias.shape[-1]

    def load(self, keys: list[Tensor], values: list[Tensor], attention_mask: Tensor) -> None:
        """Begin after a prefill of [B, L] tokens."""
        self.cache.load(keys, values)
        self.bias.fill_(-torch.inf)
        self.bias[:, 0, 0, : attention_mask.shape[1]].masked_fill_(attention_mask.bool(), 0.0)
        self.positions.copy_(attention_mask.sum(1, keepdim=True))

    def step(self, tokens: Tensor) -> Tensor:
        """[B] chosen tokens -> [B, V] logits of the next ones."""
        self.tokens.copy_(tokens[:, None])
        if self.graph is not None:
            self.graph.replay()
        else:
            self._run()
        return self.logits

    def _run(self) -> None:
        self.bias.index_fill_(3, self.cache.slot, 0.0)
        windows = {}
        if self.window is not None:  # layers with a window see only the last slots
            slots = torch.arange(self.num_slots, device=self.bias.device)
            windows["window_mask"] = self.bias.masked_fill(slots <= self.cache.slot - self.window, -torch.inf)
        hidden = self.model.model.language_model(
            inputs_embeds=self.model.get_input_embeddings()(self.tokens),
            attention_mask=self.bias,
            position_ids=self.positions,
            past_key_values=self.cache,
            use_cache=True,
            **windows,
        ).last_hidden_state
        self.logits.copy_(self.model.lm_head(hidden[:, -1]))
        self.cache.slot += 1
        self.positions += 1

    def _capture(self) -> None:
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(WARM_UP_STEPS):
                self._run()
        torch.cuda.current_stream().wait_stream(stream)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self._run()


class TextDecoder:
    """Runs the language model of one model: prefill, then steps.

    Args:
        model: in evaluation mode, on its device.
    """

    def __init__(self, model: HourLlavaForConditionalGeneration) -> None:
        self.model = model
        self._buffers: StepBuffers | None = None

    @torch.inference_mode()
    def prefill(self, embeds_BLD: Tensor, attention_mask: Tensor, max_new_tokens: int) -> Tensor:
        """Run prompts through the model: [B, L, D] -> [B, V] logits of the first new token.

        Args:
            embeds_BLD: embedded prompts, padded on the left.
            attention_mask: [B, L], 0 where padded.
            max_new_tokens: slots to reserve for steps.

        Raises:
            CheckpointError: a logit is NaN, because the weights are damaged.
        """
        logits: Tensor
        if embeds_BLD.shape[0] == 1:
            logits_V, row_keys, row_values = prefill(self.model, embeds_BLD[0])
            logits = logits_V[None]
            keys, values = ([part[None] for part in parts] for parts in (row_keys, row_values))
        else:
            padded = bool((attention_mask == 0).any())
            output = self.model(
                inputs_embeds=embeds_BLD,
                attention_mask=attention_mask if padded else None,
                position_ids=(attention_mask.cumsum(1) - 1).clamp(min=0) if padded else None,
                past_key_values=DynamicCache(),  # keeps all keys, also of layers with a window
                use_cache=True,
                logits_to_keep=1,
            )
            layers = output.past_key_values.layers
            keys, values = [layer.keys for layer in layers], [layer.values for layer in layers]
            logits = output.logits[:, -1]
        needed = embeds_BLD.shape[1] + max_new_tokens
        buffers = self._buffers
        if buffers is None or buffers.tokens.shape[0] != embeds_BLD.shape[0] or buffers.num_slots < needed:
            self._buffers = None  # free the old ones first
            buffers = StepBuffers(self.model, keys, values, -(-needed // SLOTS_STEP) * SLOTS_STEP)
            self._buffers = buffers
        buffers.load(keys, values, attention_mask)
        if logits.isnan().any():
            raise CheckpointError(
                "the model gives no numbers (NaN), so its weights are damaged: load another checkpoint"
            )
        return logits

    def release(self) -> None:
        """Free the buffers and the graph; the next prefill makes new ones."""
        self._buffers = None

    @torch.inference_mode()
    def step(self, tokens: Tensor) -> Tensor:
        """[B] chosen tokens -> [B, V] logits of the next ones, which the next step overwrites."""
        assert self._buffers is not None, "prefill comes first"
        return self._buffers.step(tokens)


class Sampler:
    """Chooses tokens from logits: the likeliest token, or a seeded random one.

    Args:
        temperature: 0 takes the likeliest token; larger values flatten the probabilities.
        top_p: tokens are drawn from the likeliest ones that together have this probability; above 0, at most 1.
        seed: of the random numbers, the same on every device. Each question of a batch draws its own numbers from this
            seed, so its answer does not depend on the other questions, and equal questions get equal answers.

    Raises:
        ConfigError: a number is outside what is allowed.
    """

    def __init__(self, temperature: float = 0.0, top_p: float = 1.0, seed: int = 0) -> None:
        if not 0 <= temperature < math.inf:
            raise ConfigError(f"temperature is {temperature}; it must be 0 (always the likeliest token) or more")
        if not 0 < top_p <= 1:
            raise ConfigError(f"top_p is {top_p}; it must lie above 0 and not above 1")
        if not -(2**63) <= seed < 2**64:
            raise ConfigError(f"seed is {seed}; it must have at most 64 bits")
        self.temperature, self.top_p, self.seed = temperature, top_p, seed
        self._generators: list[torch.Generator] = []

    def choose(self, logits_BV: Tensor) -> Tensor:
        """[B, V] -> [B] token ids."""
        if self.temperature == 0:
            return logits_BV.argmax(-1)
        logits_BV, device = logits_BV.float().cpu(), logits_BV.device
        # The largest logit becomes 0 first, because a tiny temperature would make it infinite.
        scaled = (logits_BV - logits_BV.amax(-1, keepdim=True)) / max(self.temperature, MIN_TEMPERATURE)
        probabilities, order = scaled.softmax(-1).sort(-1, descending=True)
        # A token is a candidate if the likelier ones have less than top_p together; the likeliest always is.
        before = probabilities.cumsum(-1) - probabilities
        probabilities = probabilities.masked_fill(before >= self.top_p, 0.0)
        while len(self._generators) < len(probabilities):
            self._generators.append(torch.Generator().manual_seed(self.seed))
        drawn = [torch.multinomial(row, 1, generator=own) for row, own in zip(probabilities, self._generators)]
        return order.gather(1, torch.stack(drawn))[:, 0].to(device)


def generate_tokens(
    decoder: TextDecoder,
    embeds_BLD: Tensor,
    attention_mask: Tensor,
    *,
    stop_ids: Sequence[int],
    max_new_tokens: int,
    sampler: Sampler,
) -> Iterator[list[int | None]]:
    """Decode prompts together, one token of each per step, until all have ended.

    Args:
        decoder: of the model.
        embeds_BLD, attention_mask: prompts, see `TextDecoder.prefill`.
        stop_ids: tokens that end an answer; they are not yielded.
        max_new_tokens: limit for each answer.
        sampler: chooses the tokens.

    Yields:
        [B] the next token of each prompt, None for one whose answer has ended.
    """
    running = [True] * embeds_BLD.shape[0]
    logits = decoder.prefill(embeds_BLD, attention_mask, max_new_tokens)
    for number in range(max_new_tokens):
        tokens = sampler.choose(logits)
        chosen = tokens.tolist()
        running = [alive and token not in stop_ids for alive, token in zip(running, chosen)]
        if not any(running):
            return
        yield [token if alive else None for token, alive in zip(chosen, running)]
        if number + 1 < max_new_tokens:
            logits = decoder.step(tokens)
