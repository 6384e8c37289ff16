"""What replicas on a Ray cluster give: `hourllava serve --replicas N` beside other N, over HTTP.

    python benchmarks/serve_replicas.py --minutes 1 --replicas 0 1 2 --out serve_replicas.json
    python benchmarks/serve_replicas.py --size 3b --minutes 10 --replicas 1 2 --seconds 40 --out serve_replicas_3b.json

For each number of replicas (0: without Ray) the real command runs in a process of its own with an empty store. `nano`
is the model of the package; `3b` and `7b` have random weights in bf16, `tiny` those of nano's shape, which are written
to `--work` once. Lines for each number:

    start       until the command says its address
    watch       all videos, uploaded at once; hours of video an hour
    alone       questions one by one: medians
    load        `--at-once` clients that ask about all videos in turn, each again when it is answered: answers a
                second; first token (TTFT) and whole answer (E2EL), each p50/p95/p99; tokens an answer; refused
                answers; share of questions whose memory was at hand
    end         from SIGTERM to the end; exit code; processes that were left, and are killed
    beside      the first number: watching and answers a second as ratios, a question alone as a difference
"""

import argparse
import asyncio
import contextlib
import functools
import itertools
import json
import os
import re
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from pathlib import Path

import httpx2
import numpy as np
import torch

from decode import generate
from first_token import random_model
from hourllava.model.checkpoint import save_weights
from hourllava.model.nano import FOLDER as NANO_FOLDER
from hourllava.model.nano import nano_tokenizer
from hourllava.model.processor import HourLlavaProcessor
from hourllava.processes import usable_cores
from serve_http import HEIGHT, WIDTH, Figures, Timing, asked, percentiles, watched

PRESETS = {"tiny": "hourllava-nano", "3b": "hourllava-3b", "7b": "hourllava-7b"}
ALONE_QUESTIONS = 20
START_SECONDS, END_SECONDS = 900, 120
MARK = "HOURLLAVA_SERVE_REPLICAS"  # variable that the command and all that it starts inherit

Note = Callable[[str, Figures], None]


def checkpoint(size: str, work: Path) -> str:
    """The model that is served: a name, or a folder with random weights, which is written if it is not there."""
    if size == "nano":
        return "nano"
    folder, partial = work / f"hourllava-{size}", work / "partial"
    if not folder.exists():
        shutil.rmtree(partial, ignore_errors=True)
        model = random_model(PRESETS[size], torch.device("cuda" if torch.cuda.is_available() else "cpu"))
        # A logit of 0 is never the best: no answer ends early.
        stop_ids = HourLlavaProcessor(nano_tokenizer(), model.config).stop_ids
        with torch.no_grad():
            model.get_output_embeddings().weight[list(stop_ids)] = 0
        partial.mkdir()
        save_weights(model.config, model.state_dict(), partial)
        nano_tokenizer().save_pretrained(partial)
        write_vocabulary(partial, model.config.text_config.vocab_size)
        partial.rename(folder)
    return str(folder)


def write_vocabulary(folder: Path, vocab_size: int) -> None:
    """Nano's tokenizer with a word for each further token of a model; no question has them."""
    content = json.loads((NANO_FOLDER / "tokenizer.json").read_text())
    vocabulary = content["model"]["vocab"]
    vocabulary.update({token["content"]: token["id"] for token in content["added_tokens"]})  # else their ids would move
    taken = set(vocabulary.values())
    vocabulary.update({f"\u0120<{number}>": number for number in range(vocab_size) if number not in taken})
    (folder / "tokenizer.json").write_text(json.dumps(content, ensure_ascii=False))


@contextlib.asynccontextmanager
async def served(model: str, num_replicas: int, folder: Path, at_once: int, note: Note) -> AsyncGenerator[str, None]:
    """The address of the command while it runs."""
    config, log = folder / "limits.yaml", folder / "log.txt"
    config.write_text(f"max_client_questions: {at_once}\n")
    command = [sys.executable, "-m", "hourllava", "serve", "--model", model, "--port", "0", "--config", str(config)]
    command += ["--store", str(folder / "store"), *(("--replicas", str(num_replicas)) if num_replicas else ())]
    start = time.perf_counter()
    with log.open("wb") as errors:
        variables = os.environ | {"RAY_ADDRESS": "local", MARK: str(folder)}
        process = await asyncio.create_subprocess_exec(
            *command, stdout=asyncio.subprocess.PIPE, stderr=errors, env=variables
        )
    try:
        assert process.stdout is not None
        line = await asyncio.wait_for(process.stdout.readline(), START_SECONDS)
        if not line:
            raise SystemExit("the server did not start")
        note("start", {"s": time.perf_counter() - start})
        yield line.decode().split()[0]
        end = time.perf_counter()
        process.send_signal(signal.SIGTERM)
        await asyncio.wait_for(process.wait(), END_SECONDS)
        took, left = time.perf_counter() - end, processes_of(folder)
        note("end", {"s": took, "exit code": process.returncode or 0, "processes left": len(left)})
    except BaseException:
        print(log.read_text(), file=sys.stderr)
        raise
    finally:
        for number in processes_of(folder):
            with contextlib.suppress(ProcessLookupError):
                os.kill(number, signal.SIGKILL)
        await process.wait()


def processes_of(folder: Path) -> list[int]:
    """Processes that the command of this folder, or one that it started, has begun (Linux)."""
    found = []
    for environment in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            if f"{MARK}={folder}\0".encode() in environment.read_bytes():
                found.append(int(environment.parent.name))
    return found


async def alone(client: httpx2.AsyncClient, model: str, ids: Sequence[str], new_tokens: int) -> Figures:
    """Questions one by one, after a first one about each video."""
    await asyncio.gather(*(asked(client, memory_id, 0, model, new_tokens) for memory_id in ids))
    numbers = range(ALONE_QUESTIONS)
    results = [await asked(client, ids[number % len(ids)], number, model, new_tokens) for number in numbers]
    timings = [result for result in results if isinstance(result, Timing)]
    assert len(timings) == ALONE_QUESTIONS, results
    return {
        "TTFT ms": float(np.median([timing.first for timing in timings])) * 1e3,
        "whole ms": float(np.median([timing.whole for timing in timings])) * 1e3,
        "tokens": float(np.mean([timing.num_tokens for timing in timings])),
    }


async def load(client: httpx2.AsyncClient, model: str, ids: Sequence[str], options: argparse.Namespace) -> Figures:
    """Clients that each ask again when they have their answer; all have one at the end."""
    numbers = itertools.count()
    results: list[Timing | int] = []
    start = time.perf_counter()

    async def ask_again() -> None:
        while time.perf_counter() < start + options.seconds:
            turn, video = divmod(next(numbers), len(ids))
            results.append(await asked(client, ids[video], turn, model, options.new_tokens))
            if not isinstance(results[-1], Timing):
                await asyncio.sleep(0.1)

    before = await memory_counts(client)
    await asyncio.gather(*(ask_again() for _ in range(options.at_once)))
    took = time.perf_counter() - start
    hits, queries = (after - then for after, then in zip(await memory_counts(client), before))
    timings = [result for result in results if isinstance(result, Timing)]
    return {
        "answers": len(timings),
        "refused": len(results) - len(timings),
        "answers/s": len(timings) / took,
        **percentiles("TTFT", [timing.first for timing in timings]),
        **percentiles("E2EL", [timing.whole for timing in timings]),
        "tokens": float(np.mean([timing.num_tokens for timing in timings] or [0])),
        "at hand": hits / max(queries, 1),
    }


async def memory_counts(client: httpx2.AsyncClient) -> tuple[float, float]:
    """Questions whose memory was at hand, and all about videos, since the start."""
    text = (await client.get("/metrics")).text
    counts = dict(re.findall(r"^hourllava:(\w+) ([\d.e+]+)$", text, flags=re.MULTILINE))
    return float(counts["mm_cache_hits"]), float(counts["mm_cache_queries"])


async def measured(model: str, num_replicas: int, content: bytes, options: argparse.Namespace, note: Note) -> None:
    """The lines of one number of replicas."""
    with tempfile.TemporaryDirectory(dir=options.work) as folder:
        async with (
            served(model, num_replicas, Path(folder), options.at_once, note) as address,
            httpx2.AsyncClient(base_url=address, timeout=600, limits=httpx2.Limits(max_connections=None)) as client,
        ):
            name = (await client.get("/v1/models")).json()["data"][0]["id"]
            start = time.perf_counter()
            # A byte more is another digest, so each video is watched anew.
            ids = await asyncio.gather(*(watched(client, content + bytes(i)) for i in range(options.videos)))
            took = time.perf_counter() - start
            note("watch", {"s": took, "video-hours/hour": options.videos * options.minutes * 60 / took})
            note("alone", await alone(client, name, ids, options.new_tokens))
            note("load", await load(client, name, ids, options))


def beside(figures: dict[str, Figures], first: dict[str, Figures]) -> Figures:
    """A number of replicas beside the first."""
    return {
        "watching": first["watch"]["s"] / figures["watch"]["s"],
        "answers/s": figures["load"]["answers/s"] / first["load"]["answers/s"],
        "alone, TTFT ms more": figures["alone"]["TTFT ms"] - first["alone"]["TTFT ms"],
        "alone, whole ms more": figures["alone"]["whole ms"] - first["alone"]["whole ms"],
    }


def main() -> None:
    """Print a line for each measurement; with `--out` also as JSON, written after each of them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", choices=("nano", *PRESETS), default="nano")
    parser.add_argument("--minutes", type=int, default=1, help="length of each video")
    parser.add_argument("--videos", type=int, default=8)
    parser.add_argument("--replicas", type=int, nargs="+", default=[0, 1, 2], help="0: without Ray")
    parser.add_argument("--at-once", type=int, default=32, help="clients")
    parser.add_argument("--new-tokens", type=int, default=64, help="of an answer, at most")
    parser.add_argument("--seconds", type=float, default=15, help="in which clients ask")
    parser.add_argument("--work", type=Path, help="folder for weights and stores; by default a temporary one")
    parser.add_argument("--out", type=Path, help="JSON file of the results")
    options = parser.parse_args()
    device = f"{torch.cuda.device_count()} {torch.cuda.get_device_name()}" if torch.cuda.is_available() else "CPU"
    print(f"{device}, {usable_cores()} cores, torch {torch.__version__}, {options.size}, load {os.getloadavg()[0]:.1f}")
    results: dict[str, dict[str, Figures]] = {}

    def note(group: str, what: str, figures: Figures) -> None:
        results.setdefault(group, {})[what] = figures
        words = "  ".join(f"{name} {value:.4g}" for name, value in figures.items())
        print(f"{group:<12}{what:<10}{words}", flush=True)
        if options.out:
            options.out.write_text(json.dumps(results, indent=1))

    with tempfile.TemporaryDirectory() as temporary:
        options.work = work = (options.work or Path(temporary)).resolve()
        work.mkdir(parents=True, exist_ok=True)
        model = checkpoint(options.size, work)
        torch.cuda.empty_cache()  # the GPU is the server's now
        video = work / f"{options.minutes}-minutes.mp4"
        if not video.exists():
            generate(video, WIDTH, HEIGHT, 1, options.minutes)
        content = video.read_bytes()
        groups = [f"{number} replicas" for number in options.replicas]
        for group, number in zip(groups, options.replicas):
            asyncio.run(measured(model, number, content, options, functools.partial(note, group)))
            if group != groups[0]:
                note(group, "beside", beside(results[group], results[groups[0]]))


if __name__ == "__main__":
    main()
