"""What a decoding step reads and writes: keys and values of all rows, and their last tokens.

`SharedRows` keeps all rows in one set of buffers of fixed size, for CUDA. A step then does the same work on the same
addresses whichever rows take part, so it is captured once for each number of rows as a graph and replayed.

`OwnRows` gives each row buffers of its own, for the CPU. Weights are multiplied with the same number of rows in every
step, empty ones included, and each row attends alone. So a row's numbers are bit for bit those that it gets without
neighbours: how a matrix product is rounded depends on the number of rows, not on what is in the others.

Single numbers are written with `fill_` and `zero_`. With `tensor[row] = 1`, torch would copy the number from the host,
and wait until the device has done all that is queued.

A kept prefix is not copied into rows: they hold the tokens behind it, and look at both.

Shapes: R rows, L prompt tokens, S slots of a row, C tokens of prefixes, V vocabulary, G key/value heads, E head width.
"""

import abc
from typing import Any

import torch
from torch import Tensor

from hourllava.inference.rows.graphs import captured
from hourllava.inference.rows.prefill import Prefilled
from hourllava.inference.rows.prefixes import PrefixPool
from hourllava.model.backbones import attention_window
from hourllava.model.decoder_attention import Ragged, placeholder_mask
from hourllava.model.kept_prefix import KeptPrefix
from hourllava.model.modeling import HourLlavaForConditionalGeneration
from hourllava.model.prefix_attention import Prefixed


class RowBuffers(abc.ABC):
    """What both kinds of buffers share. They take the place of transformers' Cache in the decoder.

    Args:
        model: in evaluation mode.
        like: a prompt, for shapes, dtype and device.
        num_rows: R.

    Attributes:
        tokens_R1: the last token of each row, the next one after a step.
        logits_RV: of the last step.
    """

    is_compileable = False

    def __init__(self, model: HourLlavaForConditionalGeneration, like: Prefilled, num_rows: int) -> None:
        device = like.logits_V.device
        self.model, self.num_rows = model, num_rows
        self.tokens_R1 = torch.zeros(num_rows, 1, dtype=torch.long, device=device)
        self.positions_R1 = torch.zeros(num_rows, 1, dtype=torch.long, device=device)
        self.logits_RV = like.logits_V.new_zeros(num_rows, like.logits_V.shape[-1])
        self.window = attention_window(model.config.text_config)

    def put(self, row: int, prompt: Prefilled, token: Tensor, num_slots: int) -> None:
        """Begin a row after its prefill.

        Args:
            row: its place.
            prompt: from `prefill`.
            token: [1] its first new token.
            num_slots: tokens that the row will have, prompt included, a kept prefix not.
        """
        self.tokens_R1[row] = token
        self.positions_R1[row].fill_(prompt.num_tokens)

    def move(self, source: int, target: int) -> None:
        """Move a row to the place of another, which has left."""
        self.tokens_R1[target] = self.tokens_R1[source]
        self.positions_R1[target] = self.positions_R1[source]

    def clear(self, row: int) -> None:
        """Take a row out of use."""
        self.positions_R1[row].zero_()

    @abc.abstractmethod
    def step(self, num_rows: int) -> None:
        """Compute logits and the likeliest next token of the first rows."""

    @abc.abstractmethod
    def update(self, key: Tensor, value: Tensor, layer_idx: int, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
        """Write the keys and values [rows, G, 1, E] of one token each; give those of all slots."""

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Decoders use it only to build positions and masks, which we pass in."""
        return 1

    def _forward(self, num_rows: int, bias: Any, window_bias: Any) -> None:
        hidden = self.model.model.language_model(
            inputs_embeds=self.model.get_input_embeddings()(self.tokens_R1[:num_rows]),
            attention_mask=bias,
            position_ids=self.positions_R1[:num_rows],
            past_key_values=self,
            use_cache=True,
            **({} if window_bias is None else {"window_mask": window_bias}),
        ).last_hidden_state
        logits_RV = self.model.lm_head(hidden[:, -1])
        self.logits_RV[:num_rows] = logits_RV
        self.tokens_R1[:num_rows] = logits_RV.argmax(-1, keepdim=True)


class SharedRows(RowBuffers):
    """Rows of equally many slots in common buffers; on CUDA with a graph for each number of rows.

    Args:
        model, like, num_rows: as for `RowBuffers`.
        num_slots: S.
        pool: of prefixes; None if no row has one.
    """

    def __init__(
        self,
        model: HourLlavaForConditionalGeneration,
        like: Prefilled,
        num_rows: int,
        num_slots: int,
        pool: PrefixPool | None = None,
    ) -> None:
        super().__init__(model, like, num_rows)
        self.num_slots, self.pool = num_slots, pool
        device = like.logits_V.device

        # Keys and values of all layers lie in one tensor: a row joins or moves with a launch or two, not with 72.
        num_groups, _, width = like.keys[0].shape
        self._keys_values = like.keys[0].new_zeros(2, len(like.keys), num_rows, num_groups, num_slots, width)
        self.keys, self.values = self._keys_values  # [R, G, S, E] of each layer
        self.slot_R = torch.zeros(num_rows, dtype=torch.long, device=device)
        # 1 for rows in use. A row that is not in use writes to its first slot again and again, and looks at it only.
        self.advance_R = torch.zeros(num_rows, dtype=torch.long, device=device)
        # Added to the scores: 0 for visible slots, -inf for others.
        self.bias_R11S = self._keys_values.new_full((num_rows, 1, 1, num_slots), -torch.inf)
        self.prefix_bias_RC = None if pool is None else pool.no_bias(num_rows)
        self._num_active = num_rows
        self._graphs: dict[int, torch.cuda.CUDAGraph] = {}
        self._graph_memory: Any = None

    def put(self, row: int, prompt: Prefilled, token: Tensor, num_slots: int) -> None:
        """Begin a row; `num_slots` are at most those of the buffers."""
        super().put(row, prompt, token, num_slots)
        num_tokens = prompt.num_own_tokens
        for buffer, layers in ((self.keys, prompt.keys), (self.values, prompt.values)):
            if isinstance(layers, Tensor):
                buffer[:, row, :, :num_tokens] = layers
            else:  # one by one: an hour's keys of the published way take 0.16 GB once more if they are put together
                for own, layer in zip(buffer, layers, strict=True):
                    own[row, :, :num_tokens] = layer
        # An earlier row's NaN would spoil this one, though it is not visible.
        self._keys_values[:, :, row, :, num_tokens:].zero_()
        self.bias_R11S[row].fill_(-torch.inf)
        self.bias_R11S[row, ..., :num_tokens].zero_()
        self.slot_R[row].fill_(num_tokens)
        self.advance_R[row].fill_(1)
        if self.pool is not None and self.prefix_bias_RC is not None:
            self.pool.show(self.prefix_bias_RC[row], prompt.prefix)

    def move(self, source: int, target: int) -> None:
        """Copy a row."""
        super().move(source, target)
        for tensor in self._all():
            tensor[target] = tensor[source]

    def clear(self, row: int) -> None:
        """Take a row out of use."""
        super().clear(row)
        self.advance_R[row].zero_()
        self.slot_R[row].zero_()
        self.bias_R11S[row].fill_(-torch.inf)

    def take_over(self, other: "SharedRows", num_rows: int) -> None:
        """Copy the first rows of buffers with no more slots."""
        # Where the other has no prefix, the new ones stay hidden.
        for ours, theirs in zip(self._all(), other._all()):
            ours[(slice(0, num_rows), *(slice(0, size) for size in theirs.shape[1:]))] = theirs[:num_rows]
        self.tokens_R1[:num_rows] = other.tokens_R1[:num_rows]
        self.positions_R1[:num_rows] = other.positions_R1[:num_rows]

    def _slots(self) -> list[Tensor]:
        return [self.slot_R, self.advance_R, self.bias_R11S, self._keys_values.movedim(2, 0)]

    def _all(self) -> list[Tensor]:
        return self._slots() if self.prefix_bias_RC is None else [*self._slots(), self.prefix_bias_RC]

    def update(self, key: Tensor, value: Tensor, layer_idx: int, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
        """As `RowBuffers.update`; gives [rows, G, S, E]."""
        own = slice(0, self._num_active)
        keys, values = self.keys[layer_idx][own], self.values[layer_idx][own]
        slots = self.slot_R[own, None, None, None].expand_as(key)
        keys.scatter_(2, slots, key)
        values.scatter_(2, slots, value)
        if self.pool is None or self.prefix_bias_RC is None:
            return keys, values
        bias_RC = self.prefix_bias_RC[own]
        prefixes = self.pool.keys[layer_idx], self.pool.values[layer_idx]
        return Prefixed(prefixes[0], keys, bias_RC), Prefixed(prefixes[1], values, bias_RC)

    def step(self, num_rows: int) -> None:
        """As `RowBuffers.step`."""
        if self.tokens_R1.device.type != "cuda":
            self._run(num_rows)
            return
        if num_rows not in self._graphs:
            self._graphs[num_rows] = self._captured(num_rows)
        self._graphs[num_rows].replay()

    def _run(self, num_rows: int) -> None:
        self._num_active = num_rows
        slot_R, bias_R11S, window_bias = self.slot_R[:num_rows], self.bias_R11S[:num_rows], None
        bias_R11S.scatter_(3, slot_R[:, None, None, None], 0.0)
        if self.window is not None:  # layers with a window see only the last slots
            slots_S = torch.arange(self.num_slots, device=bias_R11S.device)
            first_R111 = (slot_R - self.window + 1)[:, None, None, None]
            window_bias = bias_R11S.masked_fill(slots_S < first_R111, -torch.inf)
        self._forward(num_rows, bias_R11S, window_bias)
        slot_R += self.advance_R[:num_rows]
        self.positions_R1[:num_rows] += self.advance_R[:num_rows, None]

    def _captured(self, num_rows: int) -> torch.cuda.CUDAGraph:
        tokens, advance = self.tokens_R1.clone(), self.advance_R.clone()
        self.advance_R.zero_()  # steps for practice write to the slot that the next step overwrites
        graph = captured(lambda: self._run(num_rows), self.tokens_R1.device, self._graph_memory)
        self.tokens_R1.copy_(tokens)
        self._graph_memory = graph.pool()
        self.advance_R.copy_(advance)
        return graph


class OwnRows(RowBuffers):
    """Rows with buffers of their own, of as many slots as each needs. Every step computes R rows, used or not.

    Args:
        model, like, num_rows: as for `RowBuffers`.
    """

    def __init__(self, model: HourLlavaForConditionalGeneration, like: Prefilled, num_rows: int) -> None:
        super().__init__(model, like, num_rows)
        num_layers = len(like.keys)
        # [1, G, S, E] of each layer and row.
        self.keys: list[list[Tensor]] = [[] for _ in range(num_layers)]
        self.values: list[list[Tensor]] = [[] for _ in range(num_layers)]
        self.num_used: list[int] = []
        self.prefixes: list[KeptPrefix | None] = []

    @property
    def num_slots(self) -> int:
        """Slots of all rows together."""
        return sum(key.shape[2] for key in self.keys[0])

    def put(self, row: int, prompt: Prefilled, token: Tensor, num_slots: int) -> None:
        """Begin a row behind all others."""
        super().put(row, prompt, token, num_slots)
        assert row == len(self.num_used), "rows are added at the end"
        own = []
        for tensor in (*prompt.keys, *prompt.values):
            own.append(tensor.new_zeros(1, tensor.shape[0], num_slots, tensor.shape[2]))
            own[-1][0, :, : prompt.num_own_tokens] = tensor
        for layer, buffer in zip((*self.keys, *self.values), own, strict=True):  # all of them, or none
            layer.append(buffer)
        self.num_used.append(prompt.num_own_tokens)
        self.prefixes.append(prompt.prefix)

    def move(self, source: int, target: int) -> None:
        """Hand the buffers over."""
        super().move(source, target)
        for rows in (*self.keys, *self.values, self.num_used, self.prefixes):
            rows[target] = rows[source]  # type: ignore[index]  # lists of tensors, of numbers and of prefixes

    def clear(self, row: int) -> None:
        """Free the buffers of the last row."""
        super().clear(row)
        for rows in (*self.keys, *self.values, self.num_used, self.prefixes):
            rows.pop()  # type: ignore[attr-defined]  # as above

    def update(self, key: Tensor, value: Tensor, layer_idx: int, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
        """As `RowBuffers.update`; gives the used slots of each row, [1, G, slots, E]."""
        given: list[list[Tensor]] = []
        for rows, tensor in ((self.keys[layer_idx], key), (self.values[layer_idx], value)):
            for number, (buffer, used) in enumerate(zip(rows, self.num_used)):
                buffer[0, :, used] = tensor[number, :, 0]
            given.append([buffer[:, :, : used + 1] for buffer, used in zip(rows, self.num_used)])
        keys, values = given
        return (
            Ragged([Prefixed(p.keys[layer_idx], key) if p else key for p, key in zip(self.prefixes, keys)]),
            Ragged([Prefixed(p.values[layer_idx], value) if p else value for p, value in zip(self.prefixes, values)]),
        )

    def step(self, num_rows: int) -> None:
        """As `RowBuffers.step`; `num_rows` are all rows in use."""
        assert num_rows == len(self.num_used)
        self._forward(self.num_rows, placeholder_mask(self.tokens_R1.device), None)
        for number in range(num_rows):
            self.num_used[number] += 1
        self.positions_R1[:num_rows] += 1
