"""Load over HTTP on loopback: how long clients wait, what the way over HTTP costs, and whether the server stays awake.

    python benchmarks/serve_http.py --out serve_http.json
    python benchmarks/serve_http.py --size 3b --minutes 60 --out serve_http_3b.json

`--size nano` is the model of the package; `3b` and `7b` have random weights in bf16 on a GPU. A generated 360p video is
uploaded and watched, then asked. Everything is bounded: `--seconds` a rate, `--at-once` questions. Lines:

    overhead    the same questions one by one through the engine and through HTTP, in turn: median of the differences
    rate R      R questions a second begin, whatever became of those before: first token (TTFT), between tokens (ITL),
                whole answer (E2EL), each p50/p95/p99; goodput: questions a second that kept all limits (`--goodput`);
                refused: 429 or 503
    health      slowest and p99 answer of /health while another video is watched, with the time of that watch
"""

import argparse
import asyncio
import itertools
import json
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx2
import numpy as np
import torch

from decode import generate
from first_token import processor_of, random_model
from hourllava.inference.engine import HourLlava
from hourllava.inference.questions.answers import Answer
from hourllava.serving.app import create_app
from hourllava.serving.local import EngineSettings, LocalEngine
from hourllava.serving.protocol import Question
from hourllava.serving.server import Server
from hourllava.serving.settings import ServeSettings
from hourllava.serving.store import Store

MODEL = "hourllava-bench"
NEW_TOKENS = 32
OVERHEAD_QUESTIONS = 20
WIDTH, HEIGHT = 640, 360
HEALTH_SECONDS = 0.05

Figures = dict[str, float]


@dataclass(frozen=True)
class Timing:
    """One streamed answer: seconds to the first text, between texts, and to the end; its length in tokens."""

    first: float
    between: Sequence[float]
    whole: float
    num_tokens: int


def loaded(size: str) -> HourLlava:
    """The model that is served."""
    if size == "nano":
        return HourLlava.from_pretrained("nano")
    model = random_model(f"hourllava-{size}", torch.device("cuda"))
    return HourLlava(model, processor_of(model))


def text_of(number: int) -> str:
    """A question of another length for each of 40 numbers."""
    return f"When is the {'very ' * (number % 40)}first graph shown, and who points at it?"


async def asked(
    client: httpx2.AsyncClient, memory_id: str, number: int, model: str = MODEL, max_tokens: int = NEW_TOKENS
) -> Timing | int:
    """One question over HTTP; the status if it was refused."""
    body = {
        **{"model": model, "max_tokens": max_tokens, "hourllava": {"memory_id": memory_id}},
        **{"messages": [{"role": "user", "content": text_of(number)}], "stream": True},
        "stream_options": {"include_usage": True},
    }
    start = time.perf_counter()
    seen: list[float] = []
    num_tokens = 0
    async with client.stream("POST", "/v1/chat/completions", json=body) as answer:
        if answer.status_code != 200:
            await answer.aread()
            return answer.status_code
        async for line in answer.aiter_lines():
            if not line.startswith("data: {"):
                continue
            chunk = json.loads(line.removeprefix("data: "))
            if "error" in chunk:
                return 500
            if chunk["choices"] and chunk["choices"][0]["delta"].get("content"):
                seen.append(time.perf_counter() - start)
            if chunk.get("usage"):
                num_tokens = chunk["usage"]["completion_tokens"]
    whole = time.perf_counter() - start
    return Timing(seen[0] if seen else whole, [b - a for a, b in itertools.pairwise(seen)], whole, num_tokens)


def percentiles(name: str, seconds: Sequence[float]) -> Figures:
    """p50, p95 and p99 in milliseconds."""
    if not len(seconds):
        return {}
    return {f"{name} p{p} ms": float(np.percentile(seconds, p)) * 1e3 for p in (50, 95, 99)}


async def at_rate(
    client: httpx2.AsyncClient, memory_id: str, rate: float, seconds: float, at_once: int, goodput: Sequence[float]
) -> Figures:
    """Questions that begin at a rate; those beyond `at_once` are not sent, and counted."""
    tasks: list[asyncio.Task[Timing | int]] = []
    num_unsent = 0
    start = time.perf_counter()
    for number in range(max(1, round(rate * seconds))):
        await asyncio.sleep(max(0.0, start + number / rate - time.perf_counter()))
        if sum(not task.done() for task in tasks) >= at_once:
            num_unsent += 1
        else:
            tasks.append(asyncio.create_task(asked(client, memory_id, number)))
    results = await asyncio.gather(*tasks)
    took = time.perf_counter() - start
    timings = [result for result in results if isinstance(result, Timing)]
    max_first, max_between, max_whole = goodput
    good = [
        timing
        for timing in timings
        if timing.first <= max_first and timing.whole <= max_whole and np.mean(timing.between or [0]) <= max_between
    ]
    return {
        "answered": len(timings),
        "refused": len(results) - len(timings),
        "unsent": num_unsent,
        **percentiles("TTFT", [timing.first for timing in timings]),
        **percentiles("ITL", [gap for timing in timings for gap in timing.between]),
        **percentiles("E2EL", [timing.whole for timing in timings]),
        "answers/s": len(timings) / took,
        "goodput/s": len(good) / took,
    }


async def overhead(client: httpx2.AsyncClient, app: object, memory_id: str) -> Figures:
    """The same questions through the engine and through HTTP, in turn."""
    context = app.state.context  # type: ignore[attr-defined]
    video = context.watching.video(await context.watching.get(memory_id, ""))
    differences, firsts = [], []
    for number in range(OVERHEAD_QUESTIONS + 2):
        start = time.perf_counter()
        first = None
        async for event in context.engine.ask(video, Question(text_of(number), max_new_tokens=NEW_TOKENS)):
            if first is None and not isinstance(event, Answer):
                first = time.perf_counter() - start
        whole = time.perf_counter() - start
        timing = await asked(client, memory_id, number)
        assert isinstance(timing, Timing), timing
        if number >= 2:  # the first ones make buffers and graphs
            differences.append(timing.whole - whole)
            firsts.append(timing.first - (first if first is not None else whole))
    return {
        "whole median ms": float(np.median(differences)) * 1e3,
        "whole p95 ms": float(np.percentile(differences, 95)) * 1e3,
        "first median ms": float(np.median(firsts)) * 1e3,
    }


async def watched(client: httpx2.AsyncClient, content: bytes) -> str:
    """Upload a video and wait until it is watched; the id of its memory."""
    answer = await client.put("/v1/hourllava/videos", params={"filename": "bench.mp4"}, content=content)
    answer.raise_for_status()
    memory_id: str = answer.json()["hourllava"]["memory_id"]
    while True:
        memory = (await client.get(f"/v1/hourllava/memories/{memory_id}")).json()
        if memory["state"] in ("failed", "cancelled"):
            raise SystemExit(f"the video was not watched: {memory['error']}")
        if memory["state"] == "ready":
            return memory_id
        await asyncio.sleep(0.1)


async def health_while_watching(client: httpx2.AsyncClient, content: bytes) -> Figures:
    """Answers of /health while a video is taken in and watched."""
    start = time.perf_counter()
    watching = asyncio.create_task(watched(client, content))
    seconds = []
    while not watching.done():
        began = time.perf_counter()
        (await client.get("/health")).raise_for_status()
        seconds.append(time.perf_counter() - began)
        await asyncio.sleep(HEALTH_SECONDS)
    await watching
    return {
        "asked": len(seconds),
        "p99 ms": float(np.percentile(seconds, 99)) * 1e3,
        "worst ms": max(seconds) * 1e3,
        "watch s": time.perf_counter() - start,
    }


async def measured(options: argparse.Namespace, folder: Path) -> None:
    """All lines."""
    video = folder / "bench.mp4"
    generate(video, WIDTH, HEIGHT, 1, options.minutes)
    content = video.read_bytes()
    results: dict[str, Figures] = {}

    def note(what: str, figures: Figures) -> None:
        results[what] = figures
        print(f"{what:<12}" + "  ".join(f"{name} {value:.4g}" for name, value in figures.items()), flush=True)
        if options.out:
            options.out.write_text(json.dumps(results, indent=1))

    store = Store(folder / "store")
    engine = LocalEngine(loaded(options.size), store.memories_folder, EngineSettings(name=MODEL))
    app = create_app(engine, store, ServeSettings(max_client_questions=max(options.at_once, 1)))
    server = Server(app, "127.0.0.1", 0)
    serving = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.05)
    try:
        async with httpx2.AsyncClient(base_url=server.address, timeout=600) as client:
            start = time.perf_counter()
            memory_id = await watched(client, content)
            note("upload+watch", {"s": time.perf_counter() - start})
            note("overhead", await overhead(client, app, memory_id))
            for rate in options.rate:
                figures = await at_rate(client, memory_id, rate, options.seconds, options.at_once, options.goodput)
                note(f"rate {rate:g}", figures)
            # A byte more is another digest, so it is watched anew.
            note("health", await health_while_watching(client, content + b"\0"))
    finally:
        server.should_exit = True
        await serving


def main() -> None:
    """Print a line for each measurement; with `--out` also as JSON, written after each of them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", choices=("nano", "3b", "7b"), default="nano")
    parser.add_argument("--minutes", type=int, default=2, help="length of the video")
    parser.add_argument("--rate", type=float, nargs="+", default=[0.25, 0.5, 1, 2], help="questions a second")
    parser.add_argument("--seconds", type=float, default=20, help="of each rate")
    parser.add_argument("--at-once", type=int, default=32, help="questions at once, at most")
    parser.add_argument(
        "--goodput", type=float, nargs=3, default=[2.0, 0.2, 10.0], metavar=("TTFT", "ITL", "E2EL"), help="in seconds"
    )
    parser.add_argument("--out", type=Path, help="JSON file of the results")
    options = parser.parse_args()
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    print(
        f"{device}, torch {torch.__version__}, {options.size}, {options.minutes} minutes, {NEW_TOKENS} tokens an answer"
    )
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(measured(options, Path(folder)))


if __name__ == "__main__":
    main()
