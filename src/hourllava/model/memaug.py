"""MemAug: kept tokens and the question look into the whole memory again (paper section 3.3).

A block is post-norm: self-attention among the queries (kept tokens, recall tokens and the prompt, not causal;
`hourllava.model.queries` says who sees whom), cross-attention from the queries to the memory, an MLP. Keys and values
depend on the projected memory and the block only, not on the question. So they are computed once per memory and passed
in (`MemoryKeysValues`): for an hour and the 3B model they take 4 x 240 MB in bf16, and attention takes 31 ms per block
and question. They are computed for patch tokens and gathered afterwards. So repeated frames and newlines are computed
once, and the wide memory is never built.

Shapes: Q queries and M memory entries of all samples together, P patch tokens, D width, H heads, G key/value heads,
E head width, R rotated part of it.
"""

import dataclasses
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.modeling_layers import GradientCheckpointingLayer

from hourllava.model.attention import Segments, chunked_attention, packed_attention
from hourllava.model.config import HourLlavaConfig
from hourllava.model.devices import to_device


@dataclasses.dataclass
class MemoryKeysValues:
    """Keys and values of one MemAug block for every memory entry, rotated by position.

    Attributes:
        keys, values: one [M, G, E] tensor, or the chunks of a memory too large for one pass, on any device.
    """

    keys: Sequence[Tensor]
    values: Sequence[Tensor]

    @property
    def num_entries(self) -> int:
        """M, memory entries."""
        return sum(chunk.shape[0] for chunk in self.keys)

    @property
    def num_bytes(self) -> int:
        """Size of all chunks in bytes."""
        return sum(chunk.nbytes for chunk in (*self.keys, *self.values))


@dataclasses.dataclass
class ProjectedMemory:
    """A memory as MemAug and the decoder use it, made once for all questions.

    Attributes:
        keys_values: for each MemAug block.
        kept_tokens: [K, D] projected kept tokens, before augmentation.
    """

    keys_values: list[MemoryKeysValues]
    kept_tokens: Tensor


@dataclasses.dataclass
class SeenQueries:
    """The queries that those of each segment see, where these are not the segment itself.

    Attributes:
        segments: how many each segment sees.
        index: [N] queries, segment after segment, counted from the first of `before`; None for all of them.
        before: [K, G, E] keys and values of earlier queries.
    """

    segments: Segments
    index: Tensor | None = None
    before: tuple[Tensor, Tensor] | None = None

    def of(self, own: tuple[Tensor, Tensor]) -> list[Tensor]:
        """Keys and values that are seen, of those of all queries."""
        seen = list(own) if self.before is None else [torch.cat(pair) for pair in zip(self.before, own)]
        return seen if self.index is None else [part.index_select(0, self.index) for part in seen]


QueryObserver = Callable[[Tensor, MemoryKeysValues], None]
"""Called with a block's rotated queries [Q, H, E] and the memory they look into."""


class PartialRotaryEmbedding:
    """Rotates the first part of each head by position; half-split, not interleaved."""

    def __init__(self, head_width: int, rotary_fraction: float, base: float) -> None:
        self.num_base_steps = int(head_width * rotary_fraction)
        self.rotary_width = (self.num_base_steps + 1) // 2 * 2  # angles come in pairs: an odd part is rounded up
        self.base = base

    def angles(self, positions_N: Tensor) -> tuple[Tensor, Tensor]:
        """Cosine and sine [N, 1, R / 2], float32, of angles in float64.

        A day has positions up to 6 million. There float32 rounds angles by up to 0.25 rad, so neighbours would differ
        at random. float64 rounds them by 1e-9.
        """
        device = positions_N.device
        if device.type == "mps":  # which has no float64
            positions_N = positions_N.cpu()
        # Computed anew each time, not a buffer: it survives the meta device and every cast of the model.
        steps = torch.arange(0, self.num_base_steps, 2, dtype=torch.float64, device=positions_N.device)
        frequencies = 1.0 / self.base ** (steps / max(self.num_base_steps, 1))
        angles = positions_N.double()[:, None, None] * frequencies
        angles = (angles % (2 * math.pi)).float().to(device)
        return angles.cos(), angles.sin()

    def rotate(self, heads_NHE: Tensor, angles: tuple[Tensor, Tensor]) -> Tensor:
        """[N, H, E] -> [N, H, E]."""
        if self.rotary_width == 0:
            return heads_NHE
        cos, sin = (part.to(heads_NHE.dtype) for part in angles)
        rotated, rest = heads_NHE.split([self.rotary_width, heads_NHE.shape[-1] - self.rotary_width], dim=-1)
        first, second = rotated.chunk(2, dim=-1)
        return torch.cat([first * cos - second * sin, second * cos + first * sin, rest], dim=-1)

    def rotate_back(self, heads_NHE: Tensor, angles: tuple[Tensor, Tensor]) -> Tensor:
        """[N, H, E] -> [N, H, E], the inverse of `rotate`."""
        cos, sin = angles
        return self.rotate(heads_NHE, (cos, -sin))


class ResidualOutput(nn.Linear):
    """Last layer of a residual branch.

    It starts at zero: a new block only normalises, so a decoder trained without the block works as before.
    """


class MemAugSelfAttention(nn.Module):
    """Full attention among the queries of a segment; `qkv_proj` stacks queries, keys, values."""

    def __init__(self, width: int, num_heads: int, num_groups: int, rotary: PartialRotaryEmbedding) -> None:
        super().__init__()
        self.head_width = width // num_heads
        self.num_heads, self.num_groups = num_heads, num_groups
        self.rotary = rotary
        self.qkv_proj = nn.Linear(width, (num_heads + 2 * num_groups) * self.head_width)
        self.o_proj = ResidualOutput(width, width)

    def forward(
        self, x_QD: Tensor, angles: tuple[Tensor, Tensor], segments: Segments, seen: SeenQueries | None = None
    ) -> Tensor:
        """[Q, D] -> [Q, D]."""
        query, key, value = self.heads(x_QD, angles)
        seen_segments = segments
        if seen is not None:
            key, value = seen.of((key, value))
            seen_segments = seen.segments
        return self.o_proj(packed_attention(query, key, value, segments, seen_segments).flatten(1))

    def heads(self, x_QD: Tensor, angles: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """[Q, D] -> queries [Q, H, E], keys and values [Q, G, E]."""
        heads = self.qkv_proj(x_QD).unflatten(-1, (-1, self.head_width))
        query, key, value = heads.split([self.num_heads, self.num_groups, self.num_groups], dim=1)
        return self.rotary.rotate(query, angles), self.rotary.rotate(key, angles), value


class MemAugCrossAttention(nn.Module):
    """Full attention from the queries to the memory; `kv_proj` stacks keys, then values.

    With `rotates_values`, values are rotated by their own position when made, and rotated back by the query's position
    when read. So a value tells its distance from the query.
    """

    def __init__(
        self, width: int, num_heads: int, num_groups: int, rotary: PartialRotaryEmbedding, rotates_values: bool
    ) -> None:
        super().__init__()
        self.head_width = width // num_heads
        self.rotary, self.rotates_values = rotary, rotates_values
        self.q_proj = nn.Linear(width, width)
        self.kv_proj = nn.Linear(width, 2 * num_groups * self.head_width)
        self.o_proj = ResidualOutput(width, width)

    def keys_values(self, tokens_PD: Tensor, index_M: Tensor, angles: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """[M, G, E] keys and values of the memory whose entry m is token `index_M[m]`."""
        # Two gathers: values as half of a larger tensor would keep the unrotated keys alive. `embedding` is indexing
        # whose backward pass does not add up thousands of newlines one by one.
        heads = self.kv_proj(tokens_PD).view(-1, self.head_width)
        num_groups = self.kv_proj.out_features // self.head_width // 2
        key_index_MG = index_M[:, None] * (2 * num_groups) + torch.arange(num_groups, device=index_M.device)
        key, value = F.embedding(key_index_MG, heads), F.embedding(key_index_MG + num_groups, heads)
        return self.rotary.rotate(key, angles), self.rotary.rotate(value, angles) if self.rotates_values else value

    def queries(self, x_QD: Tensor, angles: tuple[Tensor, Tensor]) -> Tensor:
        """[Q, D] -> [Q, H, E] rotated queries."""
        return self.rotary.rotate(self.q_proj(x_QD).unflatten(-1, (-1, self.head_width)), angles)

    def forward(
        self,
        x_QD: Tensor,
        angles: tuple[Tensor, Tensor],
        memory: MemoryKeysValues,
        query_segments: Segments,
        memory_segments: Segments,
        observe: QueryObserver | None = None,
    ) -> Tensor:
        """[Q, D] -> [Q, D]."""
        query = self.queries(x_QD, angles)
        if observe is not None:
            _show(observe, query, memory)
        if len(memory.keys) > 1:
            assert len(memory_segments.lengths) == 1, "a memory in chunks stands alone"
            output = chunked_attention(query, zip(memory.keys, memory.values))
        else:
            output = packed_attention(query, memory.keys[0], memory.values[0], query_segments, memory_segments)
        if self.rotates_values:
            output = self.rotary.rotate_back(output, angles)
        return self.o_proj(output.flatten(1))


# Not compiled: an observer keeps its arguments, and each batch has its own observer.
@torch.compiler.disable  # type: ignore[untyped-decorator]  # torch does not say what it returns
def _show(observe: QueryObserver, query_QHE: Tensor, memory: MemoryKeysValues) -> None:
    observe(query_QHE, memory)


class MemAugMlp(nn.Module):
    """Two linear layers with an exact GELU in between."""

    def __init__(self, width: int, hidden_width: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden_width)
        self.fc2 = ResidualOutput(hidden_width, width)

    def forward(self, x_QD: Tensor) -> Tensor:
        """[Q, D] -> [Q, D]."""
        return self.fc2(F.gelu(self.fc1(x_QD)))


class MemAugBlock(GradientCheckpointingLayer):
    """Self-attention, cross-attention and MLP, each followed by a LayerNorm of the sum with its input."""

    def __init__(self, config: HourLlavaConfig, rotary: PartialRotaryEmbedding) -> None:
        super().__init__()
        text = config.text_config
        width, num_heads = text.hidden_size, text.num_attention_heads
        num_groups = getattr(text, "num_key_value_heads", None) or num_heads
        self.self_attn = MemAugSelfAttention(width, num_heads, num_groups, rotary)
        self.cross_attn = MemAugCrossAttention(width, num_heads, num_groups, rotary, config.memaug.rotate_values)
        self.mlp = MemAugMlp(width, config.memaug.mlp_ratio * width)
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(width) for _ in range(3))

    def forward(
        self,
        x_QD: Tensor,
        angles: tuple[Tensor, Tensor],
        memory: MemoryKeysValues,
        query_segments: Segments,
        recall_segments: Segments,
        memory_segments: Segments,
        observe: QueryObserver | None = None,
        seen: SeenQueries | None = None,
    ) -> Tensor:
        """[Q, D] -> [Q, D]."""
        x_QD = self.norm1(x_QD + self.self_attn(x_QD, angles, query_segments, seen))
        x_QD = self.norm2(x_QD + self.cross_attn(x_QD, angles, memory, recall_segments, memory_segments, observe))
        return self.norm3(x_QD + self.mlp(x_QD))


class MemAug(nn.Module):
    """The stack of memory attention blocks."""

    def __init__(self, config: HourLlavaConfig) -> None:
        super().__init__()
        head_width = config.text_config.hidden_size // config.text_config.num_attention_heads
        self.rotary = PartialRotaryEmbedding(head_width, config.memaug.rotary_fraction, config.rope_theta)
        self.normalizes_inputs = config.memaug.normalize_inputs
        # Any: to mypy the members of a ModuleList are bare modules.
        self.blocks: Any = nn.ModuleList(MemAugBlock(config, self.rotary) for _ in range(config.memaug.num_blocks))
        num_recall_tokens, width = config.memaug.num_recall_tokens, config.text_config.hidden_size
        self.recall_tokens = nn.Parameter(torch.empty(num_recall_tokens, width)) if num_recall_tokens else None

    def keys_values(self, tokens_PD: Tensor, index_M: Tensor, positions_M: Tensor) -> list[MemoryKeysValues]:
        """Keys and values of the memory for every block; independent of the question.

        Args:
            tokens_PD: projected patch tokens, newline among them.
            index_M: the token behind each memory entry.
            positions_M: rotary position of each memory entry.
        """
        tokens_PD, angles = self._input(tokens_PD), self.rotary.angles(positions_M)
        pairs = [block.cross_attn.keys_values(tokens_PD, index_M, angles) for block in self.blocks]
        return [MemoryKeysValues([key], [value]) for key, value in pairs]

    def forward(
        self,
        x_QD: Tensor,
        positions_Q: Tensor,
        memory: Sequence[MemoryKeysValues],
        query_segments: Segments,
        recall_segments: Segments,
        memory_segments: Segments,
        observe: QueryObserver | None = None,
        seen: SeenQueries | None = None,
    ) -> Tensor:
        """Augment the queries.

        Args:
            x_QD: kept tokens, recall tokens and prompt text of all samples.
            positions_Q: their rotary positions.
            memory: keys and values of each block, from `keys_values`.
            query_segments: queries that belong together.
            recall_segments: queries of each memory (samples that share a memory follow one another).
            memory_segments: entries of each memory.
            observe: called in each block with the rotated queries [Q, H, E] and the keys and values they look into.
            seen: the queries that each segment sees; itself if None.

        Returns:
            [Q, D]
        """
        x_QD, angles = self._input(x_QD), self.rotary.angles(positions_Q)
        for block, keys_values in zip(self.blocks, memory, strict=True):
            x_QD = block(x_QD, angles, keys_values, query_segments, recall_segments, memory_segments, observe, seen)
        return x_QD

    def augment_kept(
        self, x_KD: Tensor, positions_K: Tensor, memory: Sequence[MemoryKeysValues]
    ) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
        """Augment the kept tokens of one memory alone, as they are where they do not see the question.

        Returns:
            [K, D], and of each block the [K, G, E] keys and values of its self-attention, for `augment_behind`.
        """
        x_KD, angles = self._input(x_KD), self.rotary.angles(positions_K)
        kept, entries, seen = Segments((len(x_KD),)), Segments((_num_entries(memory),)), []
        for block, keys_values in zip(self.blocks, memory, strict=True):
            _, key, value = block.self_attn.heads(x_KD, angles)
            seen.append((key, value.contiguous()))
            x_KD = block(x_KD, angles, keys_values, kept, kept, entries)
        return x_KD, seen

    def augment_behind(
        self,
        x_AD: Tensor,
        positions_A: Tensor,
        memory: Sequence[MemoryKeysValues],
        kept: Sequence[tuple[Tensor, Tensor]],
        questions: Segments,
        observe: QueryObserver | None = None,
    ) -> Tensor:
        """[A, D] -> [A, D], recall tokens and text of questions.

        A question sees itself and the kept tokens, which `kept` has from `augment_kept`.
        """
        x_AD, angles, num_kept = self._input(x_AD), self.rotary.angles(positions_A), len(kept[0][0])
        all_of_them, entries = Segments((len(x_AD),)), Segments((_num_entries(memory),))
        seen_segments, index = Segments(tuple(num_kept + length for length in questions.lengths)), None
        if len(questions.lengths) > 1:
            bounds = itertools.pairwise(num_kept + offset for offset in questions.offsets)
            seen = [np.append(np.arange(num_kept), np.arange(start, end)) for start, end in bounds]
            index = to_device(np.concatenate(seen), x_AD.device)
        for block, keys_values, before in zip(self.blocks, memory, kept, strict=True):
            seen_queries = SeenQueries(seen_segments, index, before)
            x_AD = block(x_AD, angles, keys_values, questions, all_of_them, entries, observe, seen_queries)
        return x_AD

    def _input(self, tokens_ND: Tensor) -> Tensor:
        return F.rms_norm(tokens_ND, tokens_ND.shape[-1:]) if self.normalizes_inputs else tokens_ND


def _num_entries(memory: Sequence[MemoryKeysValues]) -> int:
    return memory[0].num_entries
