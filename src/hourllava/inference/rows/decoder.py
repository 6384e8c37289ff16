"""Rows: answers that are decoded together, and that join and leave at any step.

A prompt is prefilled alone, or with others behind the same kept prefix. Its keys and values then move into a row, and
all rows take their steps together. A row's tokens do not depend on its neighbours (`hourllava.inference.rows.buffers`
says how).

Nothing waits on CUDA: the next step is launched before the tokens of the last one are handed out.

    rows = RowDecoder(model)
    (prefilled,) = rows.prefill([embeds_LD])
    row = rows.join(prefilled, max_new_tokens=64, sampling=Sampling())
    while len(rows):
        for row, token in rows.step():
            ...  # rows.leave(row) once it has ended

Shapes: L prompt tokens, D width, S slots.
"""

import collections
import dataclasses
import functools
from collections.abc import Sequence

import torch
from torch import Tensor

from hourllava.inference.rows.buffers import OwnRows, RowBuffers, SharedRows
from hourllava.inference.rows.prefill import Prefilled, prefill
from hourllava.inference.rows.prefixes import PrefixedPrompts
from hourllava.inference.rows.sampling import Sampling, draw
from hourllava.model.devices import HostCopy
from hourllava.model.kept_prefix import KeptPrefix
from hourllava.model.modeling import HourLlavaForConditionalGeneration

# Shared buffers grow by this number of slots: large steps need few graphs, small ones little attention to unused slots.
SLOTS_STEP = 512

# Shared buffers have one of these numbers of rows. So one question at a time, or a few, do not pay for more. Every new
# set of buffers needs new graphs, so there are few sizes. 100 questions of 16 tokens about an hour take 0.94 s with 128
# rows, 1.06 with 64, 1.25 with 32 (3B with recall tokens, H200).
ROWS_OF_BUFFERS = (1, 32, 128)
MAX_ROWS = ROWS_OF_BUFFERS[-1]

# Rows on the CPU. Each step computes as many, empty ones included, so more of them would make a single answer slower.
MAX_ROWS_ON_CPU = 8

# Bytes that the keys and values of all rows may take: 11 rows of an hour with the 3B model and answers of 512 tokens. A
# small card gives less.
MAX_ROW_BYTES = 4 * 2**30
MAX_SHARE_OF_DEVICE = 0.1

# Bytes of prefixes that rows may look at together: six memories of an hour with the 3B model, four with 7B.
MAX_PREFIX_BYTES = 2 * 2**30

DAMAGED = -1
"""Handed out in place of a token if the model's logits are NaN: its weights are damaged."""


@dataclasses.dataclass(eq=False)
class Row:
    """An answer that is being decoded.

    Attributes:
        max_new_tokens: it gets no more than these.
        sampling: how its tokens are chosen.
        uniforms: [max_new_tokens] its random numbers, on the device; None if it is greedy.
        prefix: that it is behind.
        num_launched: tokens that were computed or are on their way.
        has_left: its tokens are no longer handed out.
    """

    max_new_tokens: int
    sampling: Sampling
    uniforms: Tensor | None
    prefix: KeptPrefix | None = None
    num_launched: int = 1
    has_left: bool = False


@dataclasses.dataclass(frozen=True)
class _Handout:
    """Tokens on their way to the host: [number of rows]."""

    rows: list[Row]
    tokens: HostCopy


class RowDecoder:
    """Decodes rows of one model. Only one thread may use it.

    Args:
        model: in evaluation mode, on its device.
        max_rows: rows that are decoded together, at most; by default 128 on a GPU, 8 on the CPU.
        max_bytes: bytes that their keys and values may take; one row is always allowed. By default 4 GiB or a tenth of
            the GPU's memory.
    """

    def __init__(
        self,
        model: HourLlavaForConditionalGeneration,
        *,
        max_rows: int | None = None,
        max_bytes: int | None = None,
    ) -> None:
        self.model = model
        self._on_cuda = model.device.type == "cuda"
        self._shares_buffers = self._on_cuda
        self.max_rows = max_rows or (MAX_ROWS if self._on_cuda else MAX_ROWS_ON_CPU)
        self.max_bytes = _default_max_bytes(model.device) if max_bytes is None else max_bytes
        # On CUDA the next step is launched before the tokens of the last one are handed out.
        self._max_waiting = 1 if self._on_cuda else 0
        self._rows: list[Row] = []  # row k of the buffers is self._rows[k]
        self._buffers: RowBuffers | None = None
        self._prefixed = PrefixedPrompts(model, MAX_PREFIX_BYTES)
        self._joined: list[tuple[Row, Tensor, Tensor]] = []  # with first token and logits, not on their way yet
        self._handouts: collections.deque[_Handout] = collections.deque()

    def __len__(self) -> int:
        """Rows whose tokens are not all handed out."""
        return len(self.running())

    def running(self) -> list[Row]:
        """Rows that have not left, also those whose last tokens are on their way."""
        on_their_way = [row for handout in self._handouts for row in handout.rows]
        joined = [row for row, _, _ in self._joined]
        return [row for row in dict.fromkeys([*self._rows, *on_their_way, *joined]) if not row.has_left]

    @functools.cached_property
    def bytes_per_slot(self) -> int:
        """Bytes of the keys and values of one token."""
        text = self.model.config.text_config
        groups = getattr(text, "num_key_value_heads", None) or text.num_attention_heads
        width = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
        return int(2 * text.num_hidden_layers * groups * width * self.model.dtype.itemsize)

    def has_room(self, num_tokens: int, prefix: KeptPrefix | None = None, before: Sequence[int] = ()) -> bool:
        """Whether a row of so many tokens, prompt without prefix and answer, may join now.

        Args:
            num_tokens: of the row.
            prefix: of the row.
            before: tokens of rows that join before it, behind the same prefix.
        """
        num_before = len(self._rows) + len(before)
        if not num_before:
            return True
        if self._shares_buffers:
            has_place = prefix is None or bool(before) or self._prefixed.has_room(prefix, self._prefixes())
            return has_place and num_before < self._capacity(self._num_slots(max([num_tokens, *before])))
        assert isinstance(self._buffers, OwnRows)
        num_bytes = (self._buffers.num_slots + num_tokens) * self.bytes_per_slot
        return len(self._rows) < self.max_rows and num_bytes <= self.max_bytes

    def _num_slots(self, num_tokens: int) -> int:
        """Slots of shared buffers that so many tokens need, not fewer than there are."""
        needed = -(-num_tokens // SLOTS_STEP) * SLOTS_STEP
        if not isinstance(self._buffers, SharedRows) or (not self._rows and self._buffers.num_slots > 2 * needed):
            return needed  # also after a row that needed far more
        return max(needed, self._buffers.num_slots)

    def _capacity(self, num_slots: int) -> int:
        return min(self.max_rows, max(1, self.max_bytes // (num_slots * self.bytes_per_slot)))

    def _prefixes(self) -> set[KeptPrefix]:
        """Prefixes that rows are behind."""
        return {row.prefix for row in self._rows if row.prefix is not None}

    @property
    def max_together(self) -> int:
        """Prompts behind one prefix that are prefilled together, at most.

        On the CPU it is 1: each token's numbers are those of a question that is asked alone.
        """
        return self._prefixed.max_together if self._shares_buffers else 1

    def go_together(self, lengths: Sequence[int]) -> bool:
        """Whether prompts of so many tokens behind one prefix can be prefilled together."""
        return len(lengths) <= self.max_together and self._prefixed.go_together(lengths)

    @torch.inference_mode()
    def prefill(self, prompts: Sequence[Tensor], prefix: KeptPrefix | None = None) -> list[Prefilled]:
        """Run prompts through the decoder; there must be room. They join before the next ones run.

        Args:
            prompts: [L, D] of each; of those with a prefix, what follows it. Several must `go_together`.
            prefix: of all of them.
        """
        self._hand_out_joined()  # whose logits may be overwritten now
        if prefix is None or not self._shares_buffers:
            return [prefill(self.model, embeds_LD, prefix) for embeds_LD in prompts]
        return self._prefixed.prefill(prompts, prefix, self._prefixes())

    @torch.inference_mode()
    def next_logits(self, embeds_LD: Tensor, prefix: KeptPrefix | None = None) -> Tensor:
        """[V] of the token behind a prompt that does not become a row.

        Args:
            embeds_LD: [L, D] the prompt; of one with a prefix, what follows it.
            prefix: of the prompt.
        """
        has_place = prefix is None or self._prefixed.has_room(prefix, self._prefixes())
        prefilled = self.prefill([embeds_LD], prefix)[0] if has_place else prefill(self.model, embeds_LD, prefix)
        return prefilled.logits_V

    @torch.inference_mode()
    def join(self, prompt: Prefilled, *, max_new_tokens: int, sampling: Sampling) -> Row:
        """Add a row; there must be room. Its first token is handed out by one of the next steps.

        Args:
            prompt: from `prefill`.
            max_new_tokens: at least 1.
            sampling: how its tokens are chosen.
        """
        uniforms = None if sampling.is_greedy else sampling.uniforms(max_new_tokens).to(prompt.logits_V.device)
        row = Row(max_new_tokens, sampling, uniforms, prompt.prefix)
        logits_1V = prompt.logits_V[None]
        token = logits_1V.argmax(-1) if uniforms is None else draw(logits_1V, sampling, uniforms[:1])
        if max_new_tokens > 1:
            num_slots = prompt.num_own_tokens + max_new_tokens
            buffers = self._shared_buffers(prompt, num_slots) if self._shares_buffers else self._own_buffers(prompt)
            buffers.put(len(self._rows), prompt, token, num_slots)
            self._rows.append(row)
        self._joined.append((row, token, logits_1V))  # last: nothing is handed out of a row that could not join
        return row

    def _own_buffers(self, like: Prefilled) -> RowBuffers:
        if self._buffers is None:
            self._buffers = OwnRows(self.model, like, self.max_rows)
        return self._buffers

    def _shared_buffers(self, like: Prefilled, num_slots: int) -> RowBuffers:
        """Buffers with room for one more row of so many slots."""
        num_slots, old, num_old = self._num_slots(num_slots), self._buffers, len(self._rows)
        pool = self._prefixed.pool
        is_right = isinstance(old, SharedRows) and old.num_slots == num_slots and old.pool is pool
        if isinstance(old, SharedRows) and is_right and old.num_rows > num_old:
            return old
        wanted = max(num_old + 1, 1 if old is None else old.num_rows)
        num_rows = next((number for number in ROWS_OF_BUFFERS if number >= wanted), self.max_rows)
        if num_old == 0:
            self._buffers = old = None  # freed before the new ones are made
        buffers = SharedRows(self.model, like, min(num_rows, self._capacity(num_slots)), num_slots, pool)
        if isinstance(old, SharedRows):
            buffers.take_over(old, num_old)
        self._buffers = buffers
        return buffers

    @torch.inference_mode()
    def step(self) -> list[tuple[Row, int]]:
        """Compute the next token of every row, and hand out tokens that are ready.

        Returns:
            rows with a token each, in the order of their tokens; `DAMAGED` for a row whose logits are NaN.
        """
        self._hand_out_joined()
        if self._rows and len(self._handouts) <= self._max_waiting:
            self._launch()
        if not self._handouts or (self._rows and len(self._handouts) <= self._max_waiting):
            return []
        handout = self._handouts.popleft()
        tokens = zip(handout.rows, handout.tokens.wait().tolist())
        return [(row, token) for row, token in tokens if not row.has_left]

    def _launch(self) -> None:
        rows, buffers = list(self._rows), self._buffers
        assert buffers is not None
        num_rows = len(rows)
        if self._shares_buffers:  # one graph serves several numbers of rows
            num_rows = min(1 << (num_rows - 1).bit_length(), buffers.num_rows)
        buffers.step(num_rows)
        for place, row in enumerate(rows):
            if row.uniforms is not None:
                token = draw(buffers.logits_RV[place, None], row.sampling, row.uniforms[row.num_launched, None])
                buffers.tokens_R1[place] = token
        self._hand_out(rows, buffers.tokens_R1[: len(rows), 0], buffers.logits_RV[: len(rows)])
        for row in rows:
            row.num_launched += 1
            if row.num_launched == row.max_new_tokens:
                self._remove(row)

    def _hand_out_joined(self) -> None:
        """Hand out the first tokens of all rows that have joined: one copy to the host."""
        if self._joined:
            rows, tokens, logits = zip(*self._joined)
            self._joined.clear()
            self._hand_out(list(rows), torch.cat(tokens), torch.cat(logits))

    def _hand_out(self, rows: list[Row], tokens: Tensor, logits: Tensor) -> None:
        tokens = torch.where(logits.isnan().any(-1), DAMAGED, tokens)
        self._handouts.append(_Handout(rows, HostCopy(tokens, spins=True)))

    @torch.inference_mode()
    def leave(self, row: Row) -> None:
        """Take a row out: it has ended or was cancelled. Its further tokens are dropped."""
        row.has_left = True
        if row in self._rows:
            self._remove(row)

    def _remove(self, row: Row) -> None:
        assert self._buffers is not None
        place, last = self._rows.index(row), len(self._rows) - 1
        if place != last:
            self._buffers.move(last, place)
            self._rows[place] = self._rows[last]
        self._buffers.clear(last)
        self._rows.pop()

    def release(self) -> None:
        """Drop all rows, and free the buffers and graphs."""
        for row in self.running():
            row.has_left = True
        self._rows.clear()
        self._joined.clear()
        self._handouts.clear()
        self._buffers = None
        self._prefixed = PrefixedPrompts(self.model, MAX_PREFIX_BYTES)


def _default_max_bytes(device: torch.device) -> int:
    if device.type != "cuda":
        return MAX_ROW_BYTES
    total = torch.cuda.get_device_properties(device).total_memory
    return min(MAX_ROW_BYTES, int(total * MAX_SHARE_OF_DEVICE))
