"""How few queries read many keys fastest: the figures behind the constants of `packed_attention` and of prefills.

    python benchmarks/few_queries.py

Random queries and keys in bf16, on a GPU, heads of 3B (16 for 2 key heads) and 7B (28 for 4). Two tables, in
milliseconds:

    memory    queries of one to eight questions look into an hour (234,000 keys), once: one call of the flash kernel,
              pieces of the keys side by side, and cuDNN, with the time that its plan takes once
    prefix    prompts of B tokens read a prefix of 8,900 tokens and themselves, in all layers, as a CUDA graph: pieces
              of the prefix side by side
"""

import time
from collections.abc import Callable

import torch
from torch import Tensor

from hourllava.inference.rows.graphs import captured
from hourllava.model import attention
from hourllava.model import attention_kernels as kernels
from hourllava.model.prefix_attention import Prefixed, Prompts, attention_behind_prefix

MODELS = {"3B": (16, 2, 36), "7B": (28, 4, 28)}  # heads, key heads, layers
WIDTH = 128
MEMORY_KEYS, PREFIX_TOKENS = 234_000, 8_900
REPEATS = 10


def milliseconds(run: Callable[[], object]) -> float:
    """Mean of some runs, after three for practice."""
    for _ in range(3):
        run()
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    for _ in range(REPEATS):
        run()
    end.record()
    torch.cuda.synchronize()
    return start.elapsed_time(end) / REPEATS


def random(*shape: int) -> Tensor:
    """Random numbers on the GPU."""
    return torch.randn(*shape, device="cuda", dtype=torch.bfloat16)


def memory(name: str, num_queries: int) -> str:
    """A line of the first table."""
    num_heads, num_groups, _ = MODELS[name]
    query, key, value = random(num_queries, num_heads, WIDTH), *random(2, MEMORY_KEYS, num_groups, WIDTH)
    heads = [part.transpose(0, 1)[None] for part in (query, key, value)]
    parts = [
        f"{name} {num_queries:>4} queries",
        f"flash {milliseconds(lambda: kernels.flash(*heads, False, None)):.2f}",
    ]
    for pieces in (2, 4, 8, 16, 32):
        taken = milliseconds(lambda pieces=pieces: attention.split_attention(query, key, value, pieces))
        parts.append(f"{pieces} pieces {taken:.2f}")
    heads[0] = attention._round_up(query).transpose(0, 1)[None]
    start = time.perf_counter()
    kernels.cudnn(*heads, False, None)
    torch.cuda.synchronize()
    first = time.perf_counter() - start
    parts.append(f"cuDNN {milliseconds(lambda: kernels.cudnn(*heads, False, None)):.2f}, first {first * 1e3:.0f}")
    return "  ".join(parts)


def prefix(name: str, num_tokens: int) -> str:
    """A line of the second table."""
    num_heads, num_groups, num_layers = MODELS[name]
    query, own = random(1, num_heads, num_tokens, WIDTH), random(2, 1, num_groups, num_tokens, WIDTH)
    kept, parts = random(2, num_groups, PREFIX_TOKENS, WIDTH), [f"{name} {num_tokens:>4} tokens"]
    for pieces in (1, 2, 4, 8, 16):
        own_offsets = torch.tensor([0, num_tokens], dtype=torch.int32, device="cuda")
        prompts = Prompts(own_offsets, torch.linspace(0, PREFIX_TOKENS, pieces + 1, device="cuda").int())
        keys, values = (Prefixed(kept[role], own[role], prompts=prompts) for role in range(2))

        def all_layers(keys: Prefixed = keys, values: Prefixed = values) -> None:
            for _ in range(num_layers):
                attention_behind_prefix(query, keys, values, None, None)

        graph = captured(all_layers, query.device)
        parts.append(f"{pieces} pieces {milliseconds(graph.replay):.1f}")
    return "  ".join(parts)


@torch.inference_mode()
def main() -> None:
    """Print both tables."""
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}, bf16, milliseconds")
    for name in MODELS:
        for num_queries in (110, 220, 450, 900):
            print("memory ", memory(name, num_queries), flush=True)
    for name in MODELS:
        for num_tokens in (128, 256, 512, 1024):
            print("prefix ", prefix(name, num_tokens), flush=True)


if __name__ == "__main__":
    main()
