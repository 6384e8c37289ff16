"""How long a question about a video waits for its first token, and what comes after it.

    python benchmarks/first_token.py --model hourllava-3b --model hourllava-7b --frames 3600

Random weights in bf16 and random features; the model, the kernels and the shapes are the real ones. `memory` projects
the features and makes MemAug's keys and values (done once per video), `MemAug` looks into the memory, `prefill` runs
the decoder over the prompt up to the first token's logits. "cold" is all three, "warm" is a further question about the
same video. `new` are questions of lengths that were not asked before: a kernel that is planned anew for every length
shows there (the slowest one, and the median). `evidence` is measured after the first token.

`--prefill-cudnn` lets cuDNN serve the prefill, with lengths rounded up; `--prefill-flash` forbids it.
"""

import argparse
import gc
import statistics
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hourllava.inference.questions.evidence import WatchedQueries, shares_of_runs
from hourllava.inference.rows.prefill import prefill
from hourllava.model import attention
from hourllava.model.attention_share import KeyRuns
from hourllava.model.batch import VisualBatch, VisualSample, batch_visuals
from hourllava.model.config import HourLlavaConfig
from hourllava.model.layout import VisualLayout, video_layout
from hourllava.model.modeling import HourLlavaForConditionalGeneration
from hourllava.model.nano import nano_tokenizer
from hourllava.model.processor import HourLlavaProcessor
from hourllava.model.visuals import Visuals

NUM_TEXT_TOKENS = 80  # of the released prompt around the video, and a question


def random_model(
    name: str, device: torch.device, recall: str = "kept", recall_tokens: int = 64
) -> HourLlavaForConditionalGeneration:
    """A model of a preset's shape with random bf16 weights."""
    memaug = {"recall": recall, "recall_tokens": recall_tokens}
    torch.set_default_dtype(torch.bfloat16)
    with device:
        model = HourLlavaForConditionalGeneration(HourLlavaConfig.preset(name, memaug=memaug))
    torch.set_default_dtype(torch.float32)
    return model.eval()


def processor_of(model: HourLlavaForConditionalGeneration) -> HourLlavaProcessor:
    """A processor for random weights, with nano's tokenizer. Answers are numbers of tokens.

    Nano's tokenizer has no text for most of a larger model's tokens.
    """
    processor = HourLlavaProcessor(nano_tokenizer(), model.config)
    processor.decode = lambda tokens: " ".join(map(str, tokens))  # type: ignore[method-assign]  # of this one only
    return processor


def milliseconds(run: Callable[[], Any], device: torch.device) -> float:
    """Time of one run."""
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    torch.cuda.synchronize(device)
    start.record()
    run()
    end.record()
    torch.cuda.synchronize(device)
    return start.elapsed_time(end)


def median_milliseconds(run: Callable[[], Any], device: torch.device, repeats: int) -> float:
    """Median time, after one warm-up."""
    return statistics.median([milliseconds(run, device) for _ in range(repeats + 1)][1:])


def question(
    layout: VisualLayout, num_text_tokens: int, config: HourLlavaConfig, device: torch.device
) -> tuple[Tensor, VisualBatch]:
    """Token ids [1, L] of a prompt with so many text tokens, and its visuals."""
    num_kept = len(layout.kept_index)
    input_ids = torch.randint(0, 1000, (1, num_kept + num_text_tokens), device=device)
    is_visual = np.zeros(input_ids.shape[1], bool)
    is_visual[14 : 14 + num_kept] = True
    input_ids[0, torch.from_numpy(is_visual)] = config.visual_token_id
    layouts = batch_visuals([VisualSample(layout, 0, is_visual, ~is_visual)])
    assert layouts is not None
    return input_ids, layouts.to(device)


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
    input_ids, layouts = question(layout, NUM_TEXT_TOKENS, config, device)
    shown = Visuals(layouts, features={"video": features})
    memory = model.model.remember(shown)
    remembered = Visuals(layouts, memory=memory)
    embeds = model.model.embed(input_ids, remembered)[0]
    runs = KeyRuns(np.arange(len(layout.memory_index)) // (config.video_frame_tokens + 1))
    watched = WatchedQueries(layouts.visual_query_index)
    model.model.embed(input_ids, remembered, watched.observe)

    def warm() -> None:
        prefill(model, model.model.embed(input_ids, remembered)[0])

    def cold() -> None:
        prefill(model, model.model.embed(input_ids, Visuals(layouts, memory=model.model.remember(shown)))[0])

    parts = {
        "memory": lambda: model.model.remember(shown),
        "MemAug": lambda: model.model.embed(input_ids, remembered),
        "prefill": lambda: prefill(model, embeds),
        "warm": warm,
        "cold": cold,
        "evidence": lambda: shares_of_runs([watched], runs).cpu(),
    }
    result = {part: median_milliseconds(run, device, repeats) for part, run in parts.items()}
    new: dict[str, list[float]] = {"MemAug": [], "prefill": []}
    for number in range(1, repeats + 1):
        ids, batch = question(layout, NUM_TEXT_TOKENS + 7 * number, config, device)
        visuals = Visuals(batch, memory=memory)
        new["MemAug"].append(milliseconds(lambda ids=ids, visuals=visuals: model.model.embed(ids, visuals), device))
        longer = model.model.embed(ids, visuals)[0]
        new["prefill"].append(milliseconds(lambda longer=longer: prefill(model, longer), device))
    for part, times in new.items():
        result[f"{part} new"], result[f"{part} worst"] = statistics.median(times), max(times)
    result["peak GB"] = torch.cuda.max_memory_allocated() / 1e9
    result["keys+values GB"] = sum(block.num_bytes for block in memory.keys_values) / 1e9
    return result


def main() -> None:
    """Print a table, a line per model and number of frames."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", action="append", help="preset; several may be given")
    parser.add_argument("--frames", action="append", type=int, help="frames of the video; several may be given")
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--prefill-cudnn", action="store_true", help="cuDNN serves the prefill")
    parser.add_argument("--prefill-flash", action="store_true", help="flash serves the prefill")
    options = parser.parse_args()
    if options.prefill_cudnn or options.prefill_flash:
        attention.MIN_PREFILL_SCORES_FOR_CUDNN = 0 if options.prefill_cudnn else 2**62
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}, bf16, random weights, milliseconds")
    header_printed = False
    for name in options.model or ["hourllava-3b", "hourllava-7b"]:
        for num_frames in options.frames or [3600]:
            result = measure(name, num_frames, options.repeats)
            if not header_printed:
                print(f"{'model':<14}{'frames':>8}" + "".join(f"{column:>16}" for column in result), flush=True)
                header_printed = True
            print(f"{name:<14}{num_frames:>8}" + "".join(f"{value:>16.1f}" for value in result.values()), flush=True)


if __name__ == "__main__":
    main()
