"""Time and memory of reading a video at 1 FPS as 384x384 frames, beside plain sequential PyAV in the same run.

    python benchmarks/decode.py --folder /tmp/decode-bench            # generates the videos once, then measures

The videos are H.264 at 25 fps as x264 makes them by default (CRF 23, keyframes up to 250 frames apart, B-frames):
panning textures, a moving part, film grain and a cut every 8 s. A few minutes are encoded and their packets repeated
with later timestamps, so that hours are made in minutes; each repetition costs the decoder the same as the first.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

FPS = 25
SIZE_PIXELS = 384
MINUTE_FRAMES = 60 * FPS

# name: width, height, minutes encoded, minutes in all
VIDEOS = {
    "360p, 1 h": (640, 360, 6, 60),
    "360p, 3 h": (640, 360, 6, 180),
    "1080p, 10 min": (1920, 1080, 1, 10),
}


def texture(width: int, height: int, rng: np.random.Generator) -> NDArray[np.float32]:
    layers = np.zeros((height, width), np.float32)
    for cells in (4, 16, 64):
        cell_values = Image.fromarray(rng.random((cells, cells), dtype=np.float32))
        layers += np.asarray(cell_values.resize((width, height), Image.Resampling.BICUBIC)) * (4 / cells)
    return (layers - layers.min()) / np.ptp(layers) * 180 + 30


def generate(path: Path, width: int, height: int, encoded_minutes: int, minutes: int) -> None:
    """Write a video."""
    import av

    rng = np.random.default_rng(0)
    textures = [texture(2 * width, 2 * height, rng) for _ in range(8)]
    grain = [rng.normal(0, 3.2, (height, width)).astype(np.float32) for _ in range(16)]
    partial = path.with_suffix(".partial.mp4")
    with av.open(str(partial), "w", format="mp4") as output:
        stream = output.add_stream("libx264", rate=FPS)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        packets = []
        for i in range(encoded_minutes * MINUTE_FRAMES):
            scene, k = divmod(i, 8 * FPS)
            background = textures[scene % 8]
            x, y = 2 * k % width, k % height
            luma = background[y : y + height, x : x + width].copy()
            left = int((np.sin(k / 20) + 1) / 2 * (width - width // 5))
            top = height // 3
            luma[top : top + height // 5, left : left + width // 5] = textures[(scene + 1) % 8][
                : height // 5, : width // 5
            ]
            luma += grain[rng.integers(16)]
            planes = np.full((height * 3 // 2, width), 118 + scene % 3 * 10, np.uint8)
            planes[:height] = np.clip(luma, 16, 235)
            frame = av.VideoFrame.from_ndarray(planes, format="yuv420p")
            frame.pts = i
            packets.extend(stream.encode(frame))
        packets.extend(stream.encode(None))
        ticks = round(encoded_minutes * 60 / packets[0].time_base)
        times = [(packet.pts, packet.dts) for packet in packets]
        for repetition in range(minutes // encoded_minutes):
            for packet, (pts, dts) in zip(packets, times):
                copy = av.Packet(bytes(packet))
                copy.stream, copy.time_base, copy.duration = stream, packet.time_base, packet.duration
                copy.is_keyframe = packet.is_keyframe
                copy.pts, copy.dts = pts + repetition * ticks, dts + repetition * ticks
                output.mux(copy)
    partial.rename(path)


def plain_pyav(path: str) -> int:
    """What people write: decode every frame, convert and resize those at 0, 1, 2, ... s."""
    import av

    num_frames = 0
    with av.open(path) as container:
        for frame in container.decode(video=0):
            if frame.time >= num_frames:
                Image.fromarray(frame.to_ndarray(format="rgb24")).resize((SIZE_PIXELS, SIZE_PIXELS), Image.BICUBIC)
                num_frames += 1
    return num_frames


def ours(path: str, num_processes: int) -> int:
    from hourllava.video import read_frames

    with read_frames(path, fps=1, size_pixels=(SIZE_PIXELS, SIZE_PIXELS), num_processes=num_processes) as reader:
        return sum(len(batch) for batch in reader)


def resident_bytes(process: int) -> int:
    """Resident memory of a process and its children, in bytes (Linux)."""
    total = 0
    try:
        pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
        total += pages * os.sysconf("SC_PAGE_SIZE")
        for task in Path(f"/proc/{process}/task").iterdir():
            total += sum(resident_bytes(int(child)) for child in (task / "children").read_text().split())
    except (FileNotFoundError, ProcessLookupError):
        pass  # it ended meanwhile
    return total


def children_cpu_seconds() -> float:
    times = os.times()
    return times.children_user + times.children_system


def measure(path: Path, method: str) -> tuple[float, float, int, int]:
    """Run a reader in a fresh interpreter: seconds, start-up included; CPU seconds; sampled frames; peak bytes."""
    start, cpu_start = time.perf_counter(), children_cpu_seconds()
    command = [sys.executable, __file__, "--run", method, str(path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    peak = 0
    while process.poll() is None:
        peak = max(peak, resident_bytes(process.pid))
        time.sleep(0.1)
    seconds = time.perf_counter() - start
    assert process.stdout is not None
    output = process.stdout.read()
    if process.returncode:
        raise SystemExit(f"{method} failed on {path}")
    return seconds, children_cpu_seconds() - cpu_start, int(output), peak


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, help="where the generated videos are kept")
    parser.add_argument("--videos", nargs="*", default=list(VIDEOS), help=f"which of: {', '.join(VIDEOS)}")
    parser.add_argument("--readers", nargs="*", default=["plain", "1", "2"], help="plain PyAV, or ours by processes")
    parser.add_argument("--run", nargs=2, metavar=("METHOD", "FILE"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.run:
        method, path = arguments.run
        print(plain_pyav(path) if method == "plain" else ours(path, int(method)))
        return
    if arguments.folder is None:
        parser.error("--folder is needed")
    arguments.folder.mkdir(parents=True, exist_ok=True)
    for name in arguments.videos:
        path = arguments.folder / (name.replace(",", "").replace(" ", "-") + ".mp4")
        if not path.exists():
            print(f"generating {path.name} ...", file=sys.stderr)
            generate(path, *VIDEOS[name])
    print("| video | reader | seconds | CPU seconds | frames | frames/s | of plain PyAV | peak memory MB | load |")
    print("|---|---|---:|---:|---:|---:|---:|---:|---:|")
    for name in arguments.videos:
        path = arguments.folder / (name.replace(",", "").replace(" ", "-") + ".mp4")
        megabits = path.stat().st_size * 8 / (VIDEOS[name][3] * 60) / 1e6
        plain_seconds = None
        for method in arguments.readers:
            load = os.getloadavg()[0]
            seconds, cpu_seconds, num_frames, peak = measure(path, method)
            plain_seconds = plain_seconds or seconds
            label = "plain PyAV" if method == "plain" else f"ours, {method} process{'es' * (method != '1')}"
            print(
                f"| {name} ({megabits:.2f} Mb/s) | {label} | {seconds:.1f} | {cpu_seconds:.1f} | {num_frames}"
                f" | {num_frames / seconds:.0f} | {plain_seconds / seconds:.2f}x | {peak / 1e6:.0f} | {load:.1f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
