"""Small shards and recipes that training tests run on, and running `train` in processes of its own."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import torch
import yaml
from PIL import Image

from hourllava.data.mds.writer import ShardWriter
from hourllava.inference.encoder import EncoderIdentity
from hourllava.inference.memory import Memory, WatchedSource

COLOURS = {"red": (220, 30, 30), "green": (30, 200, 30), "blue": (30, 30, 220)}
FEATURE_WIDTH, GRID = 16, 2

TINY = {
    "preset": "hourllava-nano",
    "tokenizer": "nano",
    "model": {
        "min_video_frames": 4,
        "video_grid": GRID,
        # What nano has of its own, fewer frames and normalised inputs, could not be exported in the released layout.
        "forgetting": {"max_kept_frames": 512},
        "max_sequence_tokens": 1024,
        "text_config": {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4},
        "vision_config": {
            "hidden_size": FEATURE_WIDTH,
            "intermediate_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
        },
        "memaug": {"num_blocks": 2, "normalize_inputs": False, "rotate_values": False},
    },
}


def record(number: int, question: str, answer: str) -> dict:
    return {
        "id": f"r{number}",
        "conversations": [{"from": "human", "value": question}, {"from": "gpt", "value": answer}],
    }


def write_images(folder: Path, count: int = 24) -> Path:
    """Pictures of one colour; the answer names it."""
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


def write_videos(folder: Path, media: Path, count: int = 12, turns: int = 1) -> Path:
    """Features of videos whose sign decides the answer; `turns` questions of each."""
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
        # The features of `write_videos` are of no tower, and most tests train the tower, too.
        "data": {"streams": streams, "media": str(root / "media"), "workers": 0, "any_encoder": True},
        "batch": {"token_budget": 512, "tokens": 1024, "multiple_of": 2},
        "learning_rates": {"*": 3e-3},
        "schedule": {"epochs": 4, "max_steps": 6},
        "precision": "fp32",
        "checkpoints": {"every_steps": 2},
        "log": {"every_steps": 1, "to": []},
    } | changes


def write_recipe(path: Path, recipe: dict) -> Path:
    path.write_text(yaml.safe_dump(recipe))
    return path


_PROGRAM = textwrap.dedent(
    """
    import sys
    from hourllava.errors import HourLlavaError
    from hourllava.training.recipe import load_recipe
    from hourllava.training.run import train
    try:
        train(load_recipe(sys.argv[1], sys.argv[2:]))
    except HourLlavaError as error:
        sys.exit(f"error: {error}")
    """
)


def start(recipe: Path, *overrides: str, processes: int = 1, program: Path | None = None) -> subprocess.Popen:
    """Training in a process group of its own; `program` in place of `train`'s plain call."""
    if program is None:
        program = recipe.with_suffix(".py")
        program.write_text(_PROGRAM)
    launcher = (
        [] if processes == 1 else ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    )
    command = [sys.executable, *launcher, str(program), str(recipe), *overrides]
    return subprocess.Popen(
        command,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"},
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )


def run(
    recipe: Path, *overrides: str, processes: int = 1, program: Path | None = None, limit_seconds: float = 300
) -> str:
    """Train to the end; what was printed on stderr."""
    process = start(recipe, *overrides, processes=processes, program=program)
    _, stderr = process.communicate(timeout=limit_seconds)
    assert process.returncode == 0, stderr
    return stderr


def kill_after(process: subprocess.Popen, seconds: float) -> bool:
    """Kill training and all its processes; False if it had ended by itself."""
    time.sleep(seconds)
    ended = process.poll() is not None
    if not ended:
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    return not ended
