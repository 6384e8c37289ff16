"""Watching a video and asking about it, end to end from the file.

    python benchmarks/ask.py --model hourllava-3b --minutes 10 --minutes 60 --minutes 180 --folder /tmp/ask-bench

Random weights in bf16, a generated 360p H.264 video (as `benchmarks/decode.py` makes it). Columns:

    watch s         from the file to the memory
    frames/s        the same as a rate; decoding and encoding run at once
    tower frames/s  the vision tower alone, frames on the GPU
    cold s          first token of the first question: keys and values, MemAug, prefill, and once per process the
                    loading of kernels
    cold again s    the same after `release`
    warm s          first token of a further question
    tokens/s        of its answer after the first
    peak GB         GPU memory

With `--feature-hours` also memories of random features are asked, which are not watched: for lengths that take too long
to generate.
"""

import argparse
import statistics
import time
from pathlib import Path

import numpy as np
import torch

from decode import generate
from first_token import random_model
from hourllava.inference.engine import HourLlava
from hourllava.inference.memories.memory import Memory
from hourllava.inference.memories.snapshot import WatchedSource
from hourllava.inference.watching.frame_encoder import FrameEncoder
from hourllava.model.nano import nano_tokenizer
from hourllava.model.processor import HourLlavaProcessor

ENCODED_MINUTES = 2
NEW_TOKENS = 128
TOWER_FRAMES = 128
# Of five lengths: a kernel that is planned anew for every length would show.
QUESTIONS = [f"When is the {'very ' * number}first graph shown?" for number in range(5)]


@torch.inference_mode()
def tower_frames_per_second(engine: HourLlava) -> float:
    """Median of five batches, frames already on the GPU."""
    size = engine.model.config.vision_config.image_size
    frames = torch.randint(0, 256, (TOWER_FRAMES, size, size, 3), dtype=torch.uint8, device=engine.model.device)
    encoder = FrameEncoder(engine.model)
    seconds = []
    for _ in range(6):
        start = time.perf_counter()
        encoder.launch(frames).wait()
        seconds.append(time.perf_counter() - start)
    return TOWER_FRAMES / statistics.median(seconds[1:])


def random_memory(engine: HourLlava, hours: int) -> Memory:
    """A memory of so many hours at 1 FPS, of random features."""
    config = engine.model.config
    times = np.arange(hours * 3600, dtype=np.float64)
    hour = torch.randn(3600, config.video_frame_tokens, config.vision_feature_width, device=engine.model.device)
    return Memory(
        hour.bfloat16().cpu().repeat(hours, 1, 1),
        times,
        times,
        fps=1.0,
        duration_seconds=len(times),
        source=WatchedSource("random"),
        encoder=engine.encoder,
    )


def measure(engine: HourLlava, memory: Memory, watch_seconds: float) -> dict[str, float]:
    """One row of the table; the memory was watched in so many seconds, 0 if it was not."""
    torch.cuda.reset_peak_memory_stats()

    def first_token_seconds(memory: Memory, question: str) -> float:
        return engine.ask(memory, question, max_new_tokens=1).first_token_seconds

    def answer_rate(question: str) -> tuple[float, float]:
        answer = engine.ask(memory, question, max_new_tokens=NEW_TOKENS)
        after_first = answer.total_seconds - answer.first_token_seconds
        return answer.first_token_seconds, (answer.num_new_tokens - 1) / after_first

    cold = first_token_seconds(memory, "What is on the desk at the beginning?")
    engine.release()
    cold_again = first_token_seconds(memory, "What is on the desk at the beginning?")
    rates = [answer_rate(question) for question in QUESTIONS]
    return {
        "frames": memory.num_frames,
        "watch s": watch_seconds,
        "frames/s": memory.num_frames / watch_seconds if watch_seconds else 0.0,
        "tower frames/s": tower_frames_per_second(engine),
        "cold s": cold,
        "cold again s": cold_again,
        "warm s": statistics.median(warm for warm, _ in rates),
        "tokens/s": statistics.median(rate for _, rate in rates),
        "peak GB": torch.cuda.max_memory_allocated() / 1e9,
    }


def main() -> None:
    """Print a table, a line per model and length."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", action="append", help="preset; several may be given")
    parser.add_argument("--minutes", action="append", type=int, help="length of the video; several may be given")
    parser.add_argument("--feature-hours", nargs="*", type=int, default=[], help="memories of random features")
    parser.add_argument("--recall", choices=("kept", "question"), default="kept", help="memaug.recall of the model")
    parser.add_argument("--folder", type=Path, default=Path("/tmp/ask-bench"), help="where the videos are generated")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    videos = {}
    for minutes in options.minutes or [10, 60, 180]:
        videos[minutes] = options.folder / f"{minutes}.mp4"
        if not videos[minutes].exists():
            generate(videos[minutes], 640, 360, ENCODED_MINUTES, minutes)
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}, bf16, random weights, 360p H.264 at 1 FPS")
    header_printed = False
    for name in options.model or ["hourllava-3b"]:
        model = random_model(name, torch.device("cuda"), options.recall)
        engine = HourLlava(model, HourLlavaProcessor(nano_tokenizer(), model.config))
        tower_frames_per_second(engine)  # warm up
        for minutes, video in [*videos.items(), *((60 * hours, None) for hours in options.feature_hours)]:
            start = time.perf_counter()
            memory = random_memory(engine, minutes // 60) if video is None else engine.watch(video)
            watch_seconds = 0.0 if video is None else time.perf_counter() - start
            row = measure(engine, memory, watch_seconds)
            if not header_printed:
                print(f"{'model':<14}{'minutes':>8}" + "".join(f"{column:>16}" for column in row), flush=True)
                header_printed = True
            print(f"{name:<14}{minutes:>8}" + "".join(f"{value:>16.2f}" for value in row.values()), flush=True)


if __name__ == "__main__":
    main()
