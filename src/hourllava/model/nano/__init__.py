"""The nano model: the same architecture, small enough for a laptop.

Its tokenizer lies beside this file (`hourllava world tokenizer` makes it), and so do its configuration and weights once
it has been trained, in the form of any checkpoint of ours: `config.json` and one or more safetensors files. Without
them the model has random weights, the same on every machine: it answers nonsense, but everything around it can be
tried.
"""

import logging
from pathlib import Path

import torch
from transformers import PreTrainedTokenizerFast

from hourllava.model.checkpoint import load_config, load_model
from hourllava.model.config import HourLlavaConfig
from hourllava.model.modeling import HourLlavaForConditionalGeneration
from hourllava.model.processor import HourLlavaProcessor

NANO = "nano"
FOLDER = Path(__file__).parent
SEED = 0

logger = logging.getLogger(__name__)


def nano_is_trained() -> bool:
    """Whether this copy of the package holds trained weights."""
    return (FOLDER / "config.json").is_file()


def load_nano(
    *, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
) -> tuple[HourLlavaForConditionalGeneration, HourLlavaProcessor]:
    """The nano model and its processor; a warning says so if it is not trained.

    Raises:
        CheckpointError: the weights in the package are damaged.
    """
    if nano_is_trained():
        model, _ = load_model(FOLDER, device=device, dtype=dtype)
        return model, nano_processor()
    logger.warning("the nano model is not trained yet: it has random weights and its answers mean nothing")
    config = HourLlavaConfig.preset("hourllava-nano")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        model = HourLlavaForConditionalGeneration(config)
    return model.to(device, dtype).eval(), nano_processor()


def nano_processor() -> HourLlavaProcessor:
    """The nano model's processor, without its weights."""
    config = load_config(FOLDER) if nano_is_trained() else HourLlavaConfig.preset("hourllava-nano")
    return HourLlavaProcessor(nano_tokenizer(), config)


def nano_tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level BPE made from MarathonWorld's text; spells any text."""
    return PreTrainedTokenizerFast.from_pretrained(FOLDER)
