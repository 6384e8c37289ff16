"""Small shards and recipes for training tests, and runs of `train` in other processes."""

import os
import signal
import socket
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import torch
import yaml
from PIL import Image

from forking import ForkedProcess, start_python
from hourllava.data.mds.writer import ShardWriter
from hourllava.inference.memories.encoder import EncoderIdentity
from hourllava.inference.memories.memory import Memory, WatchedSource

# The most expensive part of a short run is its checkpoints; this leaves the one that every run ends with.
LAST_ONLY = {"every_steps": 1000}
COLOURS = {"red": (220, 30, 30), "green": (30, 200, 30), "blue": (30, 30, 220)}
FEATURE_WIDTH, GRID = 16, 2

TINY = {
    "preset": "hourllava-nano",
    "tokenizer": "nano",
    "model": {
        "min_video_frames": 4,
        "video_grid": GRID,
        # Nano's own settings (fewer frames, normalised inputs) cannot be exported in the released layout.
        "forgetting": {"max_kept_frames": 512},
        "max_sequence_tokens": 1024,
        "text_config": {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 4},
        "vision_config": {
            "hidden_size": FEATURE_WIDTH,
            "intermediate_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
        },
        "memaug": {"num_blocks": 1, "normalize_inputs": False, "rotate_values": False},
    },
}
# The same with two of each layer, for tests of what is done layer by layer.
DEEP = {
    **TINY,
    "model": {
        **TINY["model"],
        "text_config": TINY["model"]["text_config"] | {"num_hidden_layers": 2},
        "memaug": TINY["model"]["memaug"] | {"num_blocks": 2},
    },
}


def record(number: int, question: str, answer: str) -> dict:
    return {
        "id": f"r{number}",
        "conversations": [{"from": "human", "value": question}, {"from": "gpt", "value": answer}],
    }


def write_images(folder: Path, count: int = 24) -> Path:
    """Images of one colour; the answer names it."""
    names = list(COLOURS)
    with ShardWriter(folder, {"image": "jpeg", "text": "json"}) as writer:
        for k in range(count):
            colour = names[k % len(names)]
            text = record(k, "<image>\nWhich colour?", colour) | {"image": f"{k}.jpg"}
            writer.write({"image": Image.new("RGB", (64, 64), COLOURS[colour]), "text": text})
    return folder


def write_texts(folder: Path, count: int = 12) -> Path:
    with ShardWriter(folder, {"image": "jpeg", "text": "json"}) as writer:
        for k in range(count):
            text = record(k, f"Say {k % 4}.", str(k % 4))
            writer.write({"image": Image.new("RGB", (1, 1)), "text": text})
    return folder


def write_videos(folder: Path, media: Path, count: int = 12, turns: int = 1, evidence: bool = False) -> Path:
    """Features of videos whose sign decides the answer; `turns` questions of each, perhaps with an evidence span."""
    media.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    with ShardWriter(folder, {"video": "str", "text": "json"}) as writer:
        for k in range(count):
            num_frames, sign = int(rng.integers(5, 30)), 1 if k % 2 else -1
            features = torch.full((num_frames, GRID**2, FEATURE_WIDTH), float(sign)).bfloat16()
            times = np.arange(num_frames) + 0.0
            Memory(features, times, times, fps=1.0, duration_seconds=float(num_frames), source=WatchedSource("v.mp4"),
                   encoder=EncoderIdentity("d", FEATURE_WIDTH, GRID)).save(media / f"{k}.safetensors")  # fmt: skip
            text = record(k, "<image>\nPlus or minus?", "plus" if k % 2 else "minus") | {"video": f"{k}.mp4"}
            more = [turn for _ in range(turns - 1) for turn in record(k, "And again?", "yes")["conversations"]]
            text["conversations"] += more
            if evidence:
                for answer in text["conversations"][1::2]:
                    answer["evidence"] = [[1.0, 2.0]]
            writer.write({"video": f"{k}.safetensors", "text": text})
    return folder


def write_mixture(root: Path) -> list[dict]:
    """Three streams: pictures, texts, videos."""
    write_images(root / "images")
    write_texts(root / "texts")
    write_videos(root / "videos", root / "media")
    return [{"folder": str(root / name)} for name in ("images", "texts", "videos")]


def recipe_of(root: Path, streams: list[dict], **changes) -> dict:
    """A recipe that trains everything for six steps of two micro-batches."""
    return {
        "out": str(root / "run"),
        "start": TINY,
        # The features of `write_videos` come from no tower, and most tests train the tower.
        "data": {"streams": streams, "media": str(root / "media"), "workers": 0, "any_encoder": True},
        "batch": {"token_budget": 256, "tokens": 512, "multiple_of": 2},
        "learning_rates": {"*": 3e-3},
        "schedule": {"epochs": 4, "max_steps": 6},
        "precision": "fp32",
        "activations": "none",
        "checkpoints": {"every_steps": 2},
        "log": {"every_steps": 1, "to": []},
    } | changes


def write_recipe(path: Path, recipe: dict) -> Path:
    path.write_text(yaml.safe_dump(recipe))
    return path


_PROGRAM = """
import sys
from hourllava.errors import HourLlavaError
from hourllava.training.recipe import load_recipe
from hourllava.training.run import train
try:
    train(load_recipe(sys.argv[1], sys.argv[2:]))
except HourLlavaError as error:
    sys.exit(f"error: {error}")
"""


class Processes:
    """The processes of one run; use it as a context, whose end kills what still runs."""

    def __init__(self, processes: list[ForkedProcess]):
        self._processes = processes

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        for process in self._processes:
            process.__exit__(kind, error, tb)

    def poll(self) -> int | None:
        """Exit code when all have ended or one has failed, None while the run goes on."""
        codes = [process.poll() for process in self._processes]
        failed = [code for code in codes if code]
        return failed[0] if failed else None if None in codes else 0

    def wait(self, limit_seconds: float) -> int:
        """Exit code of the run, within the limit."""
        end = time.monotonic() + limit_seconds
        while (code := self.poll()) is None:
            if time.monotonic() > end:
                raise subprocess.TimeoutExpired("train", limit_seconds, stderr=self.stderr.encode())
            time.sleep(0.01)
        return code

    def kill(self) -> None:
        """Kill the processes with everything that they have started."""
        for process in self._processes:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()

    @property
    def stdout(self) -> list[str]:
        """What each process has printed."""
        return [process.stdout for process in self._processes]

    @property
    def stderr(self) -> str:
        """What all of them have printed there."""
        return "".join(process.stderr for process in self._processes)


def start_python_processes(code: str, *arguments: object, processes: int = 1, **options) -> Processes:
    """Start Python code in processes that find each other as those of torchrun do."""
    if processes == 1:
        return Processes([start_python(code, *arguments, **options)])
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    common = {"WORLD_SIZE": processes, "LOCAL_WORLD_SIZE": processes, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    base = options.pop("env", os.environ)
    started = []
    for rank in range(processes):
        told = {key: str(value) for key, value in {**common, "RANK": rank, "LOCAL_RANK": rank}.items()}
        started.append(start_python(code, *arguments, env={**base, **told}, **options))
    return Processes(started)


def start(recipe: Path, *overrides: str, processes: int = 1, program: Path | None = None) -> Processes:
    """Start training; `program` in place of `train`'s plain call."""
    code = _PROGRAM if program is None else program.read_text()
    return start_python_processes(code, recipe, *overrides, processes=processes)


def run(
    recipe: Path, *overrides: str, processes: int = 1, program: Path | None = None, limit_seconds: float = 300
) -> str:
    """Train to the end; what was printed on stderr."""
    with start(recipe, *overrides, processes=processes, program=program) as started:
        assert started.wait(limit_seconds) == 0, started.stderr
        return started.stderr


def kill_after(started: Processes, seconds: float) -> bool:
    """Kill training after so many seconds; False if it had ended by itself."""
    with started:
        time.sleep(seconds)
        ended = started.poll() is not None
        started.kill()
        return not ended
