"""What several commands share: the memory of a file, and descriptions as plain data for `--json`."""

import platform
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import transformers

from hourllava import __version__
from hourllava.clock import parse_clock
from hourllava.errors import CheckpointError, MemoryFileError
from hourllava.inference.engine import HourLlava
from hourllava.inference.memories.cache import MemoryCache
from hourllava.inference.memories.memory import Memory
from hourllava.model.checkpoint import find_checkpoint, load_config
from hourllava.model.kept_prefix import kept_prefix_bytes
from hourllava.model.nano import NANO
from hourllava.processes import usable_cores
from hourllava.video import shown_name

MEMORY_SUFFIX = ".safetensors"
JSON_FORMAT = 1
"""Version of the `--json` output. It grows when a field changes its meaning or is removed."""


def open_memory(
    file: str,
    model_name: str,
    *,
    device: str | None = None,
    dtype: str | None = None,
    fps: float = 1.0,
    start: str = "0",
    end: str | None = None,
    use_cache: bool = True,
    allow_network: bool = False,
    allow_playlists: bool = False,
) -> tuple[HourLlava, Memory]:
    """Load a model, and the memory of a file: a saved memory, or a video that is watched unless the cache has it.

    Args:
        file: video, or saved memory (`*.safetensors`).
        model_name, device, dtype: see `HourLlava.from_pretrained`.
        fps, allow_network, allow_playlists: see `HourLlava.watch`.
        start, end: part of the video on the player's clock, as seconds or h:mm:ss.
        use_cache: read and write the cache of memories.

    Raises:
        MemoryFileError: the saved memory is damaged, belongs to another encoder, or holds no frames.
        HourLlavaError: as `HourLlava.from_pretrained` and `HourLlava.watch`.
    """
    start_seconds, end_seconds = parse_clock(start), None if end is None else parse_clock(end)
    model = HourLlava.from_pretrained(model_name, device=device, dtype=dtype)
    if file.endswith(MEMORY_SUFFIX):
        memory = Memory.load(Path(file))
        memory.check_fits(model.encoder)
        if not len(memory):
            raise MemoryFileError(f"the memory {file} holds no frames; watch the video again")
        return model, memory
    cache = MemoryCache() if use_cache else None
    memory = model.watch(
        file,
        fps=fps,
        start_seconds=start_seconds,
        end_seconds=end_seconds,
        cache=cache,
        allow_network=allow_network,
        allow_playlists=allow_playlists,
    )
    return model, memory


def describe_memory(memory: Memory, file: str) -> dict[str, Any]:
    """Describe a memory that holds frames, as `hourllava watch --json` prints it; times are the player's."""
    snapshot = memory.snapshot()
    offset = snapshot.player_offset_seconds
    return {
        "format": JSON_FORMAT,
        "file": shown_name(file),
        "num_frames": snapshot.num_frames,
        "fps": snapshot.fps,
        "start_seconds": float(snapshot.timestamps_seconds[0]) + offset,
        "duration_seconds": snapshot.duration_seconds,
        "gaps": [
            {"start_seconds": start + offset, "end_seconds": end + offset, "reason": reason}
            for start, end, reason in snapshot.gaps
        ],
        "num_bytes": snapshot.features.nbytes,
    }


def describe_installation(model_names: list[str]) -> dict[str, Any]:
    """Describe versions, devices, models and the cache, as `hourllava info --json` prints them."""
    cache = MemoryCache()
    entries = cache.entries()
    return {
        "format": JSON_FORMAT,
        "versions": {
            "hourllava": __version__,
            "python": platform.python_version(),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        },
        "devices": [
            f"cpu ({usable_cores()} cores)",
            *(f"cuda:{n} ({torch.cuda.get_device_name(n)})" for n in range(torch.cuda.device_count())),
        ],
        "models": {name: _describe_model(name) for name in model_names},
        "cache": {
            "folder": None if cache.folder is None else str(cache.folder),
            "num_memories": len(entries),
            "num_bytes": sum(entry.num_bytes for entry in entries),
            "max_bytes": cache.max_bytes,
        },
    }


def _describe_model(name: str) -> str:
    try:
        config = load_config(find_checkpoint(name))
    except CheckpointError as error:
        return str(error)
    text = config.text_config
    described = f"{text.model_type}, {text.num_hidden_layers} layers of width {text.hidden_size}"
    if name == NANO:
        described = "in the package; trained on MarathonWorld"
    if config.memaug.recall == "kept":
        return described
    kept_mb = kept_prefix_bytes(3600, config, item_bytes=2) / 1e6
    of_hour = f", {kept_mb:.3g} MB kept of prompts about an hour (bf16)" if kept_mb else ""
    return f"{described}; {config.memaug.num_recall_tokens} recall tokens{of_hour}"


def read_questions(read_line: Callable[[], str]) -> Iterator[str]:
    """Yield the questions of a conversation, one per line, until an empty line or the end of input."""
    while True:
        try:
            question = read_line().strip()
        except EOFError:
            return
        if not question:
            return
        yield question
