"""Many callers of one engine: an hour of features, questions of many lengths, through the public API.

    python benchmarks/serve_core.py --model hourllava-3b --model hourllava-7b --out serve_core.json
    python benchmarks/serve_core.py --model hourllava-3b --recall question

Random weights in bf16. A table for each model:

    further question       first token of a question about a memory that was asked before, in milliseconds: median and
                           95th percentile, for prompt lengths that were seen and for new ones
    prefix                 with `--recall question`: GB that are kept of a memory's prompt
    100 of 16 tokens       100 questions of 16 tokens each, as the next
    N at once              N questions of 64 tokens each: first token of the first and of the last, all answers, answers
                           a second, and GPU memory at the peak, with that of the model alone
    for the first time     the same, while CUDA graphs are captured that no line above has needed
    two memories in turn   first token, each question about the other memory than the last one
    while watching         first token of questions, and time of the watch, each with and without the other
    cancel                 from `cancel()` to the end of the answer, and to an idle device
    equal                  answers of 32 at once that equal, token by token, those asked one by one
"""

import argparse
import gc
import json
import statistics
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from ask import random_memory
from first_token import processor_of, random_model
from hourllava.inference.engine import HourLlava
from hourllava.inference.memories.memory import Memory
from hourllava.inference.questions.answers import Answer

TOKENS = 64
AT_ONCE = (1, 4, 16, 32)
WATCH_SECONDS = 1800

Figures = dict[str, float]


def question_of(number: int) -> str:
    """A question that is a word longer for each number."""
    return f"When is the {'very ' * number}first graph shown, and who points at it?"


def percentiles(seconds: list[float]) -> tuple[float, float]:
    """Median and 95th percentile in milliseconds."""
    ordered = sorted(seconds)
    return statistics.median(ordered) * 1e3, ordered[min(len(ordered) - 1, round(0.95 * len(ordered)))] * 1e3


def further_questions(engine: HourLlava, memory: Memory) -> Figures:
    """First tokens: each of 40 lengths for the first time, then again."""
    engine.ask(memory, "Anything?", max_new_tokens=2)
    figures = {}
    for name in ("new", "seen"):
        seconds = [
            engine.ask(memory, question_of(n), max_new_tokens=1).first_token_seconds for n in range(1, 41)
        ]  # fmt: skip
        figures[f"{name} p50 ms"], figures[f"{name} p95 ms"] = percentiles(seconds)
    return figures


def at_once(engine: HourLlava, memory: Memory, number: int, num_tokens: int = TOKENS) -> tuple[Figures, list[Answer]]:
    """So many questions, asked together."""
    torch.cuda.reset_peak_memory_stats()
    start = time.perf_counter()
    answers = engine.ask_all(memory, [question_of(n % 40) for n in range(number)], max_new_tokens=num_tokens)
    seconds = time.perf_counter() - start
    first = [answer.first_token_seconds for answer in answers]
    figures = {
        "first of first s": min(first),
        "first of last s": max(first),
        "all s": seconds,
        "answers/s": number / seconds,
        "peak GB": torch.cuda.max_memory_allocated() / 1e9,
    }
    return figures, answers


def two_memories(engine: HourLlava, memories: list[Memory]) -> Figures:
    """First tokens of questions that change the memory each time."""
    for memory in memories:
        engine.ask(memory, "Anything?", max_new_tokens=1)
    seconds = [
        engine.ask(memories[n % 2], question_of(n), max_new_tokens=1).first_token_seconds for n in range(20)
    ]  # fmt: skip
    median, high = percentiles(seconds)
    return {"p50 ms": median, "p95 ms": high}


def while_watching(engine: HourLlava, memory: Memory, watch: Callable[[], Memory]) -> Figures:
    """Questions beside a watched video."""
    watch()
    start = time.perf_counter()
    watch()
    alone = time.perf_counter() - start
    seconds, ended = [], threading.Event()

    def ask() -> None:
        while not ended.is_set():
            seconds.append(engine.ask(memory, question_of(len(seconds) % 40), max_new_tokens=16).first_token_seconds)
            ended.wait(0.5)

    asking = threading.Thread(target=ask)
    asking.start()
    start = time.perf_counter()
    watch()
    beside = time.perf_counter() - start
    ended.set()
    asking.join()
    median, high = percentiles(seconds)
    return {
        "asks": len(seconds),
        "p50 ms": median,
        "p95 ms": high,
        "watch alone s": alone,
        "watch beside s": beside,
        "slower": beside / alone,
    }


def cancelling(engine: HourLlava, memory: Memory) -> Figures:
    """From `cancel()` in the middle of an answer, and before its first token."""
    figures = {}
    for name, after_seconds in (("answer", 0.6), ("prefill", 0.1)):
        ended, idle = [], []
        for number in range(5):
            stream = engine.stream(memory, question_of(number), max_new_tokens=2000)
            time.sleep(after_seconds)
            start = time.perf_counter()
            stream.cancel()
            assert stream.answer.finish_reason == "cancelled"
            ended.append(time.perf_counter() - start)
            engine._scheduler.run(torch.cuda.synchronize)
            idle.append(time.perf_counter() - start)
        figures |= {f"{name} ended ms": max(ended) * 1e3, f"{name} idle ms": max(idle) * 1e3}
    return figures


def watcher(engine: HourLlava, video: Path | None) -> Callable[[], Memory]:
    """Watches a file, or without one half an hour of given frames."""
    if video is not None:
        return lambda: engine.watch(video, progress=False)
    size = engine.model.config.vision_config.image_size
    frames = np.random.default_rng(0).integers(0, 256, (WATCH_SECONDS, size, size, 3), dtype=np.uint8)
    return lambda: engine.remember_frames(frames, np.arange(float(WATCH_SECONDS)))


def measured(
    name: str, recall: str, recall_tokens: int, video: Path | None, note: Callable[[str, Figures], None]
) -> None:
    """All figures of one model."""
    model = random_model(name, torch.device("cuda"), recall, recall_tokens)
    note("model", {"GB": torch.cuda.memory_allocated() / 1e9})
    with HourLlava(model, processor_of(model)) as engine:
        memories = [random_memory(engine, 1) for _ in range(2)]
        start = time.perf_counter()
        cold = engine.ask(memories[0], "Anything?", max_new_tokens=4)
        note("cold", {"first s": cold.first_token_seconds, "all s": time.perf_counter() - start})
        if recall == "question":
            kept = [ready.slot.prefix for ready in engine._asker.ready._ready.values()]
            note("prefix", {"GB": sum(prefix.num_bytes for prefix in kept if prefix) / 1e9})
        note("further question", further_questions(engine, memories[0]))
        note(f"{AT_ONCE[-1]} for the first time", at_once(engine, memories[0], AT_ONCE[-1])[0])
        for number in AT_ONCE:
            at_once(engine, memories[0], number)  # captures what is missing
            figures, answers = at_once(engine, memories[0], number)
            note(f"{number} at once", figures)
        note("100 for the first time", at_once(engine, memories[0], 100, 16)[0])
        note("100 of 16 tokens", at_once(engine, memories[0], 100, 16)[0])
        alone = [engine.ask(memories[0], answer.question, max_new_tokens=TOKENS).text for answer in answers]
        note("equal", {"of 32": sum(text == answer.text for text, answer in zip(alone, answers, strict=True))})
        note("two memories in turn", two_memories(engine, memories))
        note("while watching", while_watching(engine, memories[0], watcher(engine, video)))
        note("cancel", cancelling(engine, memories[0]))
        before = torch.cuda.memory_allocated()
        engine.release()
        note("release", {"before GB": before / 1e9, "after GB": torch.cuda.memory_allocated() / 1e9})


def main() -> None:
    """Print a table, a line for each figure; with `--out` also as JSON, written after each of them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", action="append", help="preset; several may be given")
    parser.add_argument("--recall", choices=("kept", "question"), default="kept", help="memaug.recall of the models")
    parser.add_argument("--recall-tokens", type=int, default=64, help="with `--recall question`")
    parser.add_argument("--video", type=Path, help="watched beside questions; by default half an hour of given frames")
    parser.add_argument("--out", type=Path, help="JSON file of the results")
    options = parser.parse_args()
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}, bf16, random weights, an hour of features")
    results: dict[str, dict[str, Figures]] = {}
    for name in options.model or ["hourllava-3b"]:
        results[name] = {}

        def note(what: str, figures: Figures, name: str = name) -> None:
            results[name][what] = figures
            print(
                f"{name:<14}{what:<22}" + "  ".join(f"{key} {value:.3g}" for key, value in figures.items()), flush=True
            )
            if options.out:
                options.out.write_text(json.dumps(results, indent=1))

        measured(name, options.recall, options.recall_tokens, options.video, note)
        gc.collect()
        torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
