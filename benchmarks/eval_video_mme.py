"""How many hours Video-MME takes: 900 videos, three questions each, measured on a slice and extrapolated by length.

    python benchmarks/eval_video_mme.py --size 3b --folder /tmp/eval --out eval_video_mme.json
    python benchmarks/eval_video_mme.py --size tiny --minutes 1,2 --folder /tmp/eval

Random weights: lengths and shapes decide the time, except that an answer always has all 16 tokens. One video of each
length (360p, 25 fps, H.264, made by `benchmarks/decode.py`) goes the way of `hourllava eval video-mme`: watched once,
from the file, then asked its three questions in lmms-eval's words. The time of a video is taken to be linear in its
length. Video-MME's short, medium and long videos have means of 81, 520 and 2,471 seconds, 254 hours in all. Results are
written after each length; the table comes last.
"""

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from decode import generate
from first_token import processor_of
from hourllava.evaluation.benchmarks.asking import Asking
from hourllava.evaluation.benchmarks.questions import Question
from hourllava.evaluation.benchmarks.raw import RawAnswer
from hourllava.evaluation.benchmarks.runner import Part, answers_of_model
from hourllava.evaluation.benchmarks.video_mme import BENCHMARK
from hourllava.inference.engine import HourLlava
from hourllava.model.config import HourLlavaConfig
from hourllava.model.modeling import HourLlavaForConditionalGeneration
from hourllava.processes import usable_cores

PRESETS = {"3b": "hourllava-3b", "7b": "hourllava-7b", "tiny": "hourllava-nano"}
GROUPS = {"short": 81.0, "medium": 520.0, "long": 2471.0}  # seconds, mean
VIDEOS_PER_GROUP = 300
OPTIONS = ("A. Because it rains all day.", "B. Because the train is late.", "C. To see a friend.", "D. Nobody knows.")

Figures = dict[str, float]


def random_engine(preset: str, device: torch.device) -> HourLlava:
    """A model of a preset's shape with random weights."""
    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16 if device.type == "cuda" else torch.float32)
    with device:
        model = HourLlavaForConditionalGeneration(HourLlavaConfig.preset(preset)).eval()
    torch.set_default_dtype(torch.float32)
    return HourLlava(model, processor_of(model))


def part_of(path: Path) -> Part:
    """Three questions about a video, as long as Video-MME's."""
    questions = [
        Question(
            id=f"{path.stem}-{k}", place=k, video=path.stem, file=path.name, lines=OPTIONS, gold="A", gold_index=0,
            text=(text := f"Why does the person with the hat leave the house for the {word} time in the video?"),
            question=text, options=tuple(option[3:] for option in OPTIONS),
        )
        for k, word in enumerate(("first", "second", "last"))
    ]  # fmt: skip
    return Part(path.stem, path.name, 0.0, None, questions)


def measured(engine: HourLlava, path: Path) -> Figures:
    """The time of one video and its questions."""
    protocol = BENCHMARK.protocol("lmms-eval-0.7.2")
    start = time.perf_counter()
    answers = [
        result
        for result in answers_of_model(engine, path.parent, Asking(protocol), None, [part_of(path)])
        if isinstance(result, RawAnswer)
    ]
    assert len(answers) == 3, "a question failed"
    return {
        "frames": answers[0].num_frames, "watch s": answers[0].watch_seconds,
        "three answers s": sum(answer.ask_seconds for answer in answers),
        "tokens": sum(answer.num_new_tokens for answer in answers), "all s": time.perf_counter() - start,
    }  # fmt: skip


def estimated(lengths: Sequence[float], seconds: Sequence[float]) -> Figures:
    """Hours of each group and of all, by a straight line through the measured lengths."""
    slope, base = np.polyfit(lengths, seconds, 1) if len(lengths) > 1 else (seconds[0] / lengths[0], 0.0)
    hours = {
        group: VIDEOS_PER_GROUP * max(0.0, base + slope * mean) / 3600 for group, mean in GROUPS.items()
    }  # fmt: skip
    return hours | {"all": sum(hours.values()), "seconds a video": float(base), "seconds per second": float(slope)}


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", choices=PRESETS, default="3b")
    parser.add_argument("--minutes", default="1,9,41", help="lengths of the videos that are measured")
    parser.add_argument("--folder", type=Path, required=True, help="for the videos, which are kept")
    parser.add_argument("--out", type=Path, help="JSON file of the results")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args()
    device = torch.device(options.device)
    minutes = sorted({int(part) for part in options.minutes.split(",")})
    options.folder.mkdir(parents=True, exist_ok=True)
    name = torch.cuda.get_device_name() if device.type == "cuda" else "CPU"
    results: dict[str, object] = {
        "device": name, "cores": usable_cores(), "torch": torch.__version__, "size": options.size, "videos": {},
    }  # fmt: skip
    videos: dict[str, Figures] = {}

    def save() -> None:
        if options.out:
            options.out.write_text(json.dumps({**results, "videos": videos}, indent=1) + "\n")

    start = time.perf_counter()
    with random_engine(PRESETS[options.size], device) as engine:
        print(f"{options.size} on {name}: random weights in {time.perf_counter() - start:.0f} s", flush=True)
        for number in (minutes[0], *minutes):  # the first one twice: its first time makes everything warm
            path = options.folder / f"360p-{number}min.mp4"
            if not path.exists():
                generate(path, 640, 360, 1, number)
            videos[str(number)] = figures = measured(engine, path)
            print(f"{number} min: " + "  ".join(f"{key} {value:.3g}" for key, value in figures.items()), flush=True)
            save()
    lengths = [60.0 * number for number in minutes]
    results["hours"] = hours = estimated(lengths, [videos[str(number)]["all s"] for number in minutes])
    save()
    print(f"\n{name}, {usable_cores()} cores, torch {torch.__version__}, {options.size}, random weights\n")
    print("| video | frames | watched in | frames/s | three answers in | all |\n|---|---|---|---|---|---|")
    for number in minutes:
        one = videos[str(number)]
        print(
            f"| {number} min | {one['frames']:.0f} | {one['watch s']:.1f} s | {one['frames'] / one['watch s']:.0f} "
            f"| {one['three answers s']:.2f} s | {one['all s']:.1f} s |"
        )
    print("\n| Video-MME | videos | hours |\n|---|---|---|")
    for group in (*GROUPS, "all"):
        number = VIDEOS_PER_GROUP if group in GROUPS else VIDEOS_PER_GROUP * len(GROUPS)
        print(f"| {group} | {number} | {hours[group]:.2f} |")


if __name__ == "__main__":
    main()
