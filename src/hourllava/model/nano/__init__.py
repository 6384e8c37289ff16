"""The nano model: the same architecture, small enough for a laptop, trained on MarathonWorld.

Its configuration, weights and tokenizer (`hourllava world tokenizer` makes it) lie beside this file, in the form of any
checkpoint of ours.
"""

from pathlib import Path

import torch
from transformers import PreTrainedTokenizerFast

from hourllava.model.checkpoint import load_config, load_model
from hourllava.model.modeling import HourLlavaForConditionalGeneration
from hourllava.model.processor import HourLlavaProcessor

NANO = "nano"
FOLDER = Path(__file__).parent


def load_nano(
    *, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
) -> tuple[HourLlavaForConditionalGeneration, HourLlavaProcessor]:
    """The nano model and its processor.

    Raises:
        CheckpointError: the weights in the package are missing or damaged.
    """
    model, _ = load_model(FOLDER, device=device, dtype=dtype)
    return model, nano_processor()


def nano_processor() -> HourLlavaProcessor:
    """The nano model's processor, without its weights."""
    return HourLlavaProcessor(nano_tokenizer(), load_config(FOLDER))


def nano_tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level BPE made from MarathonWorld's text; spells any text."""
    return PreTrainedTokenizerFast.from_pretrained(FOLDER)
