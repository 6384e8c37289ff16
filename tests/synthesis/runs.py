"""Runs of synthesis for tests: short videos, a server, and the command in this process."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from forked_decoding import forked_decoding
from hourllava.errors import HourLlavaError
from hourllava.synthesis.command import SynthOptions, run_synth
from hourllava.synthesis.job import Cast
from hourllava.world.generate import DIFFICULTIES
from hourllava.world.reference import Reference, write_reference
from hourllava.world.script import Script

MODEL = "test-model"
FAST = {"retries": {"first_pause_seconds": 0.001, "longest_pause_seconds": 0.02}}
"""Settings for runs against servers that fail on purpose."""


def write_world(folder: Path, seconds: Sequence[int] = (60, 75, 90), seed: int = 0) -> list[Script]:
    """Write references to dense videos of these lengths; gives their scripts."""
    folder.mkdir(parents=True, exist_ok=True)
    scripts = []
    for k, duration in enumerate(seconds):
        reference = Reference(
            seed=1000 * seed + k, duration_seconds=duration, split="train", density=DIFFICULTIES["dense"],
            needles=None, size_pixels=64,
        )  # fmt: skip
        write_reference(reference, folder / f"v{k:03}.world.json")
        scripts.append(reference.script())
    return scripts


class Ended:
    """How a run ended: its lines, and the error, if any."""

    def __init__(self, lines: list[str], error: HourLlavaError | None) -> None:
        self.lines, self.error = lines, error


def synthesise(
    videos: Path | Sequence[Path],
    out: Path,
    address: str | None = None,
    *,
    verifier: bool = True,
    settings: dict[str, Any] | None = None,
    **more: Any,
) -> Ended:
    """Run the command in this process.

    Args:
        videos: folder, or several.
        out: folder of the data set.
        address: of a server that captions, writes and verifies (under another name); None: `world` does.
        verifier: whether questions are verified.
        settings: in place of the defaults.
        **more: of `SynthOptions`.
    """
    model = f"{MODEL}@{address}" if address else "world"
    other = f"other-model@{address}" if address else "world"
    if settings is not None:
        path = out.with_name(f"{out.name}.yaml")
        path.write_text(yaml.safe_dump(settings))
        more["settings"] = path
    cast = more.pop("cast", Cast(model, model, other if verifier else None))
    options = SynthOptions([videos] if isinstance(videos, Path) else videos, out, cast, shows_progress=False, **more)
    lines: list[str] = []
    try:
        with forked_decoding():
            lines.extend(run_synth(options))
    except HourLlavaError as error:
        return Ended(lines, error)
    return Ended(lines, None)


def final_files(folder: Path) -> dict[str, str]:
    """Digest of every file that must not depend on how a run went: all but the log and the costs."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in ("requests.jsonl", "costs.md", ".lock")
    }
