"""Frames a second of feature pre-extraction from mp4 to files, beside decoding alone and the tower alone.

    python benchmarks/features.py --folder /tmp/features-bench                       # random weights of SigLIP so400m
    python benchmarks/features.py --folder /tmp/features-bench --preset hourllava-nano --videos 4 --minutes 5

Needs no network. The videos are those of `benchmarks/decode.py` (360p, 25 fps), one of them under several names.
End to end is the whole of `make_features`: loading the model, digests, decoding, encoding, writing. With the decoders
given, it can at best reach the smaller of the two rates beside it.
"""

import argparse
import shutil
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import save_file

from decode import generate
from hourllava.data.features.extract import BATCH_FRAMES, make_features, parse_devices
from hourllava.data.features.tower import PREFIX, Tower, load_tower
from hourllava.model.config import HourLlavaConfig
from hourllava.model.devices import usable_dtype
from hourllava.model.vision import build_vision_tower
from hourllava.processes import usable_cores
from hourllava.video import read_frames


def write_tower(folder: Path, preset: str, device: torch.device) -> None:
    """A checkpoint with nothing but a tower of random weights."""
    torch.manual_seed(0)
    config = HourLlavaConfig.preset(preset)
    config.save_pretrained(folder)
    with device:
        state = build_vision_tower(config).bfloat16().state_dict()
    save_file({PREFIX + name: tensor for name, tensor in state.items()}, folder / "model.safetensors")


def decoding_rate(videos: list[Path], num_decoders: int, size_pixels: int) -> float:
    """Frames a second of as many decoders as a device has, without a tower."""
    waiting, counts = iter(videos), []
    lock = threading.Lock()

    def decode() -> None:
        while True:
            with lock:
                video = next(waiting, None)
            if video is None:
                return
            with read_frames(video, size_pixels=(size_pixels, size_pixels), num_processes=1) as reader:
                counts.append(sum(len(batch) for batch in reader))

    threads = [threading.Thread(target=decode) for _ in range(num_decoders)]
    seconds = timed(lambda: [*map(threading.Thread.start, threads), *map(threading.Thread.join, threads)])
    return sum(counts) / seconds


def tower_rate(tower: Tower, seconds: float = 5.0) -> float:
    """Frames a second of the tower alone, uint8 frames in and bfloat16 features out, for some seconds."""
    size = tower.image_pixels
    frames = torch.randint(0, 256, (tower.batch_frames, size, size, 3), dtype=torch.uint8)
    tower.encode(frames).cpu()
    count, started = 0, time.perf_counter()
    while time.perf_counter() - started < seconds:
        tower.encode(frames).cpu()
        count += tower.batch_frames
    return count / (time.perf_counter() - started)


def timed(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, required=True, help="for the videos, which are kept, and the features")
    parser.add_argument("--preset", default="hourllava-3b", help="whose tower, with random weights")
    parser.add_argument("--model", type=Path, help="a checkpoint instead of a preset")
    parser.add_argument("--videos", type=int, default=32)
    parser.add_argument("--minutes", type=int, default=10)
    parser.add_argument("--devices", help="such as cuda:0,cuda:1; all GPUs by default, or the CPU")
    parser.add_argument("--decoders", type=int, help="for each device; all cores shared out by default")
    parser.add_argument("--batch-frames", type=int)
    options = parser.parse_args()

    folder: Path = options.folder / "features-videos"
    folder.mkdir(parents=True, exist_ok=True)
    original = folder.parent / f"360p-{options.minutes}min.mp4"
    if not original.exists():
        generate(original, 640, 360, 1 + (options.minutes % 2 == 0), options.minutes)
    shutil.rmtree(folder)
    folder.mkdir()
    videos = [folder / f"{k:03d}.mp4" for k in range(options.videos)]
    for video in videos:
        video.hardlink_to(original)
    devices = parse_devices(options.devices)
    batch_frames = options.batch_frames or BATCH_FRAMES.get(devices[0].type, 16)
    decoders = options.decoders or max(1, usable_cores() // len(devices))
    with tempfile.TemporaryDirectory(dir=options.folder) as work:
        model = options.model or Path(work, "tower")
        if options.model is None:
            write_tower(model, options.preset, devices[0])
        tower = load_tower(model, devices[0], usable_dtype(None, devices[0]), batch_frames)
        encoding = tower_rate(tower) * len(devices)
        decoding = decoding_rate(videos, decoders * len(devices), tower.image_pixels)
        del tower
        report = make_features(
            [folder], Path(work, "out"), model=str(model), devices=devices, decoders=decoders, batch_frames=batch_frames
        )
    assert report.num_made == options.videos, report.failures
    name = torch.cuda.get_device_name(0) if devices[0].type == "cuda" else "CPU"
    print(f"{len(devices)} x {name}, {decoders} decoders each of {usable_cores()} cores, batches of {batch_frames},")
    print(f"{options.videos} videos of {options.minutes} min at 360p, torch {torch.__version__}")
    print("| | frames/s |\n|---|---|")
    print(f"| decoders alone | {decoding:.0f} |\n| tower alone | {encoding:.1f} |")
    rate = report.num_frames / report.seconds
    print(f"| end to end, {report.num_frames} frames in {report.seconds:.1f} s | {rate:.1f} |")


if __name__ == "__main__":
    main()
