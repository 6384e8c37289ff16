"""How long a question about a video waits for its first token.

    python benchmarks/first_token.py --model hourllava-3b --model hourllava-7b --frames 3600

Random weights in bf16 and random features; the model, the kernels and the shapes are the real ones. `memory` projects
the features and makes MemAug's keys and values (done once per video), `MemAug` looks into the memory, `prefill` runs
the decoder over the prompt up to the first token's logits. "cold" is all three, "warm" is a further question about the
same video.
"""

import argparse
import gc
import statistics
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from hourllava.model.batch import VisualSample, batch_visuals
from hourllava.model.config import HourLlavaConfig
from hourllava.model.layout import video_layout
from hourllava.model.modeling import HourLlavaForConditionalGeneration
from hourllava.model.visuals import Visuals

NUM_TEXT_TOKENS = 80  # of the released prompt around the video, and a question


def random_model(name: str, device: torch.device) -> HourLlavaForConditionalGeneration:
    """A model of a preset's shape with random bf16 weights."""
    torch.set_default_dtype(torch.bfloat16)
    with device:
        model = HourLlavaForConditionalGeneration(HourLlavaConfig.preset(name))
    torch.set_default_dtype(torch.float32)
    return model.eval()


def milliseconds(run: Callable[[], Any], device: torch.device, repeats: int) -> float:
    """Median time of `run`, after one warm-up."""
    times = []
    for number in range(repeats + 1):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        run()
        end.record()
        torch.cuda.synchronize(device)
        if number:
            times.append(start.elapsed_time(end))
    return statistics.median(times)


@torch.inference_mode()
def measure(name: str, num_frames: int, repeats: int) -> dict[str, float]:
    """Milliseconds of each part and peak memory in GB."""
    device = torch.device("cuda")
    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    model = random_model(name, device)
    config = model.config
    features = torch.randn(num_frames, config.video_frame_tokens, config.vision_feature_width, device=device).bfloat16()
    layout = video_layout(num_frames, config)
    num_kept = len(layout.kept_index)
    input_ids = torch.randint(0, 1000, (1, num_kept + NUM_TEXT_TOKENS), device=device)
    is_visual = np.zeros(input_ids.shape[1], bool)
    is_visual[14 : 14 + num_kept] = True
    input_ids[0, torch.from_numpy(is_visual)] = config.visual_token_id
    layouts = batch_visuals([VisualSample(layout, 0, is_visual, ~is_visual)]).to(device)
    shown = Visuals(layouts, features={"video": features})

    memory = model.model.remember(shown)
    remembered = Visuals(layouts, memory=memory)
    embeds = model.model.embed(input_ids, remembered)
    parts = {
        "memory": lambda: model.model.remember(shown),
        "MemAug": lambda: model.model.embed(input_ids, remembered),
        "prefill": lambda: model(inputs_embeds=embeds, logits_to_keep=1, use_cache=True),
        "warm": lambda: model(inputs_embeds=model.model.embed(input_ids, remembered), logits_to_keep=1, use_cache=True),
        "cold": lambda: model(
            input_ids=input_ids,
            visuals=layouts,
            memory=model.model.remember(shown),
            logits_to_keep=1,
            use_cache=True,
        ),
    }
    result = {part: milliseconds(run, device, repeats) for part, run in parts.items()}
    result["peak GB"] = torch.cuda.max_memory_allocated() / 1e9
    result["keys+values GB"] = sum(block.num_bytes for block in memory.keys_values) / 1e9
    return result


def main() -> None:
    """Print a table, a line per model and number of frames."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", action="append", help="preset; several may be given")
    parser.add_argument("--frames", action="append", type=int, help="frames of the video; several may be given")
    parser.add_argument("--repeats", type=int, default=10)
    options = parser.parse_args()
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}, bf16, random weights, milliseconds")
    columns = ("memory", "MemAug", "prefill", "warm", "cold", "peak GB", "keys+values GB")
    print(f"{'model':<14}{'frames':>8}" + "".join(f"{column:>16}" for column in columns), flush=True)
    for name in options.model or ["hourllava-3b", "hourllava-7b"]:
        for num_frames in options.frames or [3600]:
            result = measure(name, num_frames, options.repeats)
            print(f"{name:<14}{num_frames:>8}" + "".join(f"{result[column]:>16.1f}" for column in columns), flush=True)


if __name__ == "__main__":
    main()
