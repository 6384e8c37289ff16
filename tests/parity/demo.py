"""What there is so far: the nano model's shape, and how far this library is from the released model.

    python tests/parity/demo.py

Builds `hourllava-nano` with random weights, lets it read a random video and prints what that took, then runs the golden
cases (`check.py`).
"""

import sys
import time
from pathlib import Path

import torch
from check import main as check
from transformers.modeling_outputs import BaseModelOutputWithPooling

from hourllava.model.batch import VisualSample, batch_visuals
from hourllava.model.config import HourLlavaConfig
from hourllava.model.layout import video_layout
from hourllava.model.modeling import HourLlavaForConditionalGeneration

NUM_FRAMES = 3600


@torch.inference_mode()
def show_nano() -> None:
    """One hour through the nano model: features in, first token out."""
    torch.manual_seed(0)
    config = HourLlavaConfig.preset("hourllava-nano")
    model = HourLlavaForConditionalGeneration(config).eval()
    num_parameters = sum(parameter.numel() for parameter in model.parameters())
    features = torch.randn(NUM_FRAMES, config.video_frame_tokens, config.vision_feature_width)
    layout = video_layout(NUM_FRAMES, config)
    input_ids = torch.full((1, len(layout.kept_index) + 20), 7)
    input_ids[0, 5 : 5 + len(layout.kept_index)] = config.visual_token_id
    is_visual = (input_ids[0] == config.visual_token_id).numpy()
    visuals = batch_visuals([VisualSample(layout, 0, is_visual, ~is_visual)])
    start = time.perf_counter()
    model(
        input_ids=input_ids,
        visuals=visuals,
        mm_encoder_outputs={"video": BaseModelOutputWithPooling(pooler_output=features)},
        logits_to_keep=1,
    )
    seconds = time.perf_counter() - start
    print(f"hourllava-nano with random weights: {num_parameters / 1e6:.1f} million parameters")
    print(
        f"one hour at 1 frame a second: {len(layout.memory_index):,} memory tokens, {len(layout.kept_index):,} kept "
        f"for the decoder; question to first token in {seconds:.1f} s"
    )


if __name__ == "__main__":
    show_nano()
    print("\nagainst the released model, computed elsewhere:")
    sys.exit(check([str(Path(__file__).parent / "golden")]))
