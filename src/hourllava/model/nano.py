"""The nano model: the same architecture, small enough for a laptop.

Until it has been trained it has random weights, the same on every machine, and a tokenizer of single bytes: it answers
nonsense, but everything around it can be tried.
"""

import logging

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from hourllava.model.config import HourLlavaConfig
from hourllava.model.modeling import HourLlavaForConditionalGeneration
from hourllava.model.processor import HourLlavaProcessor
from hourllava.model.prompt import END, START

NANO = "nano"
PAD = "<|endoftext|>"
SEED = 0

logger = logging.getLogger(__name__)


def load_nano(
    *, device: torch.device | str = "cpu", dtype: torch.dtype | str = torch.float32
) -> tuple[HourLlavaForConditionalGeneration, HourLlavaProcessor]:
    """The nano model and its processor."""
    logger.warning("the nano model is not trained yet: it has random weights and its answers mean nothing")
    config = HourLlavaConfig.preset("hourllava-nano")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        model = HourLlavaForConditionalGeneration(config)
    resolved = getattr(torch, dtype) if isinstance(dtype, str) else dtype
    return model.to(device, resolved).eval(), HourLlavaProcessor(byte_tokenizer(), config)


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """A tokenizer of single bytes with the ChatML tokens: any text, no training."""
    vocabulary = {symbol: number for number, symbol in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in (PAD, START, END)])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=END, pad_token=PAD)
