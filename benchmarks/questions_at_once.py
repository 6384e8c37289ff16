"""Where the time of many questions about one hour goes: 100 of 16 tokens, asked at once, of a model with recall tokens.

    python benchmarks/questions_at_once.py --model hourllava-3b
    python benchmarks/questions_at_once.py --model hourllava-7b --rows 32 64 100 --prefill-tokens 512 1024

Random weights in bf16 and random features, on a GPU. A line for each pair of settings: seconds until all answers are
there, median and fastest of five, and of the first tokens. `--rows` are answers that are decoded together
(`MAX_ROWS`), `--prefill-tokens` the most tokens that are prefilled together (the last of `FILLED_UP_TO`). For the first
pair, a table of the kernels follows, with the share of time in which none runs.
"""

import argparse
import itertools
import statistics
import time

import torch
from torch.profiler import ProfilerActivity, profile

from ask import random_memory
from first_token import random_model
from hourllava.inference.engine import HourLlava
from hourllava.inference.memories.memory import Memory
from hourllava.inference.rows import decoder, prefixes
from hourllava.model.nano import nano_tokenizer
from hourllava.model.processor import HourLlavaProcessor
from serve_core import question_of

REPEATS = 5
QUESTIONS = [question_of(number % 40) for number in range(100)]


def ask(engine: HourLlava, memory: Memory) -> tuple[float, float]:
    """Seconds until all answers, and until the last first token."""
    start = time.perf_counter()
    answers = engine.ask_all(memory, QUESTIONS, max_new_tokens=16)
    return time.perf_counter() - start, max(answer.first_token_seconds for answer in answers)


def print_kernels(engine: HourLlava, memory: Memory) -> None:
    """The kernels of one more run."""
    with profile(activities=[ProfilerActivity.CUDA]) as profiler:
        seconds, _ = ask(engine, memory)
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
    processor = HourLlavaProcessor(nano_tokenizer(), model.config)
    processor.decode = lambda tokens: " ".join(map(str, tokens))  # type: ignore[method-assign]
    filled_up_to = prefixes.FILLED_UP_TO
    for number, (rows, most) in enumerate(itertools.product(options.rows, options.prefill_tokens)):
        decoder.MAX_ROWS = rows
        prefixes.FILLED_UP_TO = tuple(sorted({*(n for n in filled_up_to if n < most), most}))
        with HourLlava(model, processor) as engine:
            memory = random_memory(engine, 1)
            ask(engine, memory)  # captures all graphs
            runs = [ask(engine, memory) for _ in range(REPEATS)]
            all_seconds, first_seconds = zip(*runs, strict=True)
            print(
                f"rows {rows:<4} prefill tokens {most:<5} all {statistics.median(all_seconds):.2f} s, "
                f"fastest {min(all_seconds):.2f}; last first token {statistics.median(first_seconds):.2f} s; "
                f"peak {torch.cuda.max_memory_allocated() / 1e9:.1f} GB",
                flush=True,
            )
            if number == 0:
                print_kernels(engine, memory)
            engine.release()


if __name__ == "__main__":
    main()
