"""Kept prefixes of rows in common buffers of fixed size, for CUDA: graphs read them there, whichever memory is asked.

A prefix lies there once, for all rows that ask its memory. Rows that ask different memories are decoded together: each
has a bias that hides the other prefixes. Further questions about a memory go through a graph too, filled up to one of
a few lengths: 100 tokens of prefill are bound by launches otherwise (3B: 24 ms). So several questions about one memory
are prefilled together, one behind the other, and none sees the others.

Shapes: P tokens of a prefix, C tokens that the buffers hold, N prompts, L tokens of a prompt, B tokens of a filled-up
prefill, D width, G key/value heads, E head width, V vocabulary.
"""

import itertools
import weakref
from collections.abc import Collection, Sequence

import numpy as np
import torch
from torch import Tensor

from hourllava.inference.rows.graphs import captured
from hourllava.inference.rows.prefill import BehindPrefix, Prefilled, prefill, run_behind_prefix
from hourllava.model.attention import num_pieces_of_keys
from hourllava.model.devices import to_device
from hourllava.model.kept_prefix import KeptPrefix
from hourllava.model.modeling import HourLlavaForConditionalGeneration
from hourllava.model.prefix_attention import Prompts

# Tokens behind a prefix are filled up to one of these numbers; more go without a graph.
FILLED_UP_TO = (128, 256, 512, 1024)

# Prompts that are prefilled together, at most: the first one waits until the last one is tokenised.
MAX_TOGETHER = 8

# A prefix is read in as many pieces side by side as fill a GPU of 132 multiprocessors once. More pieces cost more in
# merging than they gain: 512 tokens of 3B take 8.9 ms in two pieces in all layers, 11.9 in one and 9.2 in four (H200).
BLOCKS_PER_PREFILL = 132
# A prefix with fewer tokens than this goes without a graph, because no piece may be empty.
MAX_PIECES = 16

# Buffers hold a multiple of so many tokens.
PREFIX_STEP = 1024


class PrefixPool:
    """Prefixes one after the other in buffers.

    Args:
        like: a prefix, for shapes, dtype and device.
        num_tokens: C; rounded up.

    Attributes:
        keys, values: [G, C, E] of each layer.
        num_tokens: C.
    """

    def __init__(self, like: KeptPrefix, num_tokens: int) -> None:
        self.num_tokens = -(-num_tokens // PREFIX_STEP) * PREFIX_STEP

        def room(tensor: Tensor) -> Tensor:
            return tensor.new_zeros(tensor.shape[0], self.num_tokens, tensor.shape[2])

        self.keys, self.values = [room(key) for key in like.keys], [room(value) for value in like.values]
        # Where each prefix begins. One that nobody holds any more leaves by itself.
        self._starts: weakref.WeakKeyDictionary[KeptPrefix, int] = weakref.WeakKeyDictionary()

    def place(self, prefix: KeptPrefix, in_use: Collection[KeptPrefix]) -> bool:
        """Copy a prefix into the buffers unless it lies there; False if those in use leave no room for it.

        Args:
            prefix: to be asked behind.
            in_use: prefixes of rows, which stay where they are.
        """
        if prefix in self._starts:
            return True
        start = self._gap(prefix.num_tokens, self._starts)
        if start is None:  # others that are not in use make room
            start = self._gap(prefix.num_tokens, in_use)
            if start is None:
                return False
            self._starts = weakref.WeakKeyDictionary({one: self._starts[one] for one in in_use})
        end = start + prefix.num_tokens
        for buffers, tensors in ((self.keys, prefix.keys), (self.values, prefix.values)):
            for buffer, tensor in zip(buffers, tensors, strict=True):
                buffer[:, start:end] = tensor
        self._starts[prefix] = start
        return True

    def fits(self, prefix: KeptPrefix, in_use: Collection[KeptPrefix]) -> bool:
        """Whether `place` would work."""
        return prefix in self._starts or self._gap(prefix.num_tokens, in_use) is not None

    def _gap(self, num_tokens: int, taken: Collection[KeptPrefix]) -> int | None:
        """The first place with room for so many tokens beside these prefixes."""
        spans = sorted((self._starts[prefix], self._starts[prefix] + prefix.num_tokens) for prefix in taken)
        ends, starts = [0, *(end for _, end in spans)], [*(start for start, _ in spans), self.num_tokens]
        return next((end for end, start in zip(ends, starts) if start - end >= num_tokens), None)

    def take_over(self, other: "PrefixPool") -> None:
        """Copy smaller buffers; each prefix stays at its place."""
        for ours, theirs in zip((*self.keys, *self.values), (*other.keys, *other.values), strict=True):
            ours[:, : other.num_tokens] = theirs
        self._starts = other._starts.copy()

    def no_bias(self, num_rows: int) -> Tensor:
        """[num_rows, C] a bias that hides everything."""
        return self.keys[0].new_full((num_rows, self.num_tokens), -torch.inf)

    def span(self, prefix: KeptPrefix) -> tuple[int, int]:
        """Where a prefix of this pool begins and ends."""
        start = self._starts[prefix]
        return start, start + prefix.num_tokens

    def show(self, bias_C: Tensor, prefix: KeptPrefix | None) -> None:
        """Let a row's bias show its own prefix only, which lies here."""
        bias_C.fill_(-torch.inf)
        if prefix is not None:
            bias_C[slice(*self.span(prefix))].zero_()


class PrefillBehindPrefix:
    """Prefill of a few prompts, B tokens at most, behind one prefix of a pool; on CUDA a graph.

    Args:
        model: in evaluation mode, on its device.
        pool: of the prefixes.
        num_tokens: B.
    """

    def __init__(self, model: HourLlavaForConditionalGeneration, pool: PrefixPool, num_tokens: int) -> None:
        self.model, self.pool = model, pool
        self._embeds_BD = pool.keys[0].new_zeros(num_tokens, model.config.text_config.hidden_size)
        num_heads, num_groups = model.config.text_config.num_attention_heads, pool.keys[0].shape[0]
        num_pieces = num_pieces_of_keys(num_tokens, num_heads, num_groups, BLOCKS_PER_PREFILL)
        num_pieces = min(MAX_PIECES, num_pieces)
        # Where tokens stand, in one tensor, which one copy fills: the position of each token, the place of each
        # prompt's last token, and the bounds of prompts, with filler behind them, and of the prefix's pieces.
        self._sizes = (num_tokens, MAX_TOGETHER, MAX_TOGETHER + 2, num_pieces + 1)
        self._places = torch.zeros(sum(self._sizes), dtype=torch.int32, device=self._embeds_BD.device)
        self._graph: torch.cuda.CUDAGraph | None = None
        self._logits_NV = self._keys_values = self._embeds_BD.new_empty(0)

    def __call__(self, prompts: Sequence[Tensor], prefix: KeptPrefix) -> list[Prefilled]:
        """Run prompts behind a prefix that lies in the pool. The next call overwrites what this one gives."""
        ends = list(itertools.accumulate(map(len, prompts)))
        starts = [0, *ends[:-1]]
        torch.cat(list(prompts), out=self._embeds_BD[: ends[-1]])
        self._embeds_BD[ends[-1] :].zero_()  # nothing sees them, but nothing times an earlier NaN is NaN
        places = np.zeros(len(self._places), np.int32)
        positions_B, last_N, own_offsets, prefix_offsets = np.split(places, np.cumsum(self._sizes)[:-1])
        for number, (start, end) in enumerate(zip(starts, ends)):
            positions_B[start:end] = prefix.num_tokens + np.arange(end - start)
            last_N[number] = end - 1
        own_offsets[1:] = len(positions_B)
        own_offsets[1 : len(ends) + 1] = ends
        prefix_offsets[:] = np.linspace(*self.pool.span(prefix), len(prefix_offsets))
        self._places.copy_(to_device(places, self._places.device))
        if self._embeds_BD.device.type != "cuda":
            self._run()
        else:
            if self._graph is None:
                self._graph = captured(self._run, self._embeds_BD.device)
            self._graph.replay()
        keys, values = self._keys_values
        return [
            Prefilled(self._logits_NV[number], keys[:, :, start:end], values[:, :, start:end], prefix)
            for number, (start, end) in enumerate(zip(starts, ends))
        ]

    def _run(self) -> None:
        positions_B, last_N, own_offsets, prefix_offsets = self._places.split(self._sizes)
        cache = BehindPrefix(self.pool.keys, self.pool.values, Prompts(own_offsets, prefix_offsets))
        hidden_BD = run_behind_prefix(self.model, self._embeds_BD, positions_B[None], cache)
        self._logits_NV = self.model.lm_head(hidden_BD.index_select(0, last_N))
        own = torch.cat([*cache.own_keys, *cache.own_values])
        self._keys_values = own.unflatten(0, (2, -1))  # [2, layers, G, B, E]


class PrefixedPrompts:
    """The pool of a decoder's rows, grown when they ask several memories at once, and the prefills behind it.

    Args:
        model: in evaluation mode, on its device.
        max_bytes: of the pool, unless one prefix alone needs more.

    Attributes:
        pool: None before the first prefix.
    """

    def __init__(self, model: HourLlavaForConditionalGeneration, max_bytes: int) -> None:
        self.model, self.max_bytes = model, max_bytes
        self.pool: PrefixPool | None = None
        self._prefills: dict[int, PrefillBehindPrefix] = {}

    def has_room(self, prefix: KeptPrefix, in_use: Collection[KeptPrefix]) -> bool:
        """Whether a row with this prefix may join rows with those in use."""
        if self.pool is not None and self.pool.fits(prefix, in_use):
            return True
        return not in_use or self._needed(prefix, in_use) <= self._most_tokens(prefix)

    @property
    def max_together(self) -> int:
        """Prompts that are prefilled together, at most."""
        return MAX_TOGETHER

    def go_together(self, lengths: Sequence[int]) -> bool:
        """Whether prompts of so many tokens behind one prefix can be prefilled together."""
        return len(lengths) == 1 or (len(lengths) <= MAX_TOGETHER and sum(lengths) <= FILLED_UP_TO[-1])

    def prefill(self, prompts: Sequence[Tensor], prefix: KeptPrefix, in_use: Collection[KeptPrefix]) -> list[Prefilled]:
        """Place a prefix in the pool, and run what follows it; there must be room.

        Args:
            prompts: [L, D] of each, the tokens behind the prefix; they can `go_together`.
            prefix: of all of them.
            in_use: prefixes of rows.
        """
        if self.pool is None or not self.pool.place(prefix, in_use):
            self._make_pool(prefix, in_use)
        assert self.pool is not None
        num_tokens = sum(map(len, prompts))
        length = next((length for length in FILLED_UP_TO if num_tokens <= length), None)
        if length is None or prefix.num_tokens < MAX_PIECES:
            return [prefill(self.model, embeds_LD, prefix) for embeds_LD in prompts]
        if length not in self._prefills:
            self._prefills[length] = PrefillBehindPrefix(self.model, self.pool, length)
        return self._prefills[length](prompts, prefix)

    def _make_pool(self, prefix: KeptPrefix, in_use: Collection[KeptPrefix]) -> None:
        """A larger pool: for one prefix at first; then twice as large each time, since every pool needs new graphs."""
        old, needed = self.pool, self._needed(prefix, in_use)
        self._prefills.clear()
        if not in_use:
            self.pool = old = None  # freed before the new one is made
        doubled = 0 if old is None else min(2 * old.num_tokens, self._most_tokens(prefix))
        pool = PrefixPool(prefix, max(needed, doubled))
        if old is not None:
            pool.take_over(old)
        self.pool = pool
        assert pool.place(prefix, in_use), "the pool was made for it"

    def _needed(self, prefix: KeptPrefix, in_use: Collection[KeptPrefix]) -> int:
        """Tokens of buffers with room behind all that are in use."""
        taken = 0 if self.pool is None or not in_use else self.pool.num_tokens
        return taken + prefix.num_tokens

    def _most_tokens(self, prefix: KeptPrefix) -> int:
        num_bytes = sum(tensor.nbytes for tensor in itertools.chain(prefix.keys, prefix.values))
        return self.max_bytes * prefix.num_tokens // num_bytes
