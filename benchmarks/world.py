"""The speed of MarathonWorld. Run: `OMP_NUM_THREADS=1 python benchmarks/world.py`; prints a Markdown table.

Frames are rendered on one core. Each repeat has a new script; only the first one draws backdrops and sprites, as in
training. An hour of video is scripted, rendered and encoded in one process with a second thread that renders.
"""

import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from hourllava.processes import usable_cores
from hourllava.world import (
    DIFFICULTIES,
    encode_video,
    generate_captions,
    generate_questions,
    generate_script,
    render_frames,
)

HOUR_SECONDS = 3600
REPEATS = 3


def best_of(action: Callable[[int], object]) -> tuple[float, float]:
    """The fastest and the slowest repeat, in seconds."""
    taken = []
    for repeat in range(REPEATS):
        start = time.perf_counter()
        action(repeat)
        taken.append(time.perf_counter() - start)
    return min(taken), max(taken)


def main() -> None:
    rows = []

    def frames(name: str, size_pixels: int, difficulty: str, times: Callable[[int], list[float]]) -> None:
        scripts = [generate_script(40 + k, HOUR_SECONDS, density=DIFFICULTIES[difficulty]) for k in range(REPEATS)]
        moments = [times(k) for k in range(REPEATS)]
        fast, slow = best_of(lambda k: render_frames(scripts[k], moments[k], size_pixels))
        rows.append((name, f"{len(moments[0]) / slow:,.0f}-{len(moments[0]) / fast:,.0f} frames/s"))

    hour = [float(second) for second in range(HOUR_SECONDS)]
    frames("64-pixel tensors, an hour at 1 FPS", 64, "normal", lambda k: hour)
    frames("64-pixel tensors, hard difficulty", 64, "hard", lambda k: hour)

    def in_action(k: int) -> list[float]:
        script = generate_script(40 + k, HOUR_SECONDS, density=DIFFICULTIES["hard"])
        spans = [(a.start_seconds, a.end_seconds) for event in script.events for a in event.actions]
        moments = [start + step / 3 for start, end in spans for step in range(int(3 * (end - start)))]
        return moments[:HOUR_SECONDS]

    frames("64-pixel tensors, only moments with something moving", 64, "hard", in_action)
    frames("256-pixel tensors, an hour at 1 FPS", 256, "normal", lambda k: hour)
    script = generate_script(7, HOUR_SECONDS)
    for name, action in (
        ("script of an hour", lambda k: generate_script(k, HOUR_SECONDS)),
        ("script of 24 hours", lambda k: generate_script(k, 24 * HOUR_SECONDS)),
        ("44 questions on an hour", lambda k: generate_questions(script)),
        ("captions of an hour", lambda k: generate_captions(script)),
    ):
        fast, slow = best_of(action)
        rows.append((name, f"{1000 * fast:.0f}-{1000 * slow:.0f} ms"))
    with tempfile.TemporaryDirectory() as folder:
        for suffix in (".mp4", ".webm"):
            path = Path(folder) / f"hour{suffix}"

            def make(k: int, path: Path = path) -> None:
                encode_video(generate_script(7 + k, HOUR_SECONDS), path)

            fast, slow = best_of(make)
            megabytes = path.stat().st_size / 1e6
            rows.append(
                (
                    f"an hour scripted, rendered, encoded: 256 pixels, 4 fps, {suffix[1:]}",
                    f"{fast:.1f}-{slow:.1f} s, {megabytes:.0f} MB",
                )
            )
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    print(f"{usable_cores()} cores, load average at the end {load}; fastest and slowest of {REPEATS}\n")
    print("| what | measured |\n|---|---|")
    for name, value in rows:
        print(f"| {name} | {value} |")


if __name__ == "__main__":
    main()
