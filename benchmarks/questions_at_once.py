"""Where the time of many questions about one hour goes: 100 of 16 tokens, asked at once, of a model with recall tokens.

    python benchmarks/questions_at_once.py --model hourllava-3b
    python benchmarks/questions_at_once.py --model hourllava-7b --rows 32 64 100 --prefill-tokens 512 1024

Random weights in bf16 and random features, on a GPU. A line for each pair of settings: seconds until all answers are
there (median and fastest of five), and until the last question has its first token. `--rows` are answers that are
decoded together (`MAX_ROWS`), `--prefill-tokens` the most tokens that are prefilled together (the last of
`FILLED_UP_TO`). Behind the first pair's line stand the kernels, with the time that they take.
"""

import argparse
import itertools
import statistics

import torch
from torch.profiler import ProfilerActivity, profile

from ask import random_memory
from first_token import processor_of, random_model
from hourllava.inference.engine import HourLlava
from hourllava.inference.memories.memory import Memory
from hourllava.inference.rows import decoder, prefixes
from serve_core import Figures, at_once

REPEATS = 5


def ask(engine: HourLlava, memory: Memory) -> Figures:
    """100 questions of 16 tokens."""
    return at_once(engine, memory, 100, 16)[0]


def print_kernels(engine: HourLlava, memory: Memory) -> None:
    """The kernels of one more run."""
    with profile(activities=[ProfilerActivity.CUDA]) as profiler:
        seconds = ask(engine, memory)["all s"]
        torch.cuda.synchronize()
    kernels = profiler.key_averages()
    busy = sum(kernel.self_device_time_total for kernel in kernels) / 1e6
    print(f"with the profiler {seconds:.2f} s; kernels take {busy:.2f} s of it")
    for kernel in sorted(kernels, key=lambda kernel: -kernel.self_device_time_total)[:25]:
        print(f"{kernel.self_device_time_total / 1e3:9.1f} ms {kernel.count:7d}  {kernel.key[:110]}")


def main() -> None:
    """Print a line for each pair of settings."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="hourllava-3b", help="preset")
    parser.add_argument("--rows", type=int, nargs="+", default=[decoder.MAX_ROWS])
    parser.add_argument("--prefill-tokens", type=int, nargs="+", default=[prefixes.FILLED_UP_TO[-1]])
    options = parser.parse_args()
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}, {options.model}, random weights, bf16")
    model = random_model(options.model, torch.device("cuda"), "question")
    filled_up_to = prefixes.FILLED_UP_TO
    for number, (rows, most) in enumerate(itertools.product(options.rows, options.prefill_tokens)):
        decoder.MAX_ROWS = rows
        prefixes.FILLED_UP_TO = tuple(sorted({*(n for n in filled_up_to if n < most), most}))
        with HourLlava(model, processor_of(model)) as engine:
            memory = random_memory(engine, 1)
            ask(engine, memory)  # captures all graphs
            runs = [ask(engine, memory) for _ in range(REPEATS)]
            all_seconds = [run["all s"] for run in runs]
            first_seconds = statistics.median(run["first of last s"] for run in runs)
            print(
                f"rows {rows:<4} prefill tokens {most:<5} all {statistics.median(all_seconds):.2f} s, "
                f"fastest {min(all_seconds):.2f}; last first token {first_seconds:.2f} s; "
                f"peak {runs[-1]['peak GB']:.1f} GB",
                flush=True,
            )
            if number == 0:
                print_kernels(engine, memory)
            engine.release()


if __name__ == "__main__":
    main()
