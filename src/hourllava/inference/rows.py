"""Rows: answers that are decoded together, and that join and leave at any step.

A prompt is prefilled alone. Its keys and values then move into one row of buffers of fixed size, so every step does the
same work on the same addresses. On CUDA all rows share one set of buffers and take a step together; a step of 1, 2, 4,
8, 16 or 32 rows is captured once as a graph and replayed, which saves the launches of some 1,300 kernels without a
compiler. On the CPU each row has buffers of its own and is stepped alone: its tokens are bit for bit those that it
gives without neighbours.

Nothing waits on CUDA: the next step is launched before the tokens of the last one are handed out.

    rows = RowDecoder(model)
    row = rows.join(prefill(model, embeds_LD), max_new_tokens=64, sampling=Sampling())
    while len(rows):
        for row, token in rows.step():
            ...  # rows.leave(row) once it has ended

Shapes: R rows, L prompt tokens, S slots of a row, D width, V vocabulary, G key/value heads, E head width.
"""

import collections
import dataclasses
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from hourllava.inference.sampling import Sampling, draw
from hourllava.model.attention import Segments
from hourllava.model.backbones import attention_window
from hourllava.model.modeling import HourLlavaForConditionalGeneration

# Shared buffers grow by this number of slots: large steps need few graphs, small ones little attention to unused slots.
SLOTS_STEP = 1024

MAX_ROWS = 32

# Bytes that the keys and values of all rows may take: ten rows of an hour with the 3B model. A small card gives less.
MAX_ROW_BYTES = 4 * 2**30
MAX_SHARE_OF_DEVICE = 0.1

# Steps before a graph is captured, in which libraries choose their kernels and allocate their workspaces.
WARM_UP_STEPS = 3

DAMAGED = -1
"""Handed out in place of a first token if the model's logits are NaN: its weights are damaged."""


@dataclasses.dataclass(frozen=True)
class Prefilled:
    """A prompt that went through the decoder.

    Attributes:
        logits_V: of its first new token.
        keys, values: [G, L, E] of each layer.
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
    """Run one embedded prompt through the decoder."""
    output = model(
        inputs_embeds=embeds_LD[None],
        segments=Segments((len(embeds_LD),)),
        past_key_values=DynamicCache(),  # keeps all keys, also of layers with a window
        use_cache=True,
        logits_to_keep=1,
    )
    layers = output.past_key_values.layers
    return Prefilled(output.logits[0, -1], [layer.keys[0] for layer in layers], [layer.values[0] for layer in layers])


class RowCache:
    """Keys and values of rows in buffers of fixed size. Takes the place of transformers' Cache in a step.

    Attributes:
        keys, values: [R, G, S, E] of each layer.
        slot_R: the slot that the next token of each row is written to.
        num_active: rows that take part in the present step, the first ones.
    """

    is_compileable = False

    def __init__(self, like: Prefilled, num_rows: int, num_slots: int) -> None:
        def room(tensor: Tensor) -> Tensor:
            return tensor.new_zeros(num_rows, tensor.shape[0], num_slots, tensor.shape[2])

        self.keys, self.values = [room(key) for key in like.keys], [room(value) for value in like.values]
        self.slot_R = torch.zeros(num_rows, dtype=torch.long, device=like.logits_V.device)
        self.num_active = num_rows

    def update(self, key: Tensor, value: Tensor, layer_idx: int, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Write the keys and values [R, G, 1, E] of one token each; give those of all slots, [R, G, S, E]."""
        own = slice(0, self.num_active)
        keys, values = self.keys[layer_idx][own], self.values[layer_idx][own]
        slots = self.slot_R[own, None, None, None].expand_as(key)
        keys.scatter_(2, slots, key)
        values.scatter_(2, slots, value)
        return keys, values

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """S. Decoders use it only to build positions and masks, which we pass in."""
        return int(self.keys[0].shape[2])


class RowBuffers:
    """All tensors that a step of some rows reads and writes, and on CUDA its captured graphs.

    Args:
        model: in evaluation mode.
        like: a prompt, for the shapes, dtype and device.
        num_rows: R.
        num_slots: S.
    """

    def __init__(
        self, model: HourLlavaForConditionalGeneration, like: Prefilled, num_rows: int, num_slots: int
    ) -> None:
        device, dtype = like.logits_V.device, like.keys[0].dtype
        self.model, self.num_rows, self.num_slots = model, num_rows, num_slots
        self.cache = RowCache(like, num_rows, num_slots)
        self.tokens_R1 = torch.zeros(num_rows, 1, dtype=torch.long, device=device)
        self.positions_R1 = torch.zeros(num_rows, 1, dtype=torch.long, device=device)
        # 1 for rows in use. A row that is not in use writes to its first slot again and again, and looks at it only.
        self.advance_R = torch.zeros(num_rows, dtype=torch.long, device=device)
        # Added to the scores: 0 for visible slots, -inf for others.
        self.bias_R11S = torch.full((num_rows, 1, 1, num_slots), -torch.inf, dtype=dtype, device=device)
        self.logits_RV = like.logits_V.new_zeros(num_rows, like.logits_V.shape[-1])
        self.window = attention_window(model.config.text_config)
        self.uses_graphs = device.type == "cuda"
        self._graphs: dict[int, torch.cuda.CUDAGraph] = {}
        self._pool: Any = None

    def put(self, row: int, prompt: Prefilled, token: Tensor) -> None:
        """Begin a row after its prefill, with its first new token [1]."""
        num_tokens = prompt.num_tokens
        for buffers, tensors in ((self.cache.keys, prompt.keys), (self.cache.values, prompt.values)):
            for buffer, tensor in zip(buffers, tensors):
                buffer[row, :, :num_tokens] = tensor
        self.bias_R11S[row] = -torch.inf
        self.bias_R11S[row, ..., :num_tokens] = 0.0
        self.cache.slot_R[row] = num_tokens
        self.positions_R1[row] = num_tokens
        self.advance_R[row] = 1
        self.tokens_R1[row] = token

    def move(self, source: int, target: int) -> None:
        """Copy the state of a row to another row."""
        for tensor in self._state():
            tensor[target] = tensor[source]

    def clear(self, row: int) -> None:
        """Take a row out of use."""
        self.advance_R[row] = 0
        self.cache.slot_R[row] = 0
        self.positions_R1[row] = 0
        self.bias_R11S[row] = -torch.inf

    def take_over(self, other: "RowBuffers", num_rows: int) -> None:
        """Copy the first rows of smaller buffers."""
        for ours, theirs in zip(self._state(), other._state(), strict=True):
            if theirs.ndim == 4:  # keys, values and bias have slots in their last dimension but one, or in their last
                slots = [slice(0, size) for size in theirs.shape[1:]]
                ours[(slice(0, num_rows), *slots)] = theirs[:num_rows]
            else:
                ours[:num_rows] = theirs[:num_rows]

    def _state(self) -> list[Tensor]:
        cache = self.cache
        rows = [self.tokens_R1, self.positions_R1, self.advance_R, self.bias_R11S, cache.slot_R]
        return [*rows, *cache.keys, *cache.values]

    def step(self, num_rows: int) -> None:
        """Compute the logits and the likeliest next token of the first rows."""
        if not self.uses_graphs:
            self._run(num_rows)
            return
        if num_rows not in self._graphs:
            self._graphs[num_rows] = self._captured(num_rows)
        self._graphs[num_rows].replay()

    def _run(self, num_rows: int) -> None:
        self.cache.num_active = num_rows
        slots_R, bias_R11S = self.cache.slot_R[:num_rows], self.bias_R11S[:num_rows]
        bias_R11S.scatter_(3, slots_R[:, None, None, None], 0.0)
        windows = {}
        if self.window is not None:  # layers with a window see only the last slots
            all_slots = torch.arange(self.num_slots, device=bias_R11S.device)
            first_R111 = (slots_R - self.window + 1)[:, None, None, None]
            windows["window_mask"] = bias_R11S.masked_fill(all_slots < first_R111, -torch.inf)
        hidden = self.model.model.language_model(
            inputs_embeds=self.model.get_input_embeddings()(self.tokens_R1[:num_rows]),
            attention_mask=bias_R11S,
            position_ids=self.positions_R1[:num_rows],
            past_key_values=self.cache,
            use_cache=True,
            **windows,
        ).last_hidden_state
        logits_RV = self.model.lm_head(hidden[:, -1])
        self.logits_RV[:num_rows] = logits_RV
        self.tokens_R1[:num_rows] = logits_RV.argmax(-1, keepdim=True)
        slots_R += self.advance_R[:num_rows]
        self.positions_R1[:num_rows] += self.advance_R[:num_rows, None]

    def _captured(self, num_rows: int) -> torch.cuda.CUDAGraph:
        tokens, advance = self.tokens_R1.clone(), self.advance_R.clone()
        self.advance_R.zero_()  # steps for practice write to the slot that the next step overwrites
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(WARM_UP_STEPS):
                self._run(num_rows)
        torch.cuda.current_stream().wait_stream(stream)
        self.tokens_R1.copy_(tokens)
        graph = torch.cuda.CUDAGraph()
        # Other threads may use CUDA meanwhile.
        with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
            self._run(num_rows)
        self._pool = graph.pool()
        self.advance_R.copy_(advance)
        return graph


@dataclasses.dataclass(eq=False)
class Row:
    """An answer that is being decoded.

    Attributes:
        max_new_tokens: it gets no more than these.
        sampling: how its tokens are chosen.
        uniforms: [max_new_tokens] its random numbers, on the device; None if it is greedy.
        num_launched: tokens that were computed or are on their way.
        has_left: its tokens are no longer handed out.
    """

    max_new_tokens: int
    sampling: Sampling
    uniforms: Tensor | None
    num_launched: int = 1
    has_left: bool = False

    def uniform_1(self) -> Tensor:
        """[1] the random number of the next token."""
        assert self.uniforms is not None
        return self.uniforms[self.num_launched, None]


@dataclasses.dataclass(frozen=True)
class _Handout:
    """Tokens on their way to the host: [number of rows], ready when the event is; None: ready."""

    rows: list[Row]
    tokens: Tensor
    event: torch.cuda.Event | None


class RowDecoder:
    """Decodes rows of one model. Only one thread may use it.

    Args:
        model: in evaluation mode, on its device.
        max_rows: rows that are decoded together, at most.
        max_bytes: bytes that their keys and values may take; one row is always allowed. By default 4 GiB or a tenth of
            the device.
    """

    def __init__(
        self, model: HourLlavaForConditionalGeneration, *, max_rows: int = MAX_ROWS, max_bytes: int | None = None
    ) -> None:
        self.model, self.max_rows = model, max_rows
        self._max_bytes = max_bytes
        self._on_cuda = model.device.type == "cuda"
        self._shares_buffers = self._on_cuda
        # On CUDA the next step is launched before the tokens of the last one are handed out.
        self._max_waiting = 1 if self._on_cuda else 0
        self._rows: list[Row] = []
        self._own: dict[Row, RowBuffers] = {}  # on the CPU
        self._shared: RowBuffers | None = None  # on CUDA; row k of the buffers is self._rows[k]
        self._handouts: collections.deque[_Handout] = collections.deque()

    def __len__(self) -> int:
        """Rows whose tokens are not all handed out."""
        return len(self.running())

    @property
    def max_bytes(self) -> int:
        """Bytes that keys and values of all rows may take."""
        if self._max_bytes is not None:
            return self._max_bytes
        if not self._on_cuda:
            return MAX_ROW_BYTES
        total = torch.cuda.get_device_properties(self.model.device).total_memory
        return min(MAX_ROW_BYTES, int(total * MAX_SHARE_OF_DEVICE))

    @property
    def bytes_per_slot(self) -> int:
        """Bytes of the keys and values of one token."""
        text = self.model.config.text_config
        groups = getattr(text, "num_key_value_heads", None) or text.num_attention_heads
        width = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
        return int(2 * text.num_hidden_layers * groups * width * self.model.dtype.itemsize)

    def has_room(self, num_tokens: int) -> bool:
        """Whether a row of so many tokens, prompt and answer, may join now."""
        if not self._rows:
            return True
        if not self._shares_buffers:
            taken = sum(buffers.num_slots for buffers in self._own.values())
            is_small = (taken + num_tokens) * self.bytes_per_slot <= self.max_bytes
            return len(self._rows) < self.max_rows and is_small
        return len(self._rows) < self._capacity(self._num_slots(num_tokens))

    def _num_slots(self, num_tokens: int) -> int:
        """Slots of the shared buffers that so many tokens need, not fewer than there are."""
        needed = -(-num_tokens // SLOTS_STEP) * SLOTS_STEP
        return needed if self._shared is None else max(needed, self._shared.num_slots)

    def _capacity(self, num_slots: int) -> int:
        return min(self.max_rows, max(1, self.max_bytes // (num_slots * self.bytes_per_slot)))

    @torch.inference_mode()
    def join(self, prompt: Prefilled, *, max_new_tokens: int, sampling: Sampling) -> Row:
        """Add a row; there must be room. Its first token is handed out by one of the next steps.

        Args:
            prompt: from `prefill`.
            max_new_tokens: at least 1.
            sampling: how its tokens are chosen.
        """
        uniforms = None if sampling.is_greedy else sampling.uniforms(max_new_tokens).to(prompt.logits_V.device)
        row = Row(max_new_tokens, sampling, uniforms)
        logits_1V = prompt.logits_V[None]
        token = logits_1V.argmax(-1) if uniforms is None else draw(logits_1V, sampling, uniforms[:1])
        self._hand_out([row], torch.where(logits_1V.isnan().any(), DAMAGED, token))
        if max_new_tokens > 1:
            self._place(row, prompt, token)
        return row

    def _place(self, row: Row, prompt: Prefilled, token: Tensor) -> None:
        num_slots = prompt.num_tokens + row.max_new_tokens
        self._rows.append(row)
        if not self._shares_buffers:
            self._own[row] = RowBuffers(self.model, prompt, 1, num_slots)
            self._own[row].put(0, prompt, token)
            return
        num_slots, num_rows = self._num_slots(num_slots), len(self._rows)
        old = self._shared
        if old is None or old.num_slots < num_slots or old.num_rows < num_rows:
            # One row at first: who asks one question at a time never pays for more. Then all at once, because every
            # new set of buffers needs new graphs.
            self._shared = RowBuffers(self.model, prompt, 1 if num_rows == 1 else self._capacity(num_slots), num_slots)
            if old is not None:
                self._shared.take_over(old, num_rows - 1)
        assert self._shared is not None
        self._shared.put(num_rows - 1, prompt, token)

    @torch.inference_mode()
    def step(self) -> list[tuple[Row, int]]:
        """Compute the next token of every row, and hand out tokens that are ready.

        Returns:
            rows with a token each, in the order of their tokens; `DAMAGED` for a row whose logits are NaN.
        """
        if len(self._handouts) <= self._max_waiting and self._rows:
            self._launch()
        elif not self._handouts:
            return []
        if len(self._handouts) <= self._max_waiting and self._rows:
            return []
        handout = self._handouts.popleft()
        if handout.event is not None:
            handout.event.synchronize()
        tokens = zip(handout.rows, handout.tokens.tolist())
        return [(row, token) for row, token in tokens if not row.has_left]

    def _launch(self) -> None:
        rows = list(self._rows)
        if self._shared is not None:
            bucket = min(1 << (len(rows) - 1).bit_length(), self._shared.num_rows)
            self._shared.step(bucket)
            for k, row in enumerate(rows):
                self._draw(row, self._shared, k)
            self._hand_out(rows, self._shared.tokens_R1[: len(rows), 0])
        else:
            for row in rows:
                buffers = self._own[row]
                buffers.step(1)
                self._draw(row, buffers, 0)
            self._hand_out(rows, torch.cat([self._own[row].tokens_R1[:, 0] for row in rows]))
        for row in rows:
            row.num_launched += 1
            if row.num_launched == row.max_new_tokens:
                self._remove(row)

    def _draw(self, row: Row, buffers: RowBuffers, place: int) -> None:
        """Replace the likeliest token of a row by one that is drawn, unless the row is greedy."""
        if row.uniforms is not None:
            logits_1V = buffers.logits_RV[place, None]
            buffers.tokens_R1[place] = draw(logits_1V, row.sampling, row.uniform_1())

    def _hand_out(self, rows: list[Row], tokens: Tensor) -> None:
        event = None
        host = torch.empty(len(rows), dtype=tokens.dtype, pin_memory=self._on_cuda)
        host.copy_(tokens, non_blocking=True)
        if self._on_cuda:
            event = torch.cuda.Event()
            event.record()
        self._handouts.append(_Handout(rows, host, event))

    @torch.inference_mode()
    def leave(self, row: Row) -> None:
        """Take a row out: it has ended or was cancelled. Its further tokens are dropped."""
        row.has_left = True
        if row in self._rows:
            self._remove(row)

    def _remove(self, row: Row) -> None:
        place = self._rows.index(row)
        if self._shared is None:
            self._rows.pop(place)
            del self._own[row]
            return
        last = len(self._rows) - 1
        if place != last:
            self._shared.move(last, place)
            self._rows[place] = self._rows[last]
        self._shared.clear(last)
        self._rows.pop()

    def release(self) -> None:
        """Drop all rows, and free the buffers and graphs."""
        for row in self.running():
            row.has_left = True
        self._rows.clear()
        self._own.clear()
        self._handouts.clear()
        self._shared = None

    def running(self) -> list[Row]:
        """Rows that have not left, also those whose last tokens are on their way."""
        on_their_way = {row: None for handout in self._handouts for row in handout.rows if not row.has_left}
        return list(dict.fromkeys([*self._rows, *on_their_way]))
